#include "synthetic.h"

#include <zlib.h>

#include <algorithm>
#include <deque>
#include <fstream>
#include <map>

#include "base/error.h"
#include "base/format.h"

namespace triptych::insight {
namespace {

constexpr int64_t kBase = 1764000000000000000;  // a Unix time in ns
constexpr int kHostPid = 4000;

/// What a rank does next. Compute and waits happen in order on the main lane; a reduction marked
/// `async` runs beside it, and kJoin waits for all of those.
struct Action {
  enum Kind { kCompute, kReduce, kSend, kReceive, kJoin, kLoad, kScopeBegin, kScopeEnd } kind;
  std::string name;
  int64_t ns = 0;
  int64_t bytes = 0;
  int peer = -1;
  bool async = false;
  std::string category = "user_annotation";
  bool backward = false;
};

struct Rank {
  int number = 0;
  std::vector<Action> actions;
  size_t next = 0;
  int64_t now = 0;        ///< of the main lane
  int64_t comm_free = 0;  ///< when the lane of reductions is free
  int64_t host = 0;       ///< of the launching thread, device runs only
  int64_t ids = 0;
  int64_t allocated = 64 << 20;
  int reduce_count = 0;
  std::map<std::string, int> sequence;
  std::vector<std::pair<std::string, std::pair<int64_t, std::string>>> scopes;
  std::vector<std::pair<int64_t, int64_t>> live;  ///< address, bytes
  std::string out;
};

class Simulation {
 public:
  explicit Simulation(const SyntheticOptions& o) : o_(o), random_(o.seed) {
    for (int r = 0; r < o.ranks(); ++r) {
      Rank rank;
      rank.number = r;
      plan(rank);
      ranks_.push_back(std::move(rank));
    }
  }

  std::vector<std::string> run() {
    for (auto& rank : ranks_) begin(rank);
    for (bool moved = true; moved;) {
      moved = false;
      for (auto& rank : ranks_)
        while (rank.next < rank.actions.size() && step(rank)) moved = true;
    }
    std::vector<std::string> texts;
    for (auto& rank : ranks_) {
      require(rank.next == rank.actions.size(), "synthetic: the plan of rank ", rank.number,
              " is stuck at ", rank.actions[rank.next].name);
      texts.push_back(finish(rank));
    }
    return texts;
  }

 private:
  int stage(const Rank& r) const { return r.number / o_.data; }
  int host_of(int rank) const { return rank / o_.ranks_per_host; }

  double uniform() {  // xorshift, the same on every machine
    random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
    return static_cast<double>(random_ >> 11) / 9007199254740992.0;
  }
  int64_t quantum() const { return o_.fractions ? 1 : 1000; }
  int64_t round(double ns) const { return static_cast<int64_t>(ns) / quantum() * quantum(); }

  int64_t op_time(const Rank& r, double factor) {
    double ns = static_cast<double>(o_.compute_ns) * factor * (1 + o_.noise * (2 * uniform() - 1));
    if (r.number == o_.slow_rank) ns *= o_.slow_factor;
    return std::max<int64_t>(round(ns), quantum());
  }
  int64_t link_time(int from, int to, int64_t bytes) const {
    double ns = static_cast<double>(bytes) / o_.bytes_per_ns + 5000;
    if (from == o_.slow_link_from && to == o_.slow_link_to) ns /= o_.slow_link_share;
    return round(ns);
  }

  void plan(Rank& r) {
    const int last = o_.pipeline - 1, s = stage(r);
    const auto add = [&](Action action) { r.actions.push_back(std::move(action)); };
    for (int step = 0; step < o_.steps; ++step) {
      add({Action::kScopeBegin, fmt::format("ProfilerStep#{}", step + 10)});
      add({Action::kLoad, "DataLoader.wait", r.number == o_.stalled_rank ? o_.stall_ns : 20000});
      // 1F1B: the warm-up forwards, pairs, the remaining backwards.
      const int warm = std::min(last - s, o_.micro_batches);
      int f = 0, b = 0;
      for (; f < warm; ++f) forward(r, f);
      for (; f < o_.micro_batches; ++f, ++b) forward(r, f), backward(r, b);
      for (; b < o_.micro_batches; ++b) backward(r, b);
      add({Action::kJoin, "join"});
      add({Action::kScopeBegin, "Optimizer.step#AdamW.step"});
      add({Action::kCompute, "aten::_fused_adamw_", op_time(r, 2)});
      add({Action::kScopeEnd, ""});
      add({Action::kScopeEnd, ""});
    }
  }

