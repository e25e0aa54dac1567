"""Compares our figures with those of HolisticTraceAnalysis on the same traces.

  check_hta.py PROBE GENERATOR              made-up CUDA traces, ours and in Kineto's own form (kineto_cuda.py), and PyTorch's
                                            of two Gloo ranks
  check_hta.py --run                        traces that a run of ours makes, through `profile summary --hta`; the environment
                                            names the command and the data (tests/distributed/runs.py)

Needs HolisticTraceAnalysis 0.5 and pandas below 3. Whole microseconds must agree exactly; sums of fractions within 1e-9.
Traces of the CPU have no device work, which nearly all of HTA is about: of them the tables of host events are compared, so what
both read from the file, kept, and rounded.
"""
import json
import logging
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
from hta.trace_analysis import TraceAnalysis  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "distributed"))
sys.dont_write_bytecode = True
import kineto_cuda  # noqa: E402
from runs import COMMAND, Scratch, settings, train  # noqa: E402

SETTINGS = [
    "data=2 steps=4 fractions=0 seed=1",
    "data=2 steps=4 fractions=1 seed=2",
    "data=4 steps=3 fractions=1 seed=3 overlap=0 micro_batches=2",
    "data=2 pipeline=2 steps=5 fractions=1 seed=4",
    "data=2 steps=1 fractions=0 seed=5",  # a single step: nothing is dropped
]


KINETO = [dict(ranks=2, steps=4, seed=1), dict(ranks=3, steps=3, seed=2, whole=True), dict(ranks=1, steps=1, seed=3)]


def near(a, b, relative=1e-9, absolute=1e-9):
    if a is None or (isinstance(a, float) and math.isnan(a)):
        return b is None or (isinstance(b, float) and math.isnan(b))
    return b is not None and math.isclose(float(a), float(b), rel_tol=relative, abs_tol=absolute)


class Check:
    def __init__(self):
        self.count, self.wrong = 0, []

    def rows_absent(self, what, got):
        self.count += 1
        if got:
            self.wrong.append(f"{what}: HTA has nothing, ours {len(got)} rows")

    def rows(self, what, want, got, keys, values, relative=1e-9, absolute=1e-9):
        ours = {tuple(str(row[k]) for k in keys): row for row in got}
        theirs = {tuple(str(row[k]) for k in keys): row for row in want}
        if set(ours) != set(theirs):
            self.wrong.append(f"{what}: rows {sorted(set(ours) ^ set(theirs))[:4]} on one side only")
        if not ours:
            self.wrong.append(f"{what}: nothing to compare")
        for key in set(ours) & set(theirs):
            for value in values:
                self.count += 1
                if not near(theirs[key][value], ours[key][value], relative, absolute):
                    self.wrong.append(f"{what} {key} {value}: HTA {theirs[key][value]}, ours {ours[key][value]}")


def compare_host(ours, hta, check, label):
    frame = hta.get_gpu_user_annotation_breakdown(use_gpu_annotation=False, visualize=False)
    columns = ["sum (us)", "max (us)", "min (us)", "mean (us)", "stddev"]
    check.rows(f"{label} annotations", frame.to_dict("records"), ours["host_user_annotations"], ["rank", "name"], columns)
    symbols = hta.t.symbol_table.get_sym_table()
    for rank in hta.t.get_ranks():
        table = hta.t.get_trace(rank)
        sums = table[table["stream"].eq(-1)].groupby("name")["dur"].agg(["count", "sum"])
        want = [{"name": symbols[name], "counts": row["count"], "total_duration": row["sum"]} for name, row in sums.iterrows()]
        got = [row for row in ours["host_events"] if row["rank"] == rank]
        check.rows(f"{label} host rank {rank}", want, got, ["name"], ["counts", "total_duration"])


