"""What recording costs: profile_cost.py TRIPTYCH RUN.toml [--repeats N] [--set key=value]...

Trains the same 24 steps without a profiler and under each setting, one after the other, and N times around. Every run sees the
same batches, so each step is compared with the same step of the run without: the medians of those ratios are printed, for the
steps before the window (7 to 9), inside (10 to 17), and behind it (18 to 24), where the trace is written beside them. The least
of the N times of a step counts: what else runs on the machine only adds."""
import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

WINDOW, STEPS = (10, 18), 24
PLAIN = {"profile.mode": "off", "profile.record_shapes": "false", "profile.with_memory": "false", "profile.memory.windows": "[]"}
RECORDED = {"profile.mode": "static", "profile.windows": f"[[{WINDOW[0]}, {WINDOW[1]}]]", "profile.ranks": "[-1]"}
SETTINGS = [
    ("no profiler", {}),
    ("again", {}),  # what two equal runs differ by
    ("watching a file, no request", {"profile.mode": "dynamic"}),
    ("level 0", RECORDED | {"profile.level": "0"}),
    ("level 1", RECORDED),
    ("level 2", RECORDED | {"profile.level": "2"}),
    ("level 1, shapes", RECORDED | {"profile.record_shapes": "true"}),
    ("level 1, memory", RECORDED | {"profile.with_memory": "true"}),
    ("level 1, stack", RECORDED | {"profile.with_stack": "true"}),
]
PARTS = [("before", 7, WINDOW[0]), ("inside", *WINDOW), ("behind", WINDOW[1], STEPS + 1)]


def train(command, run, values, extra):
    """Seconds by step, bytes of the trace."""
    with tempfile.TemporaryDirectory(prefix="profile_cost_") as folder:
        words = [f"output={folder}/out", f"train.steps={STEPS}", "checkpoint.every=0", "train.validate_every=0",
                 *(f"{key}={value}" for key, value in (PLAIN | values).items()), *extra]
        subprocess.run([command, "train", run, *(part for word in words for part in ("--set", word))], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        rows = map(json.loads, (Path(folder) / "out/metrics.jsonl").read_text().splitlines())
        traces = (Path(folder) / "out/traces").glob("*.json.gz")
        return {row["step"]: row["step_seconds"] for row in rows if "loss" in row}, sum(t.stat().st_size for t in traces)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="extra")
    options = parser.parse_args()
    least, sizes = {name: {} for name, _ in SETTINGS}, {}
    for _ in range(options.repeats):
        for name, values in SETTINGS:
            seconds, sizes[name] = train(options.command, options.run, values, options.extra)
            for step, value in seconds.items():
                least[name][step] = min(value, least[name].get(step, value))
    plain = least["no profiler"]
    print(f"step without: {1000 * statistics.median(plain[s] for s in range(*WINDOW)):.1f} ms\n")
    print("| setting | " + " | ".join(name for name, _, _ in PARTS) + " | trace, KB a step |\n|" + " --- |" * (len(PARTS) + 2))
    for name, _ in SETTINGS[1:]:
        ratios = [statistics.median(least[name][s] / plain[s] for s in range(begin, end)) for _, begin, end in PARTS]
        print(f"| {name} | " + " | ".join(f"{ratio:.3f}" for ratio in ratios) + f" | {sizes[name] / 1000 / (WINDOW[1] - WINDOW[0]):.0f} |")


if __name__ == "__main__":
    main()