  void forward(Rank& r, int m) {
    const int last = o_.pipeline - 1, s = stage(r);
    if (s > 0)
      r.actions.push_back({Action::kReceive, "recv", 0, o_.message_bytes, r.number - o_.data});
    r.actions.push_back({Action::kScopeBegin,
                         fmt::format("F stage {} chunk 0 micro-batch {}", s, m), 0, 0, -1, false,
                         "module"});
    for (int l = 0; l < o_.layers; ++l) {
      r.actions.push_back({Action::kScopeBegin,
                           fmt::format("nn.Module: model.layers.{}", s * o_.layers + l), 0, 0, -1,
                           false, "module"});
      for (int k = 0; k < o_.ops_per_layer; ++k)
        r.actions.push_back({Action::kCompute, op_name(k), op_time(r, 1)});
      r.actions.push_back({Action::kScopeEnd, ""});
    }
    r.actions.push_back({Action::kScopeEnd, ""});
    if (s < last)
      r.actions.push_back({Action::kSend, "send", 0, o_.message_bytes, r.number + o_.data});
  }

  void backward(Rank& r, int m) {
    const int last = o_.pipeline - 1, s = stage(r);
    if (s < last)
      r.actions.push_back({Action::kReceive, "recv", 0, o_.message_bytes, r.number + o_.data});
    r.actions.push_back({Action::kScopeBegin,
                         fmt::format("B stage {} chunk 0 micro-batch {}", s, m), 0, 0, -1, false,
                         "module"});
    for (int l = o_.layers; l-- > 0;) {
      for (int k = o_.ops_per_layer; k-- > 0;)
        r.actions.push_back(
            {Action::kCompute, op_name(k) + "_backward", op_time(r, 2), 0, -1, false, "", true});
      if (m == o_.micro_batches - 1 && o_.data > 1)
        r.actions.push_back({Action::kReduce, "allreduce", 0, o_.gradient_bytes, -1, o_.overlap});
    }
    r.actions.push_back({Action::kScopeEnd, ""});
    if (s > 0)
      r.actions.push_back({Action::kSend, "send", 0, o_.message_bytes, r.number - o_.data});
  }

  static std::string op_name(int k) {
    static const char* const kNames[] = {"aten::addmm",
                                         "aten::native_layer_norm",
                                         "aten::_scaled_dot_product_flash_attention",
                                         "aten::mm",
                                         "aten::gelu",
                                         "aten::add"};
    return kNames[k % 6];
  }
  static std::string kernel_name(const std::string& op) {
    if (op.starts_with("aten::addmm") || op.starts_with("aten::mm"))
      return "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_64x3_tn";
    if (op.find("flash") != std::string::npos)
      return "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 64, 4>, "
             "true>(Flash_fwd_params)";
    if (op.find("norm") != std::string::npos)
      return "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, "
             "float>(int, float)";
    if (op.find("adam") != std::string::npos)
      return "void at::native::multi_tensor_apply_kernel<FusedAdam>(int)";
    return "void at::native::vectorized_elementwise_kernel<4, "
           "at::native::CUDAFunctor_add<float>>(int, float)";
  }

  // ---- the text

  std::string time(const Rank& r, int64_t ns) const {
    if (host_of(r.number) == o_.skewed_host) ns += o_.skew_ns;
    if (!o_.fractions) return std::to_string(ns / 1000);
    return fmt::format("{}.{:03}", ns / 1000, ns % 1000);
  }
  std::string length(int64_t ns) const {
    if (!o_.fractions) return std::to_string(ns / 1000);
    return fmt::format("{}.{:03}", ns / 1000, ns % 1000);
  }
  void event(Rank& r, std::string_view cat, std::string_view name, int64_t pid, int64_t tid,
             int64_t ts, int64_t dur, std::string_view args) {
    fmt::format_to(
        std::back_inserter(r.out),
        "  {{\n    \"ph\": \"X\", \"cat\": \"{}\", \"name\": \"{}\", \"pid\": {}, \"tid\": {},\n"
        "    \"ts\": {}, \"dur\": {},\n    \"args\": {{\n      {}\n    }}\n  }},\n",
        cat, name, pid, tid, time(r, ts), length(dur), args);
  }