def compare(folder, ours, check, label, device):
    files = {i: str(p) for i, p in enumerate(sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]))}
    hta = TraceAnalysis(trace_files=files, trace_dir=str(folder))
    ranks = list(files)
    compare_host(ours, hta, check, label)
    if bool(ours["temporal_breakdown"]) != device:
        check.wrong.append(f"{label}: {'no' if device else 'some'} device work")
    if not device:
        return

    frame = hta.get_temporal_breakdown(visualize=False)
    check.rows(f"{label} temporal", frame.to_dict("records"), ours["temporal_breakdown"], ["rank"], [c for c in frame.columns if c != "rank"])
    copies = hta.get_memory_bw_summary(ranks=ranks)
    if copies is None:
        check.rows_absent(f"{label} memory bandwidth", ours["memory_bw_summary"])
    else:
        want = [{"rank": i[0], "name": i[1], **{k[1]: v for k, v in row.items()}} for i, row in zip(copies.index, copies.to_dict("records"))]
        check.rows(f"{label} memory bandwidth", want, ours["memory_bw_summary"], ["rank", "name"],
                   ["count", "mean", "std", "min", "25%", "50%", "75%", "max"], 1e-5)  # a rate is kept in 32 bits
    frame = hta.get_gpu_user_annotation_breakdown(use_gpu_annotation=True, visualize=False)
    if frame is None:
        check.rows_absent(f"{label} annotations of the device", ours["gpu_user_annotations"])
    else:
        check.rows(f"{label} annotations of the device", frame.to_dict("records"), ours["gpu_user_annotations"], ["rank", "name"],
                   ["sum (us)", "max (us)", "min (us)", "mean (us)", "stddev"])
    frame = hta.get_comm_comp_overlap(visualize=False)
    check.rows(f"{label} overlap", frame.to_dict("records"), ours["comm_comp_overlap"], ["rank"], ["comp_comm_overlap_pctg"])
    types, names = hta.get_gpu_kernel_breakdown(visualize=False)
    types = [row for row in types.to_dict("records") if row["sum"] != 0]  # a state of no length: two changes in one us
    check.rows(f"{label} kernel types", types, ours["gpu_kernel_types"], ["kernel_type"], ["sum", "percentage"])
    columns = ["sum (us)", "max (us)", "min (us)", "mean (us)", "stddev"]
    check.rows(f"{label} kernels", names.to_dict("records"), ours["gpu_kernels"], ["name", "kernel_type", "rank"], columns)
    for rank in ranks:
        frame, _ = hta.get_idle_time_breakdown(ranks=[rank], visualize=False)
        got = [r for r in ours["idle_time_breakdown"] if r["rank"] == rank]
        check.rows(f"{label} idle", frame.to_dict("records"), got, ["rank", "stream", "idle_category"], ["idle_time"])
    stats = hta.get_cuda_kernel_launch_stats(ranks=ranks, visualize=False)
    for rank, frame in stats.items():
        got = [r for r in ours["cuda_kernel_launch_stats"] if r["rank"] == rank]
        want = [{"rank": rank, "launches": len(frame), **{c: frame[c].sum() for c in ("cpu_duration", "gpu_duration", "launch_delay")}}]
        check.rows(f"{label} launches", want, got, ["rank"], ["launches", "cpu_duration", "gpu_duration", "launch_delay"])
    frame = hta.get_queue_length_summary(ranks=ranks)
    want = [{"rank": i[0], "stream": i[1], **{k[1]: v for k, v in row.items()}} for i, row in zip(frame.index, frame.to_dict("records"))]
    # A launch and a kernel in the same us: pandas' quicksort orders them either way, which moves single values by one. So the mean
    # moves by no more than the share of such values, the deviation by no more than the root of that.
    check.rows(f"{label} queue length", want, ours["queue_length_summary"], ["rank", "stream"], ["count"])
    check.rows(f"{label} queue length", want, ours["queue_length_summary"], ["rank", "stream"], ["min", "25%", "50%", "75%", "max"], 0, 1)
    for rank, series in hta.get_queue_length_time_series(ranks=ranks).items():
        for stream, rows in series.groupby("stream"):
            moved, count = int(rows["ts"].duplicated(keep=False).sum()), len(rows)
            mine, theirs = ([row for row in table if row["rank"] == rank and row["stream"] == stream] for table in (ours["queue_length_summary"], want))
            for value, moves in (("mean", moved / count), ("std", math.sqrt(moved / max(1, count - 1)))):
                check.rows(f"{label} queue length", theirs, mine, ["rank", "stream"], [value], 1e-9, moves + 1e-9)


def stdout_of(*words):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def made_up(probe, generator, check):
    for setting in SETTINGS:
        with tempfile.TemporaryDirectory() as folder:
            stdout_of(generator, folder, *setting.split())
            compare(pathlib.Path(folder), json.loads(stdout_of(probe, folder)), check, setting, device=True)
    for setting in KINETO:
        with tempfile.TemporaryDirectory() as folder:
            kineto_cuda.write(pathlib.Path(folder), **setting)
            compare(pathlib.Path(folder), json.loads(stdout_of(probe, folder)), check, f"Kineto {setting}", device=True)
    gloo = pathlib.Path(__file__).parent / "two_gloo_ranks"
    compare(gloo, json.loads(stdout_of(probe, gloo)), check, "PyTorch, Gloo", device=False)


def of_a_run(check):
    scratch = Scratch()
    try:
        profiled = settings(checkpoint__every=0, profile__mode="static", profile__windows=[[3, 6]], profile__ranks=[-1],
                            profile__record_shapes=True, profile__with_memory=True)
        for stages in (1, 2):
            name = f"stages_{stages}"
            status, text = train(scratch.run_file(name), "--nproc", "2", *profiled, *settings(parallel__pipeline=stages))
            if status:
                sys.exit(text)
            out = scratch.folder / name
            ours = json.loads(stdout_of(COMMAND, "profile", "summary", out, "--hta"))
            compare(out / "traces", ours, check, f"our run, {stages} stages", device=False)
    finally:
        scratch.close()


def main():
    check = Check()
    if sys.argv[1] == "--run":
        of_a_run(check)
    else:
        made_up(*sys.argv[1:3], check)
    print(f"{check.count} figures compared, {len(check.wrong)} differ")
    for line in check.wrong[:40]:
        print(" ", line)
    return 1 if check.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
