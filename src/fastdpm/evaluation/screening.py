"""Screening: many plans with few samples each, in rounds that keep the best quarter.

Each round has four times as many samples of a plan as the one before (successive halving). All
plans of a round share their seeds.
Source: Karnin, Koren & Somekh 2013, Almost optimal exploration in multi-armed bandits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from fastdpm.core.text import counted
from fastdpm.evaluation.cells import Cell
from fastdpm.evaluation.comparing import PreparedComparison, Trial
from fastdpm.evaluation.estimate import CellCost, count_cells
from fastdpm.evaluation.scores import Metric, duration

_KEPT = 4  # a round keeps one of so many plans
_FEWEST = 50  # samples of the first round
_SECONDS_PER_LINE = 10.0
Log = Callable[[str], object]


@dataclass(frozen=True)
class Rounds:
    """The rounds of a screening.

    Attributes:
        n: Samples of a plan in the last round.
        finalists: How many plans are left at last.
        least: The smallest number of samples that can be measured.
    """

    n: int
    finalists: int
    least: int

    def sizes(self, count: int) -> list[int]:
        """Samples of a plan in each round, for so many plans in the first one.

        The last round has more plans than there are finalists, or it would decide nothing.
        """
        found = [self.n]
        left = self.survivors(count)
        while found[0] // _KEPT >= max(self.least, _FEWEST) and left > self.finalists:
            found.insert(0, found[0] // _KEPT)
            left = self.survivors(left)
        return found

    def survivors(self, count: int) -> int:
        """How many of so many plans a round keeps."""
        return min(count, max(self.finalists, math.ceil(count / _KEPT)))

    def run(
        self, prepared: PreparedComparison[Any], trials: Sequence[Trial[Any]], log: Log
    ) -> list[Cell]:
        """Measure the plans of one S; return the cells of the last round, the best first."""
        kept, ranked, sizes = list(trials), list[Cell](), self.sizes(len(trials))
        for number, n in enumerate(sizes, 1):
            text = f"S = {trials[0].cell.num_steps}, round {number} of {len(sizes)}:"
            text += f" {counted(len(kept), 'plan')}, {n:,} samples each"
            lines, cells = _Lines(text, len(kept), log), list[Cell]()
            for trial in kept:
                cells.append(_sized(trial, n).measured(prepared.measure))
                lines.after(len(cells))
            ranked = best_first(cells, prepared.measure.metrics[0])
            best = {cell.id for cell in ranked[: self.survivors(len(kept))]}
            kept = [trial for trial in kept if trial.cell.id in best]
        return ranked

    def costs(
        self, num_steps: int, trials: Sequence[Trial[Any]], more: int = 0
    ) -> Iterator[CellCost]:
        """What each round costs, without what the first one has in the cache.

        ``more`` is the number of plans that are not known yet.
        """
        kept = len(trials) + more
        rounds = self.sizes(kept)
        each = max(trial.source.rows for trial in trials if trial.source is not None)
        first = count_cells([_sized(trial, rounds[0]).planned for trial in trials])
        name, left = f"S = {num_steps}, round", sum(cost.left for cost in first)
        left += more * rounds[0]
        yield CellCost(f"{name} 1", num_steps, rounds[0], left, each)
        for number, (few, many) in enumerate(pairwise(rounds), 2):
            kept = self.survivors(kept)
            yield CellCost(f"{name} {number}", num_steps, many, kept * (many - few), each)


def best_first(cells: Sequence[Cell], metric: Metric) -> list[Cell]:
    """The cells that have a value, the best first."""
    sign = 1 if metric.lower_is_better else -1
    known = [cell for cell in cells if metric.key in cell.scores]
    return sorted(known, key=lambda cell: sign * cell.scores[metric.key].value)


def different(trials: Sequence[Trial[Any]], first: str | None) -> list[Trial[Any]]:
    """The trials that can be drawn; of equal plans one, that of the key ``first`` if there is."""
    drawn = [trial for trial in trials if trial.source is not None]
    drawn.sort(key=lambda trial: trial.cell.method != first)
    plans = {trial.cell.plan or trial.cell.id: trial for trial in reversed(drawn)}
    return list(reversed(plans.values()))


class _Lines:
    """Prints how far a round is, at most every ten seconds."""

    def __init__(self, text: str, count: int, log: Log) -> None:
        self.text, self.count, self.log = text, count, log
        self.began = self.printed = time.monotonic()
        log(text)

    def after(self, done: int) -> None:
        """Called when a plan is measured."""
        now = time.monotonic()
        if now - self.printed < _SECONDS_PER_LINE:
            return
        self.printed = now
        left = (now - self.began) * (self.count / done - 1)
        self.log(f"{self.text}: {done} done, about {duration(left, digits=2)} left")


def _sized(trial: Trial[Any], n: int) -> Trial[Any]:
    return replace(trial, cell=replace(trial.cell, n=n))