  int pid(const Rank& r) const { return kHostPid + r.number; }
  int device(const Rank& r) const { return r.number % o_.ranks_per_host; }

  void begin(Rank& r) {
    std::string groups = "[";
    for (int s = 0; s < o_.pipeline; ++s) {
      if (s) groups += ", ";
      groups +=
          fmt::format("{{\"pg_name\": \"dp{}\", \"pg_desc\": \"dp\", \"pg_size\": {}, \"ranks\": [",
                      s, o_.data);
      for (int d = 0; d < o_.data; ++d) groups += (d ? ", " : "") + std::to_string(s * o_.data + d);
      groups += "]}";
    }
    groups += "]";
    const char* backend = o_.device ? "nccl" : "gloo";
    fmt::format_to(
        std::back_inserter(r.out),
        "{{\n  \"schemaVersion\": 1,\n  \"deviceProperties\": [{}],\n"
        "  \"distributedInfo\": {{\"backend\": \"{}\", \"rank\": {}, \"world_size\": {}, "
        "\"pg_count\": {}, "
        "\"pg_config\": {}}},\n  \"record_shapes\": {}, \"profile_memory\": {},\n"
        "  \"host_name\": \"host{}\",\n"
        "  \"mm\": {{\"model\": \"synthetic\", \"host\": \"host{}\", \"parallel\": {{\"data\": {}, "
        "\"pipeline\": {}, \"tensor\": 1, \"context\": 1}}, \"order\": \"tp-cp-dp-pp\", "
        "\"schedule\": \"1f1b\", \"micro_batches\": {}, \"chunks\": 1, \"dtype\": \"bf16\", "
        "\"peak_flop_per_second\": 2.5e14, "
        "\"model_flop_per_step\": 4e11}},\n"
        "  \"baseTimeNanoseconds\": {},\n  \"traceEvents\": [\n",
        o_.device ? "\n    {\"id\": 0, \"name\": \"NVIDIA A100-SXM4-80GB\", \"numSms\": 108}\n  "
                  : "",
        backend, r.number, o_.ranks(), o_.pipeline, groups, o_.shapes ? 1 : 0, o_.memory ? 1 : 0,
        host_of(r.number), host_of(r.number), o_.data, o_.pipeline, o_.micro_batches, kBase);
    r.now = 1000000;
    r.host = 1000000;
    r.comm_free = r.now;
  }

  std::string finish(Rank& r) {
    auto& o = r.out;
    const auto meta = [&](std::string_view what, int64_t p, int64_t t, std::string_view name) {
      fmt::format_to(
          std::back_inserter(o),
          "  {{\n    \"name\": \"{}\", \"ph\": \"M\", \"ts\": {}, \"pid\": {}, \"tid\": {},\n"
          "    \"args\": {{\n      \"name\": \"{}\"\n    }}\n  }},\n",
          what, time(r, 0), p, t, name);
    };
    meta("process_name", pid(r), 0, "triptych");
    meta("thread_name", pid(r), pid(r), "main");
    if (o_.device) {
      meta("process_name", device(r), 0, "triptych");
      meta("thread_name", device(r), 7, "stream 7");
      meta("thread_name", device(r), 20, "stream 20");
    } else {
      meta("thread_name", pid(r), pid(r) + 1, "communication");
    }
    o += "  {\n    \"name\": \"Record Window End\", \"ph\": \"i\", \"s\": \"g\", \"pid\": \"\", "
         "\"tid\": \"\", \"ts\": " +
         time(r, r.now) + "\n  }\n  ],\n  \"traceName\": \"synthetic\"\n}\n";
    return std::move(o);
  }

  // ---- the simulation

  bool step(Rank& r) {
    const Action& a = r.actions[r.next];
    switch (a.kind) {
      case Action::kCompute:
        compute(r, a);
        break;
      case Action::kLoad:
        wait_loader(r, a);
        break;
      case Action::kScopeBegin:
        r.scopes.push_back({a.name, {lane_begin(r), a.category}});
        break;
      case Action::kScopeEnd:
        end_scope(r);
        break;
      case Action::kJoin:
        if (reductions_.size() && !reduced(r)) return false;
        r.now = std::max(r.now, r.comm_free);
        if (o_.device) synchronise(r);
        break;
      case Action::kReduce:
        if (!reduce(r, a)) return false;
        break;
      case Action::kSend:
        send(r, a);
        break;
      case Action::kReceive:
        if (!receive(r, a)) return false;
        break;
    }
    ++r.next;
    return true;
  }

