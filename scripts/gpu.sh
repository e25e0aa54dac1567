#!/usr/bin/env bash
# Builds and checks Triptych on a machine with an NVIDIA GPU whose Python has torch 2.11 or later with CUDA 13.
# Nothing is downloaded. Steps that are done are remembered in OUT/done, so that a run that was cut
# off, or that has to fit into a time limit, is started again and goes on where it was.
#
#   scripts/gpu.sh [--out DIR] [--python PYTHON] [--limit SECONDS] [--parity DIR]... [STEP]...
#   scripts/gpu.sh --pack FILE.tar.xz     on a machine with the Debian packages, no GPU needed: the cuda
#                                         build and the libraries it needs besides torch's, as one file
#   scripts/gpu.sh --packed FILE.tar.xz [the options above]   uses that instead of building
#
# Steps, all by default and in this order:
#   facts    the GPU, the driver, torch; what is missing for a build
#   build    the cuda preset (left out with --packed)
#   test     ctest -L cuda, and the operators' tests on the CPU
#   verify   triptych verify --device cuda on folders made by tests/parity/make_qwen2_5_vl.py
#   train    twenty steps and a resumed run with device = "cuda" as the only change
#   bench    the training step beside the reference implementation
# Everything is written under OUT (default build/gpu): one log a step, and results.json lines of bench.
set -uo pipefail
cd "$(dirname "$0")/.."

out=build/gpu python=python3 limit=540 packed= pack= steps=() parity=()
while (($#)); do
  case $1 in
    --out) out=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    --limit) limit=$2; shift 2 ;;
    --parity) parity+=("$2"); shift 2 ;;
    --packed) packed=$2; shift 2 ;;
    --pack) pack=$2; shift 2 ;;
    facts | build | test | verify | train | bench) steps+=("$1"); shift ;;
    *) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
