#!/usr/bin/env bash
# Checks that need too much time, memory or disk to run for every change: scripts/soak.sh
# Run it by hand before a release, in an environment with the extra "test". It needs 7 GB of memory
# and 5 GB of disk. The benchmarks print numbers for you to judge; the tests pass or fail.
# With options, it only stops commands at their operations on files, as tests/soak describes:
#   scripts/soak.sh --only sample-png:17
set -euo pipefail
cd "$(dirname "$0")/.."
if (($#)); then
  exec python -m tests.soak "$@"
fi

checks=(
  "python -m tests.soak --jobs 2"
  "FASTDPM_LARGE=1 pytest -q tests/models/test_published.py"
  "python benchmarks/conversion.py"
  "python benchmarks/conversion.py --list"
  "python benchmarks/overhead.py"
  "python benchmarks/startup.py"
  # Add your own long checks here.
)

failed=0
for check in "${checks[@]}"; do
  echo "== $check"
  bash -euo pipefail -c "$check" || { failed=1 && echo "FAILED: $check" >&2; }
done
exit "$failed"
