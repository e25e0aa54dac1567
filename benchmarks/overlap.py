#!/usr/bin/env python3
"""Exposed against total communication of each parallel technique, on a slow network between two hosts.

    overlap.py [--rate 400mbit] [--delay 500us] [--only NAME]... [--json FILE]

trains a small Qwen2.5-VL from random weights on two hosts of one rank each (network namespaces, as root), records a window of
steps with [profile], and reads the traces with `triptych profile summary`. A rank's step is compute (hidden
communication included), exposed communication, and what is left. "total" is the time in which a collective or message of the rank
was under way, "exposed" the part of it in which the rank computed nothing. Both hold waiting for the other rank. "hidden" is the rest of
the total, and "of what can be" its share of the shorter of compute and communication: more cannot go on at the same time.
The data are those of the tests: ctest --test-dir build/release -R make_runs_data
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/distributed"))
sys.dont_write_bytecode = True
from hosts import Hosts  # noqa: E402

COMMAND = Path(os.environ.get("TRIPTYCH_COMMAND", ROOT / "build/release/triptych"))
DATA = Path(os.environ.get("TRIPTYCH_RUNS_DATA", ROOT / "build/release/runs"))

# Text and vision of some million parameters: a step of a second on one core.
SIZES = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8,
         "num_key_value_heads": 4, "max_window_layers": 4}
VISION = {"num_heads": 4, "out_hidden_size": 256}

THREADS = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "3000"}

TECHNIQUES = {
    "data, ZeRO-0": {"parallel.zero": 0},
    "data, ZeRO-1": {"parallel.zero": 1},
    "data, ZeRO-1, overlap off": {"parallel.zero": 1, "parallel.overlap": "false"},
    "data, ZeRO-2": {"parallel.zero": 2},
    "data, ZeRO-3": {"parallel.zero": 3},
    "data, ZeRO-3, no prefetch": {"parallel.zero": 3, "parallel.zero_prefetch": 0},
    "tensor": {"parallel.tensor": 2},
    "tensor, overlap off": {"parallel.tensor": 2, "parallel.overlap": "false"},
    "tensor, sequence": {"parallel.tensor": 2, "parallel.sequence": "true"},
    "tensor, sequence, overlap off": {"parallel.tensor": 2, "parallel.sequence": "true", "parallel.overlap": "false"},
    "pipeline 1F1B": {"parallel.pipeline": 2},
    "pipeline, virtual 2": {"parallel.pipeline": 2, "parallel.virtual": 2},
    "pipeline ZB-H1": {"parallel.pipeline": 2, "parallel.schedule": "zb_h1"},
    "ring": {"parallel.context": 2, "parallel.context_algorithm": "ring"},
    "ring, overlap off": {"parallel.context": 2, "parallel.context_algorithm": "ring", "parallel.overlap": "false"},
    "Ulysses": {"parallel.context": 2},
    "Ulysses, overlap off": {"parallel.context": 2, "parallel.overlap": "false"},
}

RUN_FILE = """output = "{output}"
seed = 5
threads = 1
[model]
path = "{model}"
weights = "random"
precision = "fp32"
[[data.train]]
path = "{data}/data/train.jsonl"
[data]
max_length = 384
[train]
steps = 5
global_batch = 4
micro_batch = 1
validate_every = 0
[parallel]
bucket_elements = 1000000
[checkpoint]
every = 0
[profile]
mode = "static"
windows = [[3, 6]]
ranks = [-1]
level = 1
analyse = false
"""


def make_model(folder):
    shutil.copytree(DATA / "model", folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(SIZES)
    config["vision_config"].update(VISION)
    config["rope_scaling"]["mrope_section"] = [4, 6, 6]
    (folder / "config.json").write_text(json.dumps(config))


def measure(name, options, scratch, rate, delay):
    """@return milliseconds of the mean step of both ranks by part, or None with the reason printed."""
    slug = "".join(c if c.isalnum() else "_" for c in name)
    run = scratch / f"{slug}.toml"
    run.write_text(RUN_FILE.format(output=scratch / slug, model=scratch / "model", data=DATA))
    words = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    with Hosts(2, rate, delay) as hosts:
        started = []
        for host in range(2):
            place = {"RANK": host, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "host0", "MASTER_PORT": 29400}
            started.append(hosts.start(host, [COMMAND, "train", run, *words], {**THREADS, **{k: str(v) for k, v in place.items()}},
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        texts = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        print(f"{name}: {texts[0].strip().splitlines()[-1]}", file=sys.stderr)
        return None
    done = subprocess.run([COMMAND, "profile", "summary", scratch / slug, "--json"], capture_output=True, text=True, check=True)
    ranks = json.loads(done.stdout)["ranks"]
    mean = {key: sum(rank[key] for rank in ranks) / len(ranks) / 1e6
            for key in ("total_ns", "compute_only_ns", "overlapped_ns", "exposed_comm_ns", "free_ns")}
    steps = [json.loads(line) for line in (scratch / slug / "metrics.jsonl").read_text().splitlines()]
    return {"technique": name, "step_ms": mean["total_ns"], "compute_ms": mean["compute_only_ns"] + mean["overlapped_ns"],
            "total_ms": mean["overlapped_ns"] + mean["exposed_comm_ns"], "exposed_ms": mean["exposed_comm_ns"],
            "losses": [row["loss"] for row in steps if "loss" in row]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", default="400mbit")
    parser.add_argument("--delay", default="500us")
    parser.add_argument("--only", action="append", help="a technique's name, or its beginning")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="triptych_overlap_"))
    rows = []
    try:
        make_model(scratch / "model")
        print("| technique | step | compute | communication | exposed | hidden | of what can be |\n"
              "| --- | --- | --- | --- | --- | --- | --- |")
        for name, options in TECHNIQUES.items():
            if arguments.only and not any(name.startswith(begin) for begin in arguments.only):
                continue
            row = measure(name, options, scratch, arguments.rate, arguments.delay)
            if row is None:
                continue
            rows.append(row)
            hidden = row["total_ms"] - row["exposed_ms"]
            most = min(row["total_ms"], row["compute_ms"])
            print(f"| {name} | {row['step_ms']:.0f} ms | {row['compute_ms']:.0f} ms | {row['total_ms']:.0f} ms | "
                  f"{row['exposed_ms']:.0f} ms | {hidden / (row['total_ms'] or 1):.0%} | {hidden / (most or 1):.0%} |", flush=True)
            if any(abs(a - b) > 1e-4 for a, b in zip(row["losses"], rows[0]["losses"])):
                sys.exit(f"{name}: losses {row['losses']} are not those of {rows[0]['technique']}: {rows[0]['losses']}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not rows:
        sys.exit("nothing was measured")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rate": arguments.rate, "delay": arguments.delay, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
