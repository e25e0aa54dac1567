"""A snapshot as PyTorch's own tools see it: check_snapshot.py MEMORY_VIZ.py SNAPSHOT.pickle ALLOCATED PEAK

MEMORY_VIZ.py is torch/cuda/_memory_viz.py, which needs only the standard library. ALLOCATED and PEAK are the bytes
that the writer's books held at the end and at most.
"""

import importlib.util
import pickle
import sys


def load_module(path):
    spec = importlib.util.spec_from_file_location("memory_viz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(condition, *words):
    if not condition:
        sys.exit("check_snapshot: " + " ".join(map(str, words)))


def main(viz_path, path, allocated, peak):
    viz = load_module(viz_path)
    with open(path, "rb") as file:
        snapshot = pickle.load(file)

    # segsum and the flame graph add blocks and gaps up and raise where a segment does not hold together.
    summary = viz.segsum(snapshot)
    check(f"segments: {len(snapshot['segments'])}\n" in summary, "segsum says", summary)
    graph = viz.memory(snapshot, format_flamegraph=lambda lines: lines)
    active = sum(int(line.rsplit(" ", 1)[1]) for line in graph.splitlines() if ";active_allocated;" in line)
    check(active == allocated, "the flame graph holds", active, "bytes, the books", allocated)
    check("forward:0:snapshot.0" in graph, "no layer in", graph)

    events = snapshot["device_traces"][0]
    text = viz.trace(snapshot)
    check(text.count(" = ") == sum(e["action"] == "alloc" for e in events), "trace() lists other allocations")

    # What the page draws: from the blocks at the end back to the begin, then forward.
    change = {"alloc": 1, "free_completed": -1}
    steps = [change.get(e["action"], 0) * e["size"] for e in events]
    held = allocated - sum(steps)
    check(held == snapshot["triptych"]["allocated_at_begin"], "at the begin", held)
    most = held
    for step in steps:
        held += step
        most = max(most, held)
    check(most == peak, "the events' peak is", most, "and that of the books", peak)
    times = [e["time_us"] for e in events]
    check(times == sorted(times), "events are out of order")

    # The file that the page opens.
    page = viz.trace_plot(snapshot)
    check(page.startswith("\n<!DOCTYPE html>") or "<html>" in page, "trace_plot made no page")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