  int64_t lane_begin(const Rank& r) const { return o_.device ? r.host : r.now; }

  void end_scope(Rank& r) {
    const auto [name, rest] = r.scopes.back();
    r.scopes.pop_back();
    const int64_t begin = rest.first, end = lane_begin(r);
    event(r, rest.second, name, pid(r), pid(r), begin, end - begin,
          fmt::format("\"External id\": {}", ++r.ids));
    if (o_.device) r.host += 1000;
  }

  void compute(Rank& r, const Action& a) {
    const int64_t id = ++r.ids;
    const int64_t tid = pid(r) + (a.backward && o_.device ? 2 : 0);
    std::string args =
        fmt::format("\"External id\": {}, \"Record function id\": 0, \"Ev Idx\": {}", id, id);
    if (o_.shapes)
      args +=
          ", \"Input Dims\": [[2048, 1024], [1024, 1024]], \"Input type\": [\"c10::BFloat16\", "
          "\"c10::BFloat16\"]";
    if (!o_.device) {
      event(r, "cpu_op", a.name, pid(r), tid, r.now, a.ns, args);
      allocate(r, r.now + a.ns / 2, a.backward);
      r.now += a.ns;
      return;
    }
    const int64_t corr = id;
    event(r, "cpu_op", a.name, pid(r), tid, r.host, 12000, args);
    event(r, "cuda_runtime", "cudaLaunchKernel", pid(r), tid, r.host + 4000, 5000,
          fmt::format("\"External id\": {}, \"cbid\": 211, \"correlation\": {}", id, corr));
    r.now = std::max(r.now, r.host + 12000);
    event(r, "kernel", kernel_name(a.name), device(r), 7, r.now, a.ns,
          fmt::format(
              "\"External id\": {}, \"queued\": 0, \"device\": {}, \"context\": 1, \"stream\": 7, "
              "\"correlation\": {}, \"registers per thread\": 128, \"shared memory\": 49152, "
              "\"grid\": [64, 8, 1], \"block\": [256, 1, 1], \"est. achieved occupancy %\": 43",
              id, device(r), corr));
    fmt::format_to(
        std::back_inserter(r.out),
        "  {{\n    \"ph\": \"s\", \"id\": {0}, \"pid\": {1}, \"tid\": {2}, \"ts\": {3},\n"
        "    \"cat\": \"ac2g\", \"name\": \"ac2g\"\n  }},\n"
        "  {{\n    \"ph\": \"f\", \"id\": {0}, \"pid\": {4}, \"tid\": 7, \"ts\": {5},\n"
        "    \"cat\": \"ac2g\", \"name\": \"ac2g\", \"bp\": \"e\"\n  }},\n",
        corr, pid(r), tid, time(r, r.host + 4000), device(r), time(r, r.now));
    allocate(r, r.host + 2000, a.backward);
    r.host += 14000;
    r.now += a.ns;
  }

  void allocate(Rank& r, int64_t at, bool backward) {
    if (!o_.memory || r.actions[r.next].name.ends_with("adamw_")) return;
    const auto record = [&](int64_t address, int64_t bytes) {
      r.allocated += bytes;
      fmt::format_to(std::back_inserter(r.out),
                     "  {{\n    \"ph\": \"i\", \"cat\": \"cpu_instant_event\", \"s\": \"t\", "
                     "\"name\": \"[memory]\",\n"
                     "    \"pid\": {}, \"tid\": {}, \"ts\": {},\n    \"args\": {{\n      \"Total "
                     "Reserved\": {}, "
                     "\"Total Allocated\": {}, \"Bytes\": {}, \"Addr\": {}, \"Device Id\": {}, "
                     "\"Device Type\": {}\n    }}\n  }},\n",
                     pid(r), pid(r), time(r, at), o_.device ? 1 << 30 : 0, r.allocated, bytes,
                     address, o_.device ? device(r) : -1, o_.device ? 1 : 0);
    };
    if (!backward) {
      const int64_t address = 0x7f0000000000 + ++r.ids * 4096 * 1024;
      r.live.push_back({address, 1 << 20});
      record(address, 1 << 20);
    } else if (!r.live.empty()) {
      const auto [address, bytes] = r.live.back();
      r.live.pop_back();
      record(address, -bytes);
    }
  }

