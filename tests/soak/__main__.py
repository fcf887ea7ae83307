"""Stops every command that writes at every operation, lets it go on, and compares the outcome.

python -m tests.soak                             everything, half an hour on two cores
python -m tests.soak --points 60                 a sample
python -m tests.soak --only sample-png:17:kill   one point, or all of a command
"""

from __future__ import annotations

import argparse
import gc
import importlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

from tests.soak import judge
from tests.soak.cases import CASES, ENCODE, Case, outputs, write_inputs
from tests.soak.points import GUESTS, KINDS, Faults, Point, Reference, Trial
from tests.soak.stops import run

TIMES = 100
_PROGRESS = 250


def main() -> int:
    """Run the harness; the exit status is 1 if anything is wrong."""
    options = _options()
    began = time.perf_counter()
    check_covered()
    if options.points is not None:
        leave_out_figures()
    base = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        inputs = prepare(base)
        names = {name.split(":")[0] for name in options.only}
        cases = [case for case in CASES if not names or case.name in names]
        references = {case.name: reference(base, case) for case in cases}
        points = choose(references, options.points, options.seed, options.only)
        print(f"{len(points)} points of {len(cases)} commands; seed {options.seed}", flush=True)
        gc.collect()
        gc.freeze()
        found = tried(references, points, base, options.jobs)
        if judge.tree(base / "inputs") != inputs:
            found.append((Point("inputs", 0, "kill"), {"foreign": ["inputs changed"]}))
    finally:
        shutil.rmtree(base)
    failed = report(found, references)
    print(f"{time.perf_counter() - began:.0f} s")
    return failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--points", type=int, help="try a sample of so many points")
    parser.add_argument("--seed", type=int, default=0, help="of the sample and the random times")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", nargs="*", default=[], metavar="COMMAND[:POINT[:KIND]]")
    return parser.parse_args()


def check_covered() -> None:
    """Every option that names an output belongs to a case."""
    lines = [case.line.split() for case in CASES]
    for command, option in outputs():
        if not any(line[0] == command and option in line for line in lines):
            sys.exit(f"no case writes {option} of {command}: add one to tests/soak/cases.py")


def leave_out_figures() -> None:
    """Write a few bytes for each figure, whose drawing takes longer than all the rest."""
    from matplotlib.figure import Figure

    def savefig(self: Figure, target: BytesIO, **_: object) -> None:
        target.write(b"a figure")

    Figure.savefig = savefig  # type: ignore[method-assign, assignment]


def prepare(base: Path) -> judge.Tree:
    """Write what the commands read; returns its files."""
    inputs = base / "inputs"
    inputs.mkdir()
    write_inputs(inputs)
    place = base / "encoding"
    place.mkdir()
    expect(run(ENCODE.split(), place, base / "log"), "encode")
    (place / "z.safetensors").rename(inputs / "z.safetensors")
    return judge.tree(inputs)


def expect(outcome: object, name: str) -> None:
    """Stop unless a command succeeded that nothing disturbed."""
    if outcome.code:  # type: ignore[attr-defined]
        sys.exit(f"{name} fails undisturbed: {outcome.text}")  # type: ignore[attr-defined]


def reference(base: Path, case: Case) -> Reference:
    """Run a case undisturbed."""
    start, place = base / f"{case.name}-start", base / f"{case.name}-whole"
    shutil.copytree(_earlier(base, case.before), start, symlinks=True)
    for name in (*GUESTS, *(f"out/{name}" for name in case.guests)):
        (start / name).parent.mkdir(exist_ok=True, parents=True)
        (start / name).write_bytes(b"of the user\n")
    shutil.copytree(start, place, symlinks=True)
    inodes = {path.stat().st_ino for path in place.rglob("*")}
    outcome = run(case.arguments, place, base / "log")
    expect(outcome, case.line)
    if unseen := outcome.unseen(place, inodes):
        sys.exit(f"{case.name}: {unseen[0]} was written by operations that are not counted")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in outcome.modules:  # so that later processes need not import them
            with suppress(Exception):
                importlib.import_module(name)
    found = Reference(case, start, judge.tree(start), judge.tree(place), outcome)
    shutil.rmtree(place)
    return found


