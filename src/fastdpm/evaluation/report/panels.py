"""One panel of a figure: curves with their errors, lines, and marks of what lies outside."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fastdpm.evaluation.cells import Cell, Row
from fastdpm.evaluation.report.looks import BEHIND, ENVELOPE, INK, SMALL, SOFT, Look
from fastdpm.evaluation.report.scale import Scale, scale_of
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Metric, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART = 0.012  # of the width, between curves at one S, if those at the next S are far enough
_APART_OF_GAP = 0.5
_TICKS_APART = 0.055
_MAX_MARKS = 3
_DECADE = 10
_LINE, _STRIP = 0.125, 0.16  # inches, of a small text
_HEAD = 0.05  # inches, from the edge to the middle of an arrowhead


@dataclass(frozen=True)
class Level:
    """A horizontal line: a standard sampler or real data."""

    name: str
    score: Score
    color: str
    line: str

    @property
    def style(self) -> dict[str, Any]:
        """Arguments of matplotlib."""
        return {"color": self.color, "linestyle": self.line}


@dataclass(frozen=True)
class _Mark:
    """A value outside the axis, at a part of the width."""

    across: float
    value: float
    color: str


@dataclass(frozen=True)
class Frame:
    """What all panels of a metric share; ``height`` is that of a panel in inches."""

    comparison: Comparison
    metric: Metric
    height: float
    levels: list[Level] = field(default_factory=list)

    @classmethod
    def of(cls, comparison: Comparison, metric: Metric, height: float) -> Frame:
        """Collect the lines of a metric."""
        levels = [
            Level(f"{cell.name}, {cell.cost}", cell.scores[metric.key], INK, line)
            for cell, line in zip(comparison.references, ("-", "-.", ":"), strict=False)
            if metric.key in cell.scores
        ]
        floor, score = comparison.floor, comparison.comparable_floor(metric)
        if floor is not None and score is not None:
            levels.append(Level(f"real data (n = {floor.n:,})", score, SOFT, "--"))
        return cls(comparison, metric, height, levels)

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells that have a value, in any panel."""
        return measured((c for r in self.comparison.rows for c in r.cells.values()), self.metric)

    @cached_property
    def scale(self) -> Scale:
        """The value axis."""
        scores = [cell.scores[self.metric.key] for cell in self.cells] or self._shown_levels()
        values = [level.score.value for level in self.levels]
        strip = _STRIP / self.height
        found = scale_of(self.metric, scores, values, strip)
        outside = Counter(
            (cell.group, cell.num_evaluations)
            for cell in self.cells
            if not found.holds(cell.scores[self.metric.key].value)
        )
        marks = min(_MAX_MARKS, max(outside.values(), default=0))
        return scale_of(self.metric, scores, values, strip, marks) if marks else found

    def _shown_levels(self) -> list[Score]:
        """The lines that decide the axis where there are no curves.

        Real data more than a decade from the standard samplers are an arrow at the edge.
        """
        known = (cell.scores.get(self.metric.key) for cell in self.comparison.references)
        standard = [score for score in known if score is not None]
        floor = self.comparison.comparable_floor(self.metric)
        if floor is None or not all(_near(floor.value, score.value) for score in standard):
            return standard
        return [*standard, floor]

    @property
    def title(self) -> str:
        """The metric, which way is better, and what the axis does near zero."""
        text = f"{self.metric.name}, {self.metric.direction}"
        if self.scale.kind == "symlog":
            text += f" (axis linear up to ±{self.scale.threshold:g}, logarithmic beyond)"
        return text

    @cached_property
    def costs(self) -> tuple[float, float]:
        """The limits of the horizontal, logarithmic axis."""
        costs = [cell.num_evaluations for cell in self.cells] or [1.0]
        return min(costs) / 1.15, max(costs) * 1.15

    def across(self, cost: float) -> float:
        """Where a number of evaluations lies: 0 at the left, 1 at the right."""
        low, high = self.costs
        return math.log(cost / low) / math.log(high / low)

    def apart(self, count: int) -> float:
        """The part of the width between neighbors of ``count`` curves at one S."""
        at = [self.across(steps) for steps in self.comparison.steps]
        gap = min((b - a for a, b in pairwise(at)), default=1.0)
        return min(_APART, _APART_OF_GAP * gap / count)

    def moved(self, cost: float, part: float) -> float:
        """A number of evaluations, moved to the right by a part of the width."""
        low, high = self.costs
        return cost * math.exp(part * math.log(high / low))


def _near(a: float, b: float) -> bool:
    low, high = sorted((abs(a), abs(b)))
    return high <= _DECADE * low


def measured(cells: Iterable[Cell], metric: Metric) -> list[Cell]:
    """The cells that can be drawn, by their evaluations."""
    drawn = [cell for cell in cells if metric.key in cell.scores and cell.num_evaluations > 0]
    return sorted(drawn, key=lambda cell: cell.num_evaluations)


def set_axes(panel: Axes, frame: Frame, *, labels: tuple[bool, bool] = (True, True)) -> None:
    """Set both axes; ``labels`` says whether ticks below and at the left are labeled."""
    from matplotlib.ticker import NullLocator

    scale = frame.scale
    if scale.kind == "symlog":
        panel.set_yscale("symlog", linthresh=scale.threshold, linscale=0.9)
    elif scale.kind == "log":
        panel.set_yscale("log", nonpositive="clip")
    panel.set_xscale("log")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_locator(NullLocator())
    if scale.ticks:
        panel.set_yticks(scale.ticks, [f"{tick:g}" for tick in scale.ticks])
    ticks = _spread(frame)
    panel.set_xticks(ticks, [str(tick) for tick in ticks])
    panel.set(xlim=frame.costs, ylim=(scale.low, scale.high))
    panel.tick_params(labelsize=SMALL, labelbottom=labels[0], labelleft=labels[1], color=SOFT)
    panel.grid(color="#ececec", linewidth=0.7)
    panel.set_axisbelow(True)
    for name, side in panel.spines.items():
        side.set(visible=name in ("left", "bottom"), color=SOFT)


