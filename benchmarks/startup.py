"""Measure how long commands take, each as a separate process.

    python benchmarks/startup.py [--repeats 5]

Prints the median and the range of the wall time of `import fastdpm`, `fastdpm --help` and
`fastdpm sample` of two built-in models, and of `python -c pass` for comparison. bf16 is faster
than float32 on processors with AMX or AVX-512 BF16.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

_SAMPLE = ("-m", "fastdpm", "sample")
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import fastdpm": ["-c", "import fastdpm"],
    "fastdpm --help": ["-m", "fastdpm", "--help"],
    "fastdpm sample digits -S 10": [*_SAMPLE, "digits", "-S", "10"],
    "fastdpm sample cifar10 -S 10": [*_SAMPLE, "cifar10", "-S", "10"],
    "fastdpm sample cifar10 -S 10 --precision bf16": [
        *(*_SAMPLE, "cifar10", "-S", "10"),
        *("--precision", "bf16"),
    ],
}


def main() -> None:
    """Time every command after one warm-up."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(repeats + 1):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, *arguments], cwd=folder, check=True, capture_output=True
                )
                times.append(time.perf_counter() - began)
        kept = times[1:]
        print(f"{name}: {statistics.median(kept):.2f} s ({min(kept):.2f} to {max(kept):.2f})")


if __name__ == "__main__":
    main()
