#!/usr/bin/env python3
"""The tables of docs/planning.md, as `triptych plan` finds them.

    scripts/plan_tables.py [--command build/release/triptych] [--write] [techniques] [sizes]

Prints Markdown, both tables unless one is named; --write puts them between the page's markers. Nothing is measured:
the times are the cost model's for --machine h100.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

GIB = 1 << 30
ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "planning.md"
KINDS = ("parameters", "gradients", "optimizer", "activations", "total")


def plan(command, run, devices, settings):
    line = [command, "plan", f"examples/qwen2_5_vl/{run}.toml", "--nproc", str(devices), "--machine", "h100", "--json"]
    for setting in ["device=cuda", *settings]:
        line += ["--set", setting]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(line)}\n{done.stderr}")
    return json.loads(done.stdout)


SEQUENCE = ["parallel.sequence=true"]
TECHNIQUES = [
    ("data 8, `zero = 0`", ["parallel.zero=0"]),
    ("data 8, `zero = 1`", []),
    ("data 8, `zero = 2`", ["parallel.zero=2"]),
    ("data 8, `zero = 3`", ["parallel.zero=3"]),
    ("data 8, recompute all", ["recompute.policy=full"]),
    ("data 8, recompute, attention kept", ["recompute.policy=full", "recompute.keep_attention=true"]),
    ("tensor 2", ["parallel.tensor=2"]),
    ("tensor 2, sequence", ["parallel.tensor=2", *SEQUENCE]),
    ("tensor 4, sequence", ["parallel.tensor=4", *SEQUENCE]),
    ("context 2, ulysses", ["parallel.context=2"]),
    ("context 2, ring", ["parallel.context=2", "parallel.context_algorithm=ring"]),
    ("context 4, hybrid", ["parallel.context=4", "parallel.context_algorithm=hybrid", "parallel.ulysses_degree=2"]),
    ("pipeline 2", ["parallel.pipeline=2"]),
    ("pipeline 4", ["parallel.pipeline=4"]),
    ("pipeline 4, virtual 2", ["parallel.pipeline=4", "parallel.virtual=2"]),
    ("pipeline 4, `zb_h1`", ["parallel.pipeline=4", "parallel.schedule=zb_h1"]),
]


def techniques(command):
    yield "| layout | parameters | gradients | optimizer | activations | total | sent a step | bubble | step |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for name, settings in TECHNIQUES:
        settings = ["recompute.policy=none", "train.global_batch=64", *settings]
        found = plan(command, "7b_frozen_vit", 8, settings)
        fullest = max(found["ranks"], key=lambda rank: rank["total"])
        cells = " | ".join(f"{fullest[kind] / GIB:.1f}" for kind in KINDS)
        sent = max(sum(c["sent_bytes"] for c in rank["collectives"]) for rank in found["ranks"])
        time = found["time"]
        bubble = f"{100 * time['bubble_share']:.0f} %" if time["bubble_share"] else ""
        yield f"| {name} | {cells} | {sent / GIB:.1f} | {bubble} | {time['step_seconds']:.2f} s |"


def sizes(command):
    yield "| size | trained | devices | layout | fullest rank | sent a step | bubble | step | tokens/s a device | of the peak |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for size in ("3b", "7b", "32b", "72b"):
        for devices, run in ((8, f"{size}_8"), (64, f"{size}_64"), (128, f"{size}_64")):
            found = plan(command, f"layouts/{run}", devices, ["train.global_batch=384"])
            fullest = max(rank["total"] for rank in found["ranks"])
            sent = max(sum(c["sent_bytes"] for c in rank["collectives"]) for rank in found["ranks"])
            layout = ", ".join(f"{axis} {ranks}" for axis, ranks in found["mesh"].items() if ranks > 1)
            time = found["time"]
            bubble = f"{100 * time['bubble_share']:.0f} %" if time["bubble_share"] else ""
            yield (f"| {size.upper()} | {found['trained'] / 1e9:.2f} G | {devices} | {layout} | {fullest / GIB:.1f} GiB | "
                   f"{sent / GIB:.1f} GiB | {bubble} | {time['step_seconds']:.1f} s | "
                   f"{time['tokens_per_second'] / devices:.0f} | {100 * time['mfu']:.0f} % |")


def write(name, lines):
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description="Tables of docs/planning.md")
    parser.add_argument("tables", nargs="*", choices=[[], "techniques", "sizes"])
    parser.add_argument("--command", default=str(ROOT / "build/release/triptych"))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    for name, make in {"techniques": techniques, "sizes": sizes}.items():
        if arguments.tables and name not in arguments.tables:
            continue
        lines = list(make(arguments.command))
        print("\n".join(lines), end="\n\n", flush=True)
        if arguments.write:
            write(name, lines)


if __name__ == "__main__":
    main()