def _earlier(base: Path, lines: Sequence[str]) -> Path:
    """A folder in which commands have run; several cases share it."""
    place = base / f"earlier-{zlib.crc32(repr(lines).encode())}"
    if not place.exists():
        place.mkdir()
        for line in lines:
            expect(run(line.split(), place, base / "log"), line)
    return place


def choose(
    references: dict[str, Reference], number: int | None, seed: int, only: Sequence[str]
) -> list[Point]:
    """The points to try: all, a sample of each command, or those that are named.

    A command is named for its points of the whole run.
    """
    chooser = random.Random(seed)  # noqa: S311
    every: dict[str, list[Point]] = {}
    for name, whole in references.items():
        count = len(whole.outcome.operations)
        kinds = [kind for kind in KINDS if kind != "time"]
        every[name] = [Point(name, at, kind) for at in range(1, count + 1) for kind in kinds]
    if only:
        named = [point for points in every.values() for point in points]
        return [
            point
            for point in named
            if (point.case in only and _whole(point))
            or any(f"{point}:".startswith(f"{name}:") for name in only if ":" in name)
        ]
    if number is None:
        names = [chooser.choice(list(references)) for _ in range(TIMES)]
        times = [Point(name, chooser.randrange(1000), "time") for name in names]
        return [point for points in every.values() for point in points if _whole(point)] + times
    order = list(references)
    chooser.shuffle(order)
    return [chooser.choice(every[order[i % len(order)]]) for i in range(number)]


def _whole(point: Point) -> bool:
    """Whether the whole run tries a point: killed at every one, the rest at some."""
    step = {"kill": 1, "again": 3, "twice": 3}.get(point.kind, 6)
    return (point.at + KINDS.index(point.kind)) % step == 0


def tried(
    references: dict[str, Reference], points: list[Point], base: Path, jobs: int
) -> list[tuple[Point, Faults]]:
    """Try points, in several processes; prints how many are done."""
    tasks = [(references[point.case], point) for point in points]
    attempt = partial(_attempt, base)
    if jobs == 1:
        return [attempt(task) for task in tasks]
    found = []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for outcome in pool.imap_unordered(attempt, tasks, chunksize=4):
            found.append(outcome)
            if len(found) % _PROGRESS == 0:
                print(f"{len(found)} of {len(tasks)} points tried", flush=True)
    return found


def _attempt(base: Path, task: tuple[Reference, Point]) -> tuple[Point, Faults]:
    """Try a point in a folder of this process, and print what is wrong."""
    whole, point = task
    place = base / f"run-{os.getpid()}"
    try:
        faults = Trial(whole, point, place, place.with_suffix(".log")).try_it()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for kind, names in faults.items():
        print(f"{point}  {kind}: {'; '.join(names[:3])}", flush=True)
    return point, faults


def report(found: list[tuple[Point, Faults]], references: dict[str, Reference]) -> int:
    """Print a table of faults; returns the exit status."""
    print("\n" + "command".ljust(24) + "points".rjust(8), *(k.rjust(10) for k in judge.KINDS))
    total: Counter[str] = Counter()
    for name in [*references, "inputs"]:
        rows = [faults for point, faults in found if point.case == name]
        if not rows:
            continue
        counts = Counter(kind for faults in rows for kind in faults)
        total += counts + Counter({"points": len(rows)})
        cells = (str(counts[kind]).rjust(10) for kind in judge.KINDS)
        print(name.ljust(24) + str(len(rows)).rjust(8), *cells)
    cells = (str(total[kind]).rjust(10) for kind in judge.KINDS)
    print("all".ljust(24) + str(total["points"]).rjust(8), *cells)
    bad = [point for point, faults in found if faults]
    for point in bad[:5]:
        print(f"\nfastdpm {references[point.case].case.line}" if point.case in references else "")
        print(f"  scripts/soak.sh --only {point}")
    print(f"{len(bad)} of {total['points']} points failed")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
