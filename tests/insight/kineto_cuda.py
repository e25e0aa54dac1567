"""Traces as Kineto writes them on a GPU: its header, its members in their order, nanoseconds as three decimals of a microsecond.

What the made-up runs of synthetic.cpp leave out, and real traces are full of: several streams whose kernels overlap, copies and
fills, ranges on the device's lanes (gpu_user_annotation), waits (cuda_sync) with and without a stream, graphs whose kernels share one
correlation, launches through the driver, kernels launched before the window, work that runs on after the last step, device clocks
that run a little before the host's (a kernel that begins before its launch), arrows without a beginning. Form: libkineto's
output_json.cpp and CuptiActivity.cpp.
"""
import json
import random

PID = 41000
BASE = 1764000000000000000
COMPUTE, SECOND, COPY, NCCL = 7, 20, 24, 30  # streams
NAMES = ["ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_64x3_tn",
         "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<c10::BFloat16> >(int, at::native::CUDAFunctor_add<c10::BFloat16>)",
         "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 64, 64, 4> >(pytorch_flash::Flash_fwd_params)",
         "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float> >(at::native::ReduceOp<float>)", "triton_poi_fused_add_mul_0"]


class Trace:
    def __init__(self, rank, ranks, seed, whole):
        self.rank, self.ranks, self.whole = rank, ranks, whole
        self.random = random.Random(seed * 1000 + rank)
        self.events, self.host, self.ids = [], 1_000_000, 100
        self.free = {stream: 0 for stream in (COMPUTE, SECOND, COPY, NCCL)}
        self.sequence = 0

    def us(self, ns):
        return str(ns // 1000) if self.whole else f"{ns // 1000}.{ns % 1000:03}"

    def add(self, text):
        self.events.append(text)

    def range(self, cat, name, pid, tid, ts, dur, args):
        inner = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in args.items())
        self.add(f'''
  {{
    "ph": "X", "cat": "{cat}", "name": "{name}", "pid": {pid}, "tid": {tid},
    "ts": {self.us(ts)}, "dur": {self.us(dur)},
    "args": {{
      {inner}
    }}
  }},''')

    def flow(self, end, number, pid, tid, ts, cat="ac2g"):
        self.add(f'''
  {{
    "ph": "{'f' if end else 's'}", "id": {number}, "pid": {pid}, "tid": {tid}, "ts": {self.us(ts)},
    "cat": "{cat}", "name": "{cat}"{', "bp": "e"' if end else ''}
  }},''')

    def runtime(self, name, tid, ts, dur, cbid, external, cat="cuda_runtime"):
        self.ids += 1
        args = {"External id": external} if external else {}
        self.range(cat, name, PID + self.rank, tid, ts, dur, {**args, "cbid": cbid, "correlation": self.ids})
        self.flow(False, self.ids, PID + self.rank, tid, ts)
        return self.ids

    def kernel(self, name, stream, dur, correlation, external, more=None, cat="kernel"):
        start = max(self.free[stream], self.host + self.random.randint(500, 9000))
        if self.random.random() < 0.05 and self.free[stream] < self.host - 9000:
            start = self.host - 8000  # the device's clock runs ahead
        # No two of one stream begin within the same microsecond, and no copy with the end of another: HTA sorts such in either order.
        self.free[stream] = start + max(dur, 1000) + (self.random.choice([0, 0, 640, 1100]) if cat == "kernel" else 2000)
        args = {"External id": external} if external else {}
        if cat == "kernel":
            args |= {"queued": 0, "device": self.rank, "context": 1, "stream": stream, "correlation": correlation, "registers per thread": 32,
                     "shared memory": 0, "blocks per SM": 1.481481, "warps per SM": 5.925926, "grid": [160, 1, 1], "block": [128, 1, 1],
                     "est. achieved occupancy %": 9}
        else:
            size = dur * self.random.randint(10, 900)
            args |= {"device": self.rank, "context": 1, "stream": stream, "correlation": correlation, "bytes": size,
                     "memory bandwidth (GB/s)": round(size / dur, 6)}
        self.range(cat, name, self.rank, stream, start, dur, args | (more or {}))
        self.flow(True, correlation, self.rank, stream, start)
        return start

    def sync(self, kind, stream, ts, dur, correlation, more=None):
        lane = abs(stream)  # Kineto makes numbers of threads positive
        self.range("cuda_sync", kind, self.rank, lane, ts, dur,
                   {"cuda_sync_kind": kind, "stream": stream, "correlation": correlation, "device": self.rank, "context": 1, **(more or {})})

    def launch(self, external, name, stream, dur, tid, more=None):
        driver = name.startswith("triton")
        call = self.runtime(*(("cuLaunchKernel",) if driver else ("cudaLaunchKernel",)), tid, self.host, self.random.randint(2000, 7000), 307 if driver else 211,
                            external, "cuda_driver" if driver else "cuda_runtime")
        self.host += 8000
        return self.kernel(name, stream, dur, call, external, more)

    def operator(self, name, tid, more=None, launches=1, stream=COMPUTE):
        self.ids += 1
        begin, external = self.host, self.ids
        self.host += self.random.randint(1000, 5000)
        for _ in range(launches):
            self.launch(external, self.random.choice(NAMES), stream, self.random.randint(600, 90000), tid)
        self.host += 1000
        self.range("cpu_op", name, PID + self.rank, tid, begin, self.host - begin,
                   {"External id": external, "Record function id": 0, "Sequence number": external, "Fwd thread id": 0, "Ev Idx": external, **(more or {})})
        return begin

    def copy(self, name, call, stream, tid, cat):
        self.host += 2000
        correlation = self.runtime(call, tid, self.host, 6000, 41, 0)
        self.host += 7000
        return self.kernel(name, stream, self.random.choice([450, 900, 1300, 40000]), correlation, 0, cat=cat), correlation

    def reduce(self, tid):
        self.ids += 1
        outer, external, begin = self.ids, self.ids + 1, self.host
        self.ids += 1
        facts = {"Collective name": "allreduce", "In msg nelems": 1 << 20, "Out msg nelems": 1 << 20, "Group size": self.ranks, "dtype": "BFloat16",
                 "Process Group Name": "0", "Process Group Description": "default_pg", "Process Group Ranks": str(list(range(self.ranks)))}
        self.host += 9000
        self.runtime("cudaStreamWaitEvent", tid, self.host - 4000, 900, 147, external)
        start = self.launch(external, "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*, unsigned long, ncclWork*)", NCCL, self.random.randint(20000, 300000), tid,
                            {**facts, "Seq": self.sequence})
        self.sync("Stream Wait Event", NCCL, start - 400, 300, self.ids,
                  {"wait_on_stream": COMPUTE, "wait_on_cuda_event_record_corr_id": self.ids - 1, "wait_on_cuda_event_id": 5})
        self.range("cpu_op", "record_param_comms", PID + self.rank, tid, begin + 3000, self.host - begin - 2000, {"External id": external, "Ev Idx": external, **facts})
        self.range("cpu_op", "c10d::allreduce_", PID + self.rank, tid, begin, self.host + 2000 - begin, {"External id": outer, "Ev Idx": outer})
        self.range("user_annotation", "nccl:all_reduce", PID + self.rank, tid, begin + 2500, self.host - begin - 1000, {"External id": external})
        self.range("gpu_user_annotation", "nccl:all_reduce", self.rank, NCCL, start - 1, self.free[NCCL] - start, {"External id": external})
        self.sequence += 1
        self.host += 4000

    def graph(self, tid):
        correlation = self.runtime("cudaGraphLaunch", tid, self.host, 9000, 311, 0)
        self.host += 12000
        for _ in range(3):
            self.kernel(self.random.choice(NAMES), self.random.choice([COMPUTE, SECOND]), self.random.randint(900, 30000), correlation, 0)

    def step(self, number):
        begin, main, engine = self.host, PID + self.rank, PID + self.rank + 1
        self.copy("Memcpy HtoD (Pinned -> Device)", "cudaMemcpyAsync", COPY, main, "gpu_memcpy")
        first = self.free[COPY]
        for i in range(12):
            forward = self.operator(f"aten::{self.random.choice(['addmm', 'add', 'mul', 'native_layer_norm'])}", main, {"Input Dims": [[64, 64], []]},
                                    self.random.choice([0, 1, 1, 2]), SECOND if i % 5 == 4 else COMPUTE)
            self.flow(False, number * 100 + i, main, main, forward, "fwdbwd")
            if i % 4 == 1:
                self.copy("Memset (Device)", "cudaMemsetAsync", COMPUTE, main, "gpu_memset")
        self.graph(main)
        for i in range(8):
            backward = self.operator("autograd::engine::evaluate_function: AddmmBackward0", engine, launches=2)
            self.flow(True, number * 100 + i, main, engine, backward, "fwdbwd")
            if i % 3 == 2:
                self.reduce(engine)
            if i % 4 == 3:
                self.copy("Memcpy DtoD (Device -> Device)", "cudaMemcpyAsync", COMPUTE, engine, "gpu_memcpy")
        self.runtime("cudaEventRecord", main, self.host, 700, 135, 0)
        self.flow(True, self.ids, self.rank, COMPUTE, self.host)  # an arrow that leads to nothing
        copied, _ = self.copy("Memcpy DtoH (Device -> Pageable)", "cudaMemcpyAsync", COMPUTE, main, "gpu_memcpy")
        wait = self.runtime("cudaStreamSynchronize", main, self.host, max(1000, self.free[COMPUTE] - self.host), 131, 0)
        self.sync("Stream Sync", COMPUTE, self.host, max(500, self.free[COMPUTE] - self.host), wait)
        self.host = max(self.host, self.free[COMPUTE]) + 3000
        self.sync("Context Sync", -1, self.host - 2000, 800, self.runtime("cudaDeviceSynchronize", main, self.host - 2500, 1500, 165, 0))
        self.ids += 1
        self.range("user_annotation", f"ProfilerStep#{number}", main, main, begin, self.host - begin, {"External id": self.ids, "Ev Idx": self.ids})
        self.range("gpu_user_annotation", f"ProfilerStep#{number}", self.rank, COMPUTE, first - 1, max(1, copied - first) + 2, {"External id": self.ids})
        self.host += self.random.randint(1000, 30000)

    def text(self, steps):
        self.kernel(NAMES[0], COMPUTE, 30000, 99, 0)  # launched before the window
        for number in range(5, 5 + steps):
            self.step(number)
        self.operator("aten::zero_", PID + self.rank, launches=1)  # behind the last step
        names = "".join(f'''
  {{
    "name": "process_name", "ph": "M", "ts": 0.000, "pid": {pid}, "tid": 0,
    "args": {{
      "name": "python"
    }}
  }},
  {{
    "name": "process_labels", "ph": "M", "ts": 0.000, "pid": {pid}, "tid": 0,
    "args": {{
      "labels": "{label}"
    }}
  }},''' for pid, label in ((PID + self.rank, "CPU"), (self.rank, f"GPU {self.rank}")))
        group = {"pg_name": "0", "pg_desc": "default_pg", "backend_config": "cuda:nccl", "pg_size": self.ranks, "ranks": list(range(self.ranks))}
        info = {"backend": "nccl", "rank": self.rank, "world_size": self.ranks, "pg_count": 1, "pg_config": [group], "nccl_version": "2.26.2"}
        return f'''{{
  "schemaVersion": 1,
  "deviceProperties": [
    {{
      "id": {self.rank}, "name": "NVIDIA A100-SXM4-80GB", "totalGlobalMem": 84987740160,
      "computeMajor": 8, "computeMinor": 0,
      "maxThreadsPerBlock": 1024, "maxThreadsPerMultiprocessor": 2048,
      "regsPerBlock": 65536, "warpSize": 32,
      "sharedMemPerBlock": 49152, "numSms": 108
    , "regsPerMultiprocessor": 65536, "sharedMemPerBlockOptin": 166912, "sharedMemPerMultiprocessor": 167936
    }}
  ],
  "cupti_version": 26,
  "cuda_runtime_version": 12080,
  "cuda_driver_version": 12080,
  "record_shapes": 1,
  "distributedInfo": {json.dumps(info)},
  "trace_id": "0F5A0B5C2C7A4E6E9C5F0B7B3B1D2E3F",
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": {BASE},
  "traceEvents": [{"".join(self.events)}{names}
  {{
    "ph": "X", "cat": "Trace", "ts": {self.us(900000)}, "dur": {self.us(self.host - 900000)},
    "pid": "Spans", "tid": "PyTorch Profiler",
    "name": "PyTorch Profiler (0)",
    "args": {{
      "Op count": 0
    }}
  }},
  {{
    "name": "Iteration Start: PyTorch Profiler", "ph": "i", "s": "g",
    "pid": "Traces", "tid": "Trace PyTorch Profiler", "ts": {self.us(900000)}
  }},
  {{
    "name": "Record Window End", "ph": "i", "s": "g",
    "pid": "", "tid": "", "ts": {self.us(self.host)}
  }}
  ],
  "traceName": "/tmp/rank-{self.rank}.pt.trace.json"
}}
'''


def write(folder, ranks, steps, seed, whole=False):
    """One trace a rank. @param whole: microseconds without decimals, as older Kineto wrote them."""
    for rank in range(ranks):
        text = Trace(rank, ranks, seed, whole).text(steps)
        json.loads(text)
        (folder / f"host_{PID + rank}.{BASE + rank}.pt.trace.json").write_text(text)
