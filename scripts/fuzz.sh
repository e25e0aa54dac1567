#!/usr/bin/env bash
# Builds the fuzz targets with clang and runs each on its corpus for a while.
#   scripts/fuzz.sh [SECONDS a target, default 5]
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-5}
if ! command -v clang++-14 >/dev/null; then
  echo "skipped: clang++-14 is not installed (make test installs it)"
  exit 77
fi
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target fuzz_targets
export seconds work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
run() {
  mkdir "$work/$1"
  # New inputs go into the first folder, a temporary one; what breaks a target is kept under build/fuzz.
  "build/fuzz/tests/fuzz/$1" "$work/$1" "tests/fuzz/${1%_fuzz}_corpus" -max_total_time="$seconds" -max_len=4096 \
    -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$1-" -print_final_stats=1 2>"$work/$1.log" ||
    { tail -n 40 "$work/$1.log"; return 1; }
  echo "$1: $(sed -n 's/.*number_of_executed_units: *//p' "$work/$1.log") inputs, nothing broke"
}
export -f run
for source in tests/fuzz/*_fuzz.cpp; do basename "$source" .cpp; done | xargs -P "$(nproc)" -I{} bash -c 'run {}'