  void wait_loader(Rank& r, const Action& a) {
    const int64_t begin = lane_begin(r);
    event(r, "user_annotation", a.name, pid(r), pid(r), begin, a.ns,
          fmt::format("\"External id\": {}", ++r.ids));
    if (o_.device)
      r.host = begin + a.ns + 1000;
    else
      r.now += a.ns;
  }

  void synchronise(Rank& r) {
    const int64_t begin = r.host, id = ++r.ids;
    r.now = std::max(r.now, r.host);
    event(r, "cuda_runtime", "cudaStreamSynchronize", pid(r), pid(r), begin, r.now + 3000 - begin,
          fmt::format("\"External id\": {}, \"cbid\": 131, \"correlation\": {}", id, id));
    r.host = r.now + 4000;
  }

  struct Reduction {
    int64_t arrived = 0, latest = 0, end = 0;
    std::map<int, int64_t> begin;
  };

  /// Joins reduction number n of this rank's group; blocking ones are stepped again until all came.
  bool reduce(Rank& r, const Action& a) {
    auto& reduction = reductions_[{stage(r), r.reduce_count}];
    if (!reduction.begin.contains(r.number)) {
      if (o_.device) r.host += 8000;
      const int64_t begin = std::max(r.now, o_.device ? r.host : int64_t{0});
      reduction.begin[r.number] = begin;
      reduction.latest = std::max(reduction.latest, begin);
      if (static_cast<int>(reduction.begin.size()) == o_.data) {
        const int first = stage(r) * o_.data;
        int64_t transfer = 0;
        for (int d = 0; d < o_.data; ++d)
          transfer = std::max(transfer, link_time(first + d, first + (d + 1) % o_.data,
                                                  2 * a.bytes * (o_.data - 1) / o_.data));
        // One after another on the lane of reductions.
        auto& free = lane_free_[stage(r)];
        reduction.latest = std::max(reduction.latest, free);
        reduction.end = reduction.latest + transfer;
        free = reduction.end;
        for (auto& [rank, begun] : reduction.begin)
          emit_reduce(ranks_[static_cast<size_t>(rank)], a, begun, reduction.end);
      }
    }
    if (!a.async && reduction.end == 0) return false;
    ++r.reduce_count;
    if (!a.async) r.now = reduction.end;
    return true;
  }

  bool reduced(const Rank& r) {
    if (r.reduce_count == 0) return true;
    const auto& last = reductions_[{stage(r), r.reduce_count - 1}];
    if (last.end == 0) return false;
    const_cast<Rank&>(r).comm_free = last.end;
    return true;
  }

  void emit_reduce(Rank& r, const Action& a, int64_t begin, int64_t end) {
    // A lane runs one at a time: the kernel cannot begin before the one before it has ended.
    const int64_t start = std::max(begin, r.comm_free);
    r.comm_free = end;
    comm_event(r, a, start, end, fmt::format("dp{}", stage(r)), "dp", -1, -1, a.async);
  }

  void comm_event(Rank& r, const Action& a, int64_t begin, int64_t end, const std::string& group,
                  const std::string& tag, int src, int dst, bool own_lane) {
    const int64_t elements = a.bytes / 2, id = ++r.ids;
    std::string args = fmt::format(
        "\"Collective name\": \"{}\", \"In msg nelems\": {}, \"Out msg nelems\": {}, \"Group "
        "size\": {}, "
        "\"dtype\": \"BFloat16\", \"Process Group Name\": \"{}\", \"Process Group Description\": "
        "\"{}\", "
        "\"Process Group Ranks\": \"{}\", \"Seq\": {}",
        a.name, elements, elements, tag == "dp" ? o_.data : 2, group, tag,
        group_ranks(r, tag, src, dst), r.sequence[group]++);
    if (src >= 0) args += fmt::format(", \"Src Rank\": {}, \"Dst Rank\": {}", src, dst);
    if (!o_.device) {
      args += fmt::format(", \"Bytes\": {}, \"Group tag\": \"{}\"", a.bytes, tag);
      event(r, "mm_comm", fmt::format("{} {}", tag, a.name), pid(r), pid(r) + (own_lane ? 1 : 0),
            begin, end - begin, args);
      return;
    }
    const int64_t launch = std::min(r.host, begin) - 6000;
    event(r, "cuda_runtime", "cudaLaunchKernelExC", pid(r), pid(r) + 3, launch, 5000,
          fmt::format("\"External id\": {}, \"cbid\": 430, \"correlation\": {}", id, id));
    args += fmt::format(
        ", \"External id\": {}, \"device\": {}, \"context\": 1, \"stream\": {}, \"correlation\": "
        "{}",
        id, device(r), tag == "dp" ? 20 : (a.kind == Action::kSend ? 21 : 22), id);
    const std::string kernel = tag == "dp"
                                   ? "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevComm*)"
                                   : "ncclDevKernel_SendRecv(ncclDevComm*)";
    event(r, "kernel", kernel, device(r), tag == "dp" ? 20 : (a.kind == Action::kSend ? 21 : 22),
          begin, end - begin, args);
  }

