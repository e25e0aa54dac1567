"""HTA and pandas on one trace, for bench_insight: insight_hta.py TRACE
Prints MB/s of the text and peak memory of json + pandas, and of HolisticTraceAnalysis."""
import os
import resource
import subprocess
import sys
import time

PANDAS = "import json, pandas, sys; pandas.DataFrame(json.load(open(sys.argv[1]))['traceEvents'])"
HTA = ("import sys, logging; logging.disable(50); from hta.trace_analysis import TraceAnalysis; "
       "a = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir='.'); a.get_temporal_breakdown(visualize=False)")


def main():
    path = os.path.abspath(sys.argv[1])
    size = os.path.getsize(path)
    for name, code in (("json + pandas", PANDAS), ("HTA", HTA)):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
        print(f"{name:14} {seconds:8.1f} s  {size / seconds / 1e6:7.1f} MB/s  peak memory up to {peak:.0f} MB")


if __name__ == "__main__":
    main()
