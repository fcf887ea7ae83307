"""Measure the cost of ``evaluate`` in addition to sampling, in time and memory.

    python benchmarks/evaluation.py [-n 10000] [--repeats 3]

Draws and measures n samples of `digits` with an empty cache, each run in a separate process.
Prints the time of everything except sampling (loading, features, metrics, the cache) relative to
the sampling time. Also prints how the peak resident memory grows with twice as many samples, and
the size of the features this adds. (Below 10,000 samples, the blocks of the kernel distance grow
with the number of samples, up to 1,000 each.)
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def measure(n: int) -> None:
    """Evaluate once; print the total seconds, the sampling seconds and the peak memory in MiB."""
    from fastdpm import evaluate
    from fastdpm.evaluation.cache import Cache

    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        found = evaluate("digits", n=n, cache=Cache(Path(folder)))
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, found.seconds, peak]))


def run(n: int) -> tuple[float, float, float]:
    """Run :func:`measure` in a new process."""
    command = [sys.executable, __file__, "--measure", str(n)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, drawing, peak = json.loads(out)
    return seconds, drawing, peak


def main() -> None:
    """Print overhead and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("-n", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    shares, peaks = [], []
    for _ in range(arguments.repeats):
        seconds, drawing, peak = run(arguments.n)
        shares.append((seconds - drawing) / drawing)
        peaks.append(peak)
        print(
            f"{arguments.n:,} digits on {torch.get_num_threads()} threads: {seconds:.1f} s, of"
            f" which {drawing:.1f} s drawing: measuring adds {100 * shares[-1]:.1f} %",
            flush=True,
        )
    twice = run(2 * arguments.n)[2]
    width, classes = 64, 10
    added = arguments.n * (width + classes) * 4 / 2**20
    print(
        f"measuring adds {100 * statistics.median(shares):.1f} % (median of {arguments.repeats});"
        f" peak memory {statistics.median(peaks):.0f} MiB at {arguments.n:,} samples,"
        f" {twice:.0f} MiB at {2 * arguments.n:,}; the features of the others take {added:.1f} MiB"
    )


if __name__ == "__main__":
    main()
