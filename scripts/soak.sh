#!/usr/bin/env bash
# The checks that take too long, or too much memory or disk, for every change: scripts/soak.sh
# Run it by hand before a release, in an environment with the extra "test". It takes 7 GB of memory
# and 5 GB of disk. The benchmarks print figures for a reader to judge; the tests fail by themselves.
set -euo pipefail
cd "$(dirname "$0")/.."

checks=(
  "FASTDPM_LARGE=1 pytest -q tests/models/test_published.py"
  "python benchmarks/conversion.py"
  "python benchmarks/conversion.py --list"
  "python benchmarks/overhead.py"
  "python benchmarks/startup.py"
  # A long check of your own goes here.
)

failed=0
for check in "${checks[@]}"; do
  echo "== $check"
  bash -euo pipefail -c "$check" || { failed=1 && echo "FAILED: $check" >&2; }
done
exit "$failed"
