"""The value axis of a figure: limits, ticks, and what lies outside.

A few bad values must not flatten everything else: the axis ends before them if they are at most a
fifth of all values and an empty stretch lies in between (a decade of a logarithmic axis, or more
than half of a linear one). The figure then marks them at its edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fastdpm.evaluation.scores import Metric, Score

_LOG_FROM = 2.5  # ratio of the largest to the smallest value
_LONGEST_BAR = 4.0  # the factor by which an error bar may lower a logarithmic axis
_FEWEST, _WORST_PART, _EMPTY = 10, 5, 0.5
_REACH = 0.35  # how far the axis is extended for a line, as a part of it
_MARGIN = 0.05
_FEW_DECADES, _MANY_DECADES = 1.0, 2.4


@dataclass(frozen=True)
class Scale:
    """An axis from ``low`` to ``high``.

    Attributes:
        kind: "linear", "log" or "symlog"; the last is linear from -threshold to threshold.
        threshold: Of "symlog".
    """

    low: float
    high: float
    kind: str = "linear"
    threshold: float = 0.0

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the bottom, 1 at the top; below 0 or above 1 if outside."""
        low, high = self._spaced(self.low), self._spaced(self.high)
        return (self._spaced(value) - low) / (high - low)

    def holds(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high

    @property
    def ticks(self) -> list[float]:
        """Ticks of a logarithmic axis; an empty list leaves them to matplotlib."""
        if self.kind == "linear":
            return []
        if self.kind == "symlog":
            decades = _ticks(self.threshold, max(abs(self.low), self.high), (1.0,))
            above = [self.threshold, *(v for v in decades if v >= 2 * self.threshold)]
            return [v for v in (*(-v for v in above[::-1]), 0.0, *above) if self.holds(v)]
        decades_wide = math.log10(self.high / self.low)
        if decades_wide < _FEW_DECADES:
            found = _ticks(self.low, self.high, (1, 1.5, 2, 3, 4, 5, 7))
        else:
            found = _ticks(
                self.low, self.high, (1, 2, 5) if decades_wide < _MANY_DECADES else (1,)
            )
        return [tick for tick in found if self.holds(tick)]

    def _spaced(self, value: float) -> float:
        return _transform(self.kind, self.threshold)(value)


def scale_of(
    metric: Metric,
    scores: Sequence[Score],
    levels: Sequence[float],
    strip: float,
    marks: int = 0,
) -> Scale:
    """The axis that shows scores with their error bars, and levels if they are near.

    Args:
        metric: Only values on its bad side can be left out.
        scores: Those to show.
        levels: Values of horizontal lines.
        strip: Part of the axis that is kept free at its edge for each level outside.
        marks: Number of strips to keep free for values that are left out.
    """
    if not scores:
        return Scale(0.0, 1.0)
    values = [score.value for score in scores]
    wide = min(values) > 0 and max(values) > _LOG_FROM * min(values)
    logarithmic = wide and metric.lower_is_better  # scores of higher is better have a top
    kind, threshold = ("log", 0.0) if logarithmic else ("linear", 0.0)
    kept = _core(scores, kind, metric.lower_is_better)
    values = [score.value for score in kept]
    if logarithmic and max(values) <= _LOG_FROM * min(values):
        kind = "linear"
    kind, threshold = _with_sign(kept) or (kind, threshold)
    there = _transform(kind, threshold)
    ends = [there(end) for score in kept for end in _bar(score, kind)]
    lines = [there(value) for value in levels]
    lines += [math.inf if metric.lower_is_better else -math.inf] * marks
    low, high = _limits(min(ends), max(ends), lines, strip)
    back = _inverse(kind, threshold)
    return Scale(back(low), back(high), kind, threshold)


def _limits(low: float, high: float, lines: Sequence[float], strip: float) -> tuple[float, float]:
    """Take in near lines, add a margin, and keep a strip free for each line that is not near."""
    reach = _REACH * (high - low)
    near = [line for line in lines if low - reach <= line <= high + reach]
    low, high = min([low, *near]), max([high, *near])
    margin = _MARGIN * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - margin, high + margin
    below, above = sum(line < low for line in lines), sum(line > high for line in lines)
    room = (high - low) / max(0.2, 1 - strip * (below + above))
    return low - below * strip * room, high + above * strip * room


def _bar(score: Score, kind: str) -> tuple[float, float]:
    low, high = score.value - score.spread, score.value + score.spread
    # An error as large as its value would reach down without end.
    return (max(low, score.value / _LONGEST_BAR) if kind == "log" else low), high


def _core(scores: Sequence[Score], kind: str, lower_is_better: bool) -> list[Score]:
    """The scores without the few worst ones, if an empty stretch separates those."""
    transform = _transform(kind, 0.0)
    sign = 1 if lower_is_better else -1
    order = sorted(scores, key=lambda score: sign * score.value)
    if len(order) < _FEWEST:
        return order
    at = np.array([transform(score.value) for score in order])
    empty = math.log(10) if kind == "log" else _EMPTY * abs(at[-1] - at[0])
    worst = at[-1 - len(order) // _WORST_PART :]
    gaps = np.flatnonzero(np.abs(np.diff(worst)) > empty)
    return order[: -(len(worst) - 1 - int(gaps[0]))] if len(gaps) else order


def _with_sign(scores: Sequence[Score]) -> tuple[str, float] | None:
    """A symlog axis, if values near zero of both signs would be flattened on a linear one."""
    values = np.abs([score.value for score in scores])
    spreads = [score.spread for score in scores if score.spread > 0]
    if not spreads or min(score.value for score in scores) > 0:
        return None
    threshold = _round(2 * float(np.median(spreads)))
    small = float(np.mean(values < 2 * threshold))
    return ("symlog", threshold) if small > 0.5 and values.max() > 10 * threshold else None


def _round(value: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten."""
    known = _ticks(value, value, (1.0, 2.0, 5.0, 10.0))
    return min(known, key=lambda tick: abs(math.log(tick / value)))


def _transform(kind: str, threshold: float) -> Callable[[float], float]:
    if kind == "log":
        return lambda value: math.log(value) if value > 0 else -math.inf
    if kind == "symlog":
        return lambda value: (
            value / threshold
            if abs(value) <= threshold
            else math.copysign(1 + math.log10(abs(value) / threshold), value)
        )
    return lambda value: value


def _inverse(kind: str, threshold: float) -> Callable[[float], float]:
    if kind == "log":
        return math.exp
    if kind == "symlog":
        return lambda place: (
            place * threshold
            if abs(place) <= 1
            else math.copysign(threshold * 10 ** (abs(place) - 1), place)
        )
    return lambda place: place


def _ticks(low: float, high: float, multiples: Sequence[float]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{m}e{decade}") for decade in decades for m in multiples]