def draw_levels(panel: Axes, frame: Frame) -> None:
    """Draw horizontal lines and their errors; those outside as an arrow with the value."""
    outside: dict[bool, int] = {}
    for level in frame.levels:
        value, error = level.score.value, level.score.spread
        if frame.scale.holds(value):
            panel.axhspan(value - error, value + error, color=level.color, alpha=0.08, lw=0)
            panel.axhline(value, linewidth=1, **level.style)
        else:
            above = value > frame.scale.high
            row = outside[above] = outside.get(above, 0) + 1
            _draw_outside(panel, frame, level, above=above, row=row)


def _draw_outside(panel: Axes, frame: Frame, level: Level, *, above: bool, row: int) -> None:
    """An arrow at the edge, in the corner that the curves leave free, and the value."""
    edge, sign = (1.0, -1) if above else (0.0, 1)
    left = frame.metric.lower_is_better != above  # curves get better to the right
    x = 0.03 if left else 0.97
    panel.annotate(
        "",
        (x, edge),
        (0, sign * (0.1 + _LINE * (row - 1)) * 72 + sign * 4),
        xycoords="axes fraction",
        textcoords="offset points",
        arrowprops={"arrowstyle": "-|>", "color": level.color, "linewidth": 1},
    )
    name = level.name.partition(",")[0].partition(" (")[0]
    panel.annotate(
        f"{name} {level.score.value:.3g}",
        (x, edge),
        ((6 if left else -6), sign * (4 + (row - 1) * _LINE * 72)),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="left" if left else "right",
        va="top" if above else "bottom",
        fontsize=SMALL,
        color=level.color,
        annotation_clip=False,
    )


def draw_behind(panel: Axes, frame: Frame, rows: Sequence[Row]) -> None:
    """Draw other curves in light gray, and the best of all as a band."""
    x: list[float] = []
    y: list[float] = []
    for row in rows:
        for cell in measured(row.cells.values(), frame.metric):
            x.append(cell.num_evaluations)
            y.append(cell.scores[frame.metric.key].value)
        x.append(math.nan)
        y.append(math.nan)
    panel.plot(x, y, color=BEHIND, linewidth=0.8, zorder=1)
    best = measured(frame.comparison.best_by(frame.metric), frame.metric)
    panel.plot(
        [cell.num_evaluations for cell in best],
        [cell.scores[frame.metric.key].value for cell in best],
        color=ENVELOPE,
        linewidth=4,
        solid_capstyle="round",
        zorder=1.5,
    )


def draw_curves(panel: Axes, frame: Frame, rows: Sequence[Row], looks: Sequence[Look]) -> bool:
    """Draw curves with their errors, a little apart; returns whether there was any value."""
    drawn = False
    outside: dict[float, list[_Mark]] = {}
    for i, (row, look) in enumerate(zip(rows, looks, strict=True)):
        cells = measured(row.cells.values(), frame.metric)
        if not cells:
            continue
        drawn = True
        shift = frame.apart(len(rows)) * (i - (len(rows) - 1) / 2)
        scores = [cell.scores[frame.metric.key] for cell in cells]
        x = [frame.moved(cell.num_evaluations, shift) for cell in cells]
        values = [score.value for score in scores]
        spreads = [score.spread for score in scores]
        panel.errorbar(x, values, yerr=spreads, **look.style, elinewidth=0.9, zorder=3)
        for cell, at, value in zip(cells, x, values, strict=True):
            if not frame.scale.holds(value):
                mark = _Mark(frame.across(at), value, look.color)
                outside.setdefault(cell.num_evaluations, []).append(mark)
    for marks in outside.values():
        _draw_marks(panel, frame, marks)
    return drawn


def _draw_marks(panel: Axes, frame: Frame, marks: Sequence[_Mark]) -> None:
    """Draw arrowheads at the edge, and beside them the values below one another."""
    above = marks[0].value > frame.scale.high
    edge = 1.0 if above else 0.0
    head = _HEAD / frame.height
    places = [mark.across for mark in marks]
    for mark in marks:
        panel.plot(
            mark.across,
            1 - head if above else head,
            "^" if above else "v",
            color=mark.color,
            markersize=6,
            clip_on=False,
            transform=panel.transAxes,
            zorder=4,
        )
    left = max(places) < 0.75
    for i, mark in enumerate(sorted(marks, key=lambda mark: mark.value, reverse=above)):
        down = 1 + i * _LINE * 72
        panel.annotate(
            f"{mark.value:.3g}",
            (max(places) if left else min(places), edge),
            (6 if left else -6, -down if above else down),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left" if left else "right",
            va="top" if above else "bottom",
            fontsize=SMALL,
            color=mark.color,
            zorder=5,
        )


def _spread(frame: Frame) -> list[int]:
    """The values of S, and 2 S for guided cells, without those whose labels would touch."""
    guided = {2 * c.num_steps for c in frame.comparison.cells if c.guidance and not c.costs_more}
    kept: list[int] = []
    for tick in sorted({*frame.comparison.steps, *guided}, reverse=True):
        inside = frame.costs[0] <= tick <= frame.costs[1]
        far = not kept or frame.across(kept[-1]) - frame.across(tick) > _TICKS_APART
        if inside and far:
            kept.append(tick)
    return kept[::-1]