  std::string group_ranks(const Rank& r, const std::string& tag, int src, int dst) const {
    if (tag != "dp") return fmt::format("[{}, {}]", std::min(src, dst), std::max(src, dst));
    std::string text = "[";
    for (int d = 0; d < o_.data; ++d)
      text += (d ? ", " : "") + std::to_string(stage(r) * o_.data + d);
    return text + "]";
  }

  static std::string link_group(int src, int dst) { return fmt::format("pp{}to{}", src, dst); }

  void send(Rank& r, const Action& a) {
    if (o_.device) r.host += 8000, r.now = std::max(r.now, r.host);
    const int64_t begin = r.now;
    auto& free = link_free_[{r.number, a.peer}];
    const int64_t end = std::max(begin, free) + link_time(r.number, a.peer, a.bytes);
    free = end;
    messages_[{r.number, a.peer}].push_back(end);
    if (!o_.device) {  // the sender goes on; its record ends when the message is gone
      comm_event(r, a, std::max(begin, end - link_time(r.number, a.peer, a.bytes)), end,
                 link_group(r.number, a.peer), "pp", r.number, a.peer, true);
    } else {
      comm_event(r, a, std::max(begin, end - link_time(r.number, a.peer, a.bytes)), end,
                 link_group(r.number, a.peer), "pp", r.number, a.peer, false);
    }
  }

  bool receive(Rank& r, const Action& a) {
    auto& queue = messages_[{a.peer, r.number}];
    if (queue.empty()) return false;
    if (o_.device) r.host += 8000, r.now = std::max(r.now, r.host);
    const int64_t arrival = queue.front();
    queue.pop_front();
    const int64_t end = std::max(arrival, r.now + 1000);
    comm_event(r, a, r.now, end, link_group(a.peer, r.number), "pp", a.peer, r.number, false);
    r.now = end;
    return true;
  }

  SyntheticOptions o_;
  uint64_t random_;
  std::vector<Rank> ranks_;
  std::map<std::pair<int, int>, Reduction> reductions_;
  std::map<int, int64_t> lane_free_;
  std::map<std::pair<int, int>, int64_t> link_free_;
  std::map<std::pair<int, int>, std::deque<int64_t>> messages_;
};

}  // namespace

std::vector<std::string> synthetic_traces(const SyntheticOptions& options) {
  return Simulation(options).run();
}

std::vector<std::filesystem::path> write_synthetic_run(const SyntheticOptions& options,
                                                       const std::filesystem::path& folder,
                                                       bool compress) {
  std::filesystem::create_directories(folder);
  std::vector<std::filesystem::path> paths;
  const auto texts = synthetic_traces(options);
  for (size_t r = 0; r < texts.size(); ++r) {
    const auto path =
        folder / fmt::format("rank-{}_{}.{}.pt.trace.json{}", r, kHostPid + static_cast<int>(r),
                             kBase, compress ? ".gz" : "");
    if (compress) {
      gzFile file = gzopen(path.c_str(), "wb1");
      require(file != nullptr, path.string(), ": cannot be written");
      for (size_t at = 0; at < texts[r].size(); at += 1 << 20)
        gzwrite(file, texts[r].data() + at,
                static_cast<unsigned>(std::min<size_t>(1 << 20, texts[r].size() - at)));
      gzclose(file);
    } else {
      std::ofstream(path, std::ios::binary)
          .write(texts[r].data(), static_cast<std::streamsize>(texts[r].size()));
    }
    paths.push_back(path);
  }
  return paths;
}

}  // namespace triptych::insight