((${#steps[@]})) || steps=(facts build test verify train bench)
mkdir -p "$out/done"
deadline=$((SECONDS + limit))
left() { echo $((deadline > SECONDS + 5 ? deadline - SECONDS : 5)); }

torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') ||
  { echo "error: $python has no torch; name another one with --python"; exit 1; }
build=build/cuda
bin=$build tests=$build/tests
if [ -n "$packed" ]; then
  bin=$out/packed/bin tests=$bin
  [ -d "$out/packed" ] || { mkdir -p "$out/packed" && tar -xf "$packed" -C "$out/packed"; } || exit 1
  export LD_LIBRARY_PATH=$PWD/$out/packed/lib:$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  for folder in "$out"/packed/parity/*/; do [ -d "$folder" ] && parity+=("$folder"); done
fi

missing() {  # of what a build needs
  local tool package
  for tool in cmake ninja g++ pkg-config; do
    command -v "$tool" >/dev/null || echo "command $tool"
  done
  for package in libavcodec libavformat libavutil libswscale libpng libjpeg libwebp icu-uc libpcre2-8 libxxhash zlib; do
    pkg-config --exists "$package" 2>/dev/null || echo "development files of $package"
  done
  for header in CLI/CLI.hpp toml++/toml.h nlohmann/json.hpp gtest/gtest.h gloo/config.h; do
    echo "#include <$header>" | g++ -x c++ -std=c++20 -E - >/dev/null 2>&1 || echo "header $header"
  done
}

step_facts() {
  nvidia-smi || echo "nvidia-smi: none"
  "$python" -c 'import torch; print("torch", torch.__version__, "CUDA", torch.version.cuda, "GPUs", torch.cuda.device_count(),
*[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])'
  nproc
  [ -n "$packed" ] || { echo "missing for a build:"; missing; }
}

step_build() {
  [ -n "$packed" ] && return 0
  local lacks
  lacks=$(missing)
  if [ -n "$lacks" ]; then
    echo "this machine cannot build; missing:"
    echo "$lacks"
    echo "install them (scripts/setup.sh lists the Debian packages), or bring a build: scripts/gpu.sh --pack elsewhere, --packed here"
    return 1
  fi
  cmake --preset cuda -DTRIPTYCH_TORCH="$torch" &&
    timeout "$(left)" cmake --build "$build" -j "$(nproc)"
}

step_test() {
  timeout "$(left)" "$tests/cuda_test" --gtest_brief=1 && timeout "$(left)" "$tests/kernels_test" --gtest_brief=1 || return 1
  for name in checkpoint_writer_test sharded_optimizer_test; do
    [ ! -x "$tests/$name" ] || timeout "$(left)" "$tests/$name" --gtest_brief=1 || return 1
  done
}

make_parity() {  # unless folders were given
  ((${#parity[@]})) && return 0
  "$python" tests/parity/make_qwen2_5_vl.py "$out/parity/qwen2_5_vl" &&
    "$python" tests/parity/make_qwen2_5_vl.py "$out/parity/qwen2_5_vl_tied" --seed 7 --tie --layers 2 --shards 1 || return 1
  parity=("$out/parity/qwen2_5_vl" "$out/parity/qwen2_5_vl_tied")
}

step_verify() {
  make_parity || return 1
  local folder bad=0
  for folder in "${parity[@]}"; do
    echo "== $folder on the CPU"
    timeout "$(left)" "$bin/triptych" verify "$folder" | tail -n 1
    echo "== $folder on the GPU"
    NVIDIA_TF32_OVERRIDE=0 timeout "$(left)" "$bin/triptych" verify "$folder" --device cuda || bad=1
  done
  return $bad
}

step_train() {
  make_parity || return 1
  local run=$out/run data=$out/train.jsonl i
  rm -rf "$run"
  for i in $(seq 64); do
    printf '{"messages": [{"role": "user", "content": "What is %d plus one?"}, {"role": "assistant", "content": "%d"}]}\n' \
      "$i" $((i + 1))
  done >"$data"
  cat >"$out/run.toml" <<TOML
output = "$PWD/$run"
device = "cuda"
[model]
path = "$(realpath "${parity[0]}")/ckpt"
[[data.train]]
path = "$(realpath "$data")"
[data]
max_length = 512
[train]
steps = 20
global_batch = 4
[checkpoint]
every = 10
TOML
  timeout "$(left)" "$bin/triptych" train "$out/run.toml" --set train.steps=10 &&
    timeout "$(left)" "$bin/triptych" train "$out/run.toml" &&
    timeout "$(left)" "$bin/triptych" generate "$run/final" --device cuda --prompt "What is 7 plus one?" --max-new-tokens 8 &&
    tail -n 3 "$run/metrics.jsonl"
}

step_bench() {
  local shape
  for shape in "" "--batch 4"; do
    # shellcheck disable=SC2086
    [ ! -x "$bin/step_qwen2_5_vl" ] || timeout "$(left)" "$bin/step_qwen2_5_vl" --device cuda $shape | tee -a "$out/results.json"
    # shellcheck disable=SC2086
    (cd benchmarks/reference && timeout "$(left)" "$python" baseline_qwen2_5_vl.py --device cuda $shape) | tee -a "$out/results.json"
  done
  [ ! -x "$bin/bench_checkpoint" ] || timeout "$(left)" "$bin/bench_checkpoint" --dir "$out" --threads "$(nproc)" | tee -a "$out/results.json"
}

make_pack() {
  cmake --preset cuda -DTRIPTYCH_TORCH="$torch" >/dev/null || exit 1
  ninja -C "$build" triptych cuda_test kernels_test checkpoint_writer_test sharded_optimizer_test bench_checkpoint || exit 1
  [ ! -f "$build/build.ninja" ] || ! grep -q 'build step_qwen2_5_vl:' "$build/build.ninja" || ninja -C "$build" step_qwen2_5_vl || exit 1
  local work file
  work=$(mktemp -d)
  mkdir -p "$work/bin" "$work/lib" "$work/parity"
  for file in "$build"/{triptych,bench_checkpoint,step_qwen2_5_vl} "$tests"/{cuda_test,kernels_test,checkpoint_writer_test,sharded_optimizer_test}; do
    [ ! -x "$file" ] || strip -o "$work/bin/$(basename "$file")" "$file"
  done
  # What the programs load besides torch's own libraries and the C and C++ runtimes, which every machine has.
  ldd "$work/bin/triptych" "$work/bin/cuda_test" | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE "/(torch|nvidia)/|/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so" |
    while read -r file; do cp -L "$file" "$work/lib/"; done
  strip --strip-unneeded "$work"/lib/* 2>/dev/null
  for file in "${parity[@]}"; do cp -r "$file" "$work/parity/"; done
  tar -cJf "$pack" -C "$work" bin lib parity
  rm -rf "$work"
  ls -l "$pack"
}

if [ -n "$pack" ]; then
  make_pack
  exit
fi

failed=0
for step in "${steps[@]}"; do
  if [ -e "$out/done/$step" ]; then
    echo "$step: done before"
    continue
  fi
  if ((SECONDS >= deadline)); then
    echo "time is up before '$step'; start again to go on"
    exit 3
  fi
  echo "== $step (log: $out/$step.log)"
  if "step_$step" >"$out/$step.log" 2>&1; then
    : >"$out/done/$step"
    echo "$step: ok, after $SECONDS s"
  else
    failed=1
    echo "$step: FAILED"
    tail -n 15 "$out/$step.log"
    [ "$step" = build ] && break
  fi
done
exit $failed
