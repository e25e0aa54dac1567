#!/usr/bin/env python3
"""Measures Triptych beside the reference implementations and prints a table of ratios.

    compare.py [--build build/release] [--rounds 3] [--only step,memory,startup,pictures,tokenizer,checkpoint] [--dir DISK]

Ours and the reference's runs alternate, on the same shapes and the same machine; a figure is the best of its rounds, a ratio
the median of the rounds' ratios. Nothing else should run. Python is the one that runs this script (.venv/bin/python).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEEP_PAGES = {"MALLOC_MMAP_THRESHOLD_": "17179869184", "MALLOC_TRIM_THRESHOLD_": "34359738368", "MALLOC_TOP_PAD_": "268435456"}
PARTS = ["step", "memory", "startup", "pictures", "tokenizer", "checkpoint"]

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--build", type=Path, default=ROOT / "build/release")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--only", default=",".join(PARTS))
parser.add_argument("--dir", type=Path, default=None, help="folder on the disk that checkpoints are written to")
args = parser.parse_args()
unknown = set(args.only.split(",")) - set(PARTS)
if unknown:
    parser.error(f"--only: {', '.join(sorted(unknown))} not among {', '.join(PARTS)}")


def last_json(command, environment=None):
    """Runs a command; the JSON object on its last line of output."""
    done = subprocess.run([str(word) for word in command], env={**os.environ, **(environment or {})}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def reference(script, *flags, environment=None):
    return last_json([sys.executable, ROOT / "benchmarks/reference" / script, *flags], environment)


def ours(program, *flags):
    return last_json([args.build / program, *flags])


def median_ratio(pairs):
    return statistics.median(a / b for a, b in pairs)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(title, *header):
    print(f"\n{title}\n")
    row(*header)
    row(*["---"] * len(header))


def measure_step():
    rounds = []
    for _ in range(args.rounds):
        rounds.append((ours("step_qwen2_5_vl", "--steps", 4, "--warmup", 1),
                       reference("baseline_qwen2_5_vl.py", "--steps", 4, "--warmup", 1),
                       reference("baseline_qwen2_5_vl.py", "--steps", 4, "--warmup", 1, environment=KEEP_PAGES)))
    table("Training step (bf16, 2 threads, the default shape of `baseline_qwen2_5_vl.py`), ms", "phase", "ours", "eager",
          "eager, pages kept", "ours / eager", "ours / pages kept")
    for phase in ["forward", "backward", "optimizer", "step"]:
        key = phase + "_ms_min"
        best = [min(r[i][key] for r in rounds) for i in range(3)]
        row(phase, *best, *[f"{median_ratio([(r[0][key], r[i][key]) for r in rounds]):.2f}" for i in (1, 2)])
    row("share of the matrix-product peak", *[f"{max(r[i]['mfu'] for r in rounds):.3f}" for i in range(3)], "", "")
    row("loss", *[rounds[0][i]["loss"] for i in range(3)], "", "")


def measure_memory():
    table("Peak memory of the step's process, MiB", "batch", "ours", "eager", "ratio")
    for batch in (1, 4):
        flags = ["--batch", batch, "--steps", 1, "--warmup", 1]
        a, b = ours("step_qwen2_5_vl", *flags)["peak_rss_mib"], reference("baseline_qwen2_5_vl.py", *flags)["peak_rss_mib"]
        row(batch, a, b, f"{a / b:.2f}")


def first_step_seconds(folder, number):
    """From the start of the command until the first step is in metrics.jsonl."""
    output = folder / f"run{number}"
    run = folder / "run.toml"
    run.write_text(f'''output = "{output}"
threads = 2
[model]
path = "{folder}/data/model"
weights = "random"
[[data.train]]
path = "{folder}/data/data/train.jsonl"
[data]
max_length = 256
[train]
steps = 1
global_batch = 1
''')
    start = time.perf_counter()
    process = subprocess.Popen([args.build / "triptych", "train", run, "-q"], stderr=subprocess.DEVNULL)
    metrics = output / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None and not metrics.exists():
            sys.exit("error: the run for the start-up time failed")
        time.sleep(0.001)
    seconds = time.perf_counter() - start
    process.wait()
    return seconds


def measure_startup():
    code = "import torch; from transformers import Qwen2_5_VLForConditionalGeneration, AutoProcessor, Trainer, TrainingArguments; import peft"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([args.build / "quickstart_data", Path(folder) / "data", "1", "50"], check=True, stdout=subprocess.DEVNULL)
        mine, imports = [], []
        for number in range(args.rounds + 1):
            mine.append(first_step_seconds(Path(folder), number))
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)
            imports.append(time.perf_counter() - start)
    table("Start-up, s (the first round warms the page cache and is left out)", "figure", "best", "worst")
    row("ours: start of `triptych train` to the first step done, tiny model", f"{min(mine[1:]):.2f}", f"{max(mine[1:]):.2f}")
    row("reference: imports alone", f"{min(imports[1:]):.2f}", f"{max(imports[1:]):.2f}")


def measure_pictures():
    rounds = [(ours("bench_media"), reference("baseline_io.py", "--skip-startup", "--checkpoint-mib", 64)) for _ in range(args.rounds)]
    table("Pictures a second and core, JPEG 640 x 480", "figure", "ours", "reference", "ratio")
    for name, mine, theirs in [("decode", "decode_img_per_s", "pil_decode_img_per_s"),
                               ("decode, resize", "decode_resize_img_per_s", "pil_decode_resize_img_per_s"),
                               ("decode, resize, patches", "decode_resize_patches_img_per_s", "hf_processor_img_per_s")]:
        row(name, max(r[0][mine] for r in rounds), max(r[1][theirs] for r in rounds),
            f"{median_ratio([(r[0][mine], r[1][theirs]) for r in rounds]):.1f}")


def measure_tokenizer():
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    # English prose that is there on every Debian machine, so that words repeat as they do in real data.
    licences = sorted(Path("/usr/share/common-licenses").glob("*"))
    lines = [line for path in licences if not path.is_symlink() for line in path.read_text(errors="ignore").splitlines() if line.strip()]
    lines = (lines * (20000 // len(lines) + 1))[:20000]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                       pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=4000, show_progress=False,
                                                             initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    os.environ["RAYON_NUM_THREADS"] = "1"
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        model, text = Path(folder) / "tokenizer.json", Path(folder) / "text"
        tokenizer.save(str(model))
        text.write_text("\n".join(lines) + "\n")
        for _ in range(args.rounds):
            mine = ours("bench_tokenizer", model, text)
            start = time.process_time()
            count = sum(len(tokenizer.encode(line).ids) for line in lines)
            seconds = time.process_time() - start
            if count != mine["tokens"]:
                sys.exit(f"error: {mine['tokens']} tokens, the reference has {count}")
            rounds.append((mine["mtok_per_s"], count / seconds / 1e6))
    table("Tokenizer, million tokens a second, one thread", "ours", "reference", "ratio")
    row(f"{max(r[0] for r in rounds):.2f}", f"{max(r[1] for r in rounds):.2f}", f"{median_ratio(rounds):.1f}")


def measure_checkpoint():
    where = ["--dir", args.dir] if args.dir else []
    rounds = [(ours("bench_checkpoint", *where),
               reference("baseline_io.py", "--threads", 2, "--skip-startup", "--images", 2, *where)) for _ in range(args.rounds)]
    table("Checkpoint of 1 GiB, GB/s", "figure", "ours", "reference", "ratio")
    for name, mine, theirs in [("load from the page cache into tensors", "load_copy_gbps", "safetensors_load_copy_gbps"),
                               ("save with fsync", "save_gbps", "safetensors_save_fsync_gbps")]:
        row(name, f"{max(r[0][mine] for r in rounds):.2f}", f"{max(r[1][theirs] for r in rounds):.2f}",
            f"{median_ratio([(r[0][mine], r[1][theirs]) for r in rounds]):.1f}")
    row("save / raw write of the same run", f"{statistics.median(r[0]['save_of_raw'] for r in rounds):.2f}", "", "")
    row("the step waits for an asynchronous save, share", f"{statistics.median(r[0]['stall_of_step'] for r in rounds):.4f}", "", "")


def machine():
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({cpu}), {memory:.1f} GiB"


print(f"# Triptych beside the reference implementations, {time.strftime('%Y-%m-%d')}\n\n{machine()}; {args.rounds} rounds, alternating.\n\n"
      f"`{' '.join(['python', 'benchmarks/compare.py', *sys.argv[1:]])}`", flush=True)
for part in PARTS:
    if part in args.only.split(","):
        globals()["measure_" + part]()
