"""Our reader, HTA and pandas on one trace, one after the other: insight_hta.py TRACE [--ours BENCH_INSIGHT]

Prints seconds, MB/s of the text and peak memory of: json + pandas (the events as a table and nothing more),
HolisticTraceAnalysis (the load and get_temporal_breakdown), and bench_insight with one thread and with two.
Runs with the Python of .venv/hta, which scripts/setup.sh --tests makes."""
import argparse
import os
import platform
import re
import subprocess
import sys
import time

PANDAS = "import json, pandas, sys; pandas.DataFrame(json.load(open(sys.argv[1]))['traceEvents'])"
HTA = ("import sys, logging; logging.disable(50); from hta.trace_analysis import TraceAnalysis; "
       "a = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir='.'); a.get_temporal_breakdown(visualize=False)")


def measure(command, **how):
    """Wall seconds, peak memory in MB, and what the command printed."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **how)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1000, text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trace")
    parser.add_argument("--ours", help="path of bench_insight")
    options = parser.parse_args()
    path = os.path.abspath(options.trace)
    size = os.path.getsize(path)
    print(f"{size / 1e6:.0f} MB, Python {platform.python_version()}")
    print("| reader | seconds | MB/s | peak memory, MB |\n| --- | --- | --- | --- |")
    for name, code in (("json + pandas", PANDAS), ("HTA", HTA)):
        seconds, peak, _ = measure([sys.executable, "-W", "ignore", "-c", code, path])
        print(f"| {name} | {seconds:.1f} | {size / seconds / 1e6:.1f} | {peak:.0f} |", flush=True)
    if options.ours:
        for jobs in (1, 2):
            _, _, text = measure([options.ours, path, str(jobs)])
            read = re.search(r"read\s+([\d.]+) s\s+[\d.]+ GB/s on \d+ threads?, (\d+) events, peak memory (\d+) MB", text)
            seconds = float(read[1])
            print(f"| ours, {jobs} thread{'s' * (jobs > 1)} | {seconds:.2f} | {size / seconds / 1e6:.0f} | {read[3]} |", flush=True)
        print(f"\n{read[2]} events; bench_insight with two threads:\n\n```\n{text.rstrip()}\n```")


if __name__ == "__main__":
    main()
