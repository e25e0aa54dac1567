#!/usr/bin/env bash
# Says which C++ files `make format` would change; ends with 77 where clang-format 19 is not installed.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-format-19 >/dev/null || { echo "skipped: clang-format-19 is not installed (make test installs it)"; exit 77; }
git ls-files '*.h' '*.cpp' | xargs clang-format-19 --dry-run -Werror
