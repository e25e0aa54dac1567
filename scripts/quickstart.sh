#!/usr/bin/env bash
# make quickstart: from nothing to a small Qwen2.5-VL that answers questions about pictures. Needs the
# build (make build does it). Can be repeated; the run before is replaced.
#   scripts/quickstart.sh [SEED]
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/release
run=runs/quickstart
seed=${1:-1}

# Short waits at barriers: several times as fast where other programs want the cores as well, and no
# slower where they do not (docs/decisions/0003-openmp.md).
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-3000}

say() { printf '\n== %s\n' "$*"; }

say "drawing pictures and questions, and a tokenizer for them"
rm -rf "$run"
"$build/quickstart_data" "$run" "$seed"

say "the model before training answers held-out questions"
# One step at learning rate 0 writes the random weights as they are.
"$build/triptych" train examples/quickstart/run.toml -q --set seed="$seed" --set output="../../$run/untrained" \
  --set train.steps=1 --set optimizer.lr=0 --set schedule.min_lr=0 --set train.validate_every=0
"$build/triptych" evaluate "$run/untrained/final" "$run/data/held_out.jsonl" --limit 40 --max-new-tokens 16 --json \
  > "$run/before.json"

say "training (examples/quickstart/run.toml)"
"$build/triptych" train examples/quickstart/run.toml --set seed="$seed"

say "the trained model answers all held-out questions"
"$build/triptych" evaluate "$run/final" "$run/data/held_out.jsonl" --max-new-tokens 16 --json > "$run/after.json"
"$build/quickstart_report" "$run" "$run/before.json" "$run/after.json"
