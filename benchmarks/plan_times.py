#!/usr/bin/env python3
"""Predicted beside measured step times of `triptych plan` on this machine, calibrated just before.

    plan_times.py [--data] [--only NAME]... [--steps N] [--json FILE]

calibrates for one and for two processes, then plans and trains each layout: a Qwen2.5-VL of 30 million parameters in bf16, rows of 1024
tokens that hold what the planner assumes, one sample with two pictures of 448 x 448 and text. With --data rows are packed of samples of
about 175 tokens with one picture of 112 x 112, and planned both as assumed and by the data (`plan --data`). The measured step is the median
of those from the fourth on. The data are those of the tests (ctest --test-dir build/release -R make_runs_data), for their tokenizer.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
COMMAND = Path(os.environ.get("TRIPTYCH_COMMAND", ROOT / "build/release/triptych"))
MODEL = Path(os.environ.get("TRIPTYCH_RUNS_DATA", ROOT / "build/release/runs")) / "model"
LENGTH = 1024

TEXT = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 8,
        "max_window_layers": 8}
VISION = {"depth": 6, "hidden_size": 256, "intermediate_size": 704, "num_heads": 4, "out_hidden_size": 512,
          "fullatt_block_indexes": [2, 5]}

LAYOUTS = {
    "one process": (1, {}),
    "one process, recompute": (1, {"recompute.policy": "full"}),
    "data 2": (2, {}),
    "data 2, ZeRO-3": (2, {"parallel.zero": 3}),
    "tensor 2, sequence": (2, {"parallel.tensor": 2, "parallel.sequence": "true"}),
    "pipeline 2": (2, {"parallel.pipeline": 2}),
    "context 2, Ulysses": (2, {"parallel.context": 2}),
    "context 2, ring": (2, {"parallel.context": 2, "parallel.context_algorithm": "ring"}),
}

RUN_FILE = """output = "out"
seed = 1
[model]
path = "model"
weights = "random"
precision = "bf16"
[[data.train]]
path = "train.jsonl"
[data]
max_length = {length}
workers = 1
[train]
steps = {steps}
global_batch = 4
micro_batch = 1
validate_every = 0
[checkpoint]
every = 0
[log]
tensorboard = false
"""


def triptych(folder, *words):
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "GOMP_SPINCOUNT": "3000"}
    done = subprocess.run([COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def write_model(folder):
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(TEXT)
    config["rope_scaling"]["mrope_section"] = [8, 12, 12]
    config["vision_config"].update(VISION)
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor["max_pixels"] = 28 * 28 * 1280
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def write_data(folder, words, count=64, pictures=2, side=448):
    """Records of so many pictures and words."""
    numbers = np.random.default_rng(1)
    choice = random.Random(1)
    known = "the red circle is above a blue square and left of that green triangle which stands beside some yellow star".split()
    text = lambda count: " ".join(choice.choice(known) for _ in range(count))
    records = []
    for i in range(count):
        names = [f"{i}_{k}.jpg" for k in range(pictures)]
        for name in names:
            small = numbers.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(small).resize((side, side)).save(folder / name)
        records.append({"images": names, "messages": [{"role": "user", "content": "<image>" * pictures + text(words // 2)},
                                                      {"role": "assistant", "content": text(words - words // 2)}]})
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, records)))
    lengths = json.loads(triptych(folder, "data", "check", "train.jsonl", "--model", "model", "--json"))["lengths"]
    return max(bucket["most"] for bucket in lengths)


def fill_rows(folder):
    """One sample a row: as many words as fit."""
    few, many = 40, 80
    short, long = write_data(folder, few), write_data(folder, many)
    words = few + int((LENGTH - 30 - short) * (many - few) / (long - short))
    longest = write_data(folder, words)
    if not 0.93 * LENGTH < longest <= LENGTH:
        sys.exit(f"samples have up to {longest} tokens, rows {LENGTH}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--data", action="store_true", help="rows of short samples, planned by them")
    parser.add_argument("--only", action="append", help="this layout; may be given again")
    parser.add_argument("--json", help="also write the rows here")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        if arguments.data:
            write_data(folder, words=45, count=512, pictures=1, side=112)
        else:
            fill_rows(folder)
        by_data = ["--data"] if arguments.data else []
        (folder / "run.toml").write_text(RUN_FILE.format(length=LENGTH, steps=arguments.steps))
        for processes in ("1", "2"):
            print(triptych(folder, "plan", "run.toml", "--calibrate", "--nproc", processes, *by_data), flush=True)
        if arguments.data:
            print(triptych(folder, "plan", "run.toml", "--data").splitlines()[1])
            print("| layout | as assumed | by the data | measured | ratio as assumed | ratio by the data |\n"
                  "| --- | --- | --- | --- | --- | --- |", flush=True)
        else:
            print("| layout | predicted | measured | ratio |\n| --- | --- | --- | --- |", flush=True)
        for layout, (processes, options) in LAYOUTS.items():
            if arguments.only and layout not in arguments.only:
                continue
            words = ["run.toml", "--nproc", str(processes)]
            for key, value in options.items():
                words += ["--set", f"{key}={value}"]
            predicted = [json.loads(triptych(folder, "plan", *words, "--json", *more))["time"]
                         for more in ([], by_data)[:2 if by_data else 1]]
            triptych(folder, "train", *words, "--overwrite")
            steps = map(json.loads, (folder / "out/metrics.jsonl").read_text().splitlines())
            seconds = [step["step_seconds"] for step in steps if "step_seconds" in step]
            measured = statistics.median(seconds[3:])
            times = [time["step_seconds"] for time in predicted]
            cells = [f"{t:.2f} s" for t in (*times, measured)] + [f"{t / measured:.2f}" for t in times]
            print(f"| {layout} | {' | '.join(cells)} |", flush=True)
            rows.append({"layout": layout, "measured": measured, "predicted": predicted[-1]})
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
