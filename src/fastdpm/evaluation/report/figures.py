"""Figures of a comparison: metrics against network evaluations.

Sizes are in inches: a page shows a figure of 8 inches as about 800 pixels. Nothing that a user
named is written into a figure, so that a model can have any name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdpm.evaluation.report.labels import draw_labels, label_width
from fastdpm.evaluation.report.legend import draw_legend, legend_height
from fastdpm.evaluation.report.looks import (
    BEHIND,
    EDGE,
    ENVELOPE,
    INK,
    NORMAL,
    WIDTH,
    Look,
    escaped,
    looks_by_choice,
    looks_by_row,
)
from fastdpm.evaluation.report.panels import (
    Frame,
    draw_behind,
    draw_curves,
    draw_levels,
    set_axes,
)
from fastdpm.evaluation.results import Comparison
from fastdpm.output.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MAX_LABELED = 6
_LEFT, _RIGHT, _BOTTOM, _TITLE = 0.6, 0.12, 0.22, 0.32
_ONE_PANEL, _GAP = 3.3, 0.18
_PANEL_HEAD, _TICK_LABELS = 0.25, 0.27
_ACROSS = "network evaluations per sample"


def write_distance(path: Path, comparison: Comparison) -> None:
    """Draw every metric of a comparison against network evaluations.

    Args:
        path: A .png, .pdf or .svg file.
        comparison: What to show; see :meth:`Comparison.select`.

    Raises:
        InvalidArgumentError: If the file has another suffix.
    """
    save_figure(distance_figure(comparison), path)


def distance_figure(comparison: Comparison) -> Figure:
    """All metrics below one another: one panel each for few curves, one per group for many."""
    few = len(comparison.rows) <= MAX_LABELED
    return _labeled_figure(comparison) if few else _grouped_figure(comparison)


def _labeled_figure(comparison: Comparison) -> Figure:
    """A panel per metric, with a label at the end of each curve."""
    rows = comparison.rows
    looks = looks_by_row(rows, comparison.listed)
    block = _TITLE + _ONE_PANEL + _TICK_LABELS
    frames = [Frame.of(comparison, metric, _ONE_PANEL) for metric in comparison.metrics]
    sheet = Sheet(len(frames) * block + _BOTTOM)
    right = max(label_width(sheet.figure, rows, frame) for frame in frames)
    for i, frame in enumerate(frames):
        wide = WIDTH - _LEFT - right
        panel = sheet.panel(_LEFT, i * block + _TITLE, wide, _ONE_PANEL)
        sheet.write(frame, i * block)
        set_axes(panel, frame)
        draw_levels(panel, frame)
        if not draw_curves(panel, frame, rows, looks) and rows:
            _write_nothing(panel)
        draw_labels(panel, frame, rows, looks, (wide, _ONE_PANEL))
    if rows:  # lines alone say their evaluations in their labels
        sheet.write_below(_LEFT + wide / 2, comparison.n)
    return sheet.figure


def _grouped_figure(comparison: Comparison) -> Figure:
    """For each metric a panel per group, over all other curves in gray; one legend above."""
    groups = list(dict.fromkeys(row.group for row in comparison.rows))
    looks = looks_by_choice(row.choice for row in comparison.rows)
    columns = {1: 1, 2: 2, 4: 2}.get(len(groups), 3)
    high = {1: _ONE_PANEL, 2: 2.5, 3: 1.75}[columns]
    frames = [Frame.of(comparison, metric, high) for metric in comparison.metrics]
    lines = math.ceil(len(groups) / columns)
    keys = [_choice_keys(looks), _level_keys(frames)]
    legend = legend_height(keys)
    block = _TITLE + lines * (high + _PANEL_HEAD) + _TICK_LABELS
    sheet = Sheet(legend + len(frames) * block + _BOTTOM)
    draw_legend(sheet.figure, keys)
    for i, frame in enumerate(frames):
        sheet.write(frame, legend + i * block)
        wide = (WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns
        for j, group in enumerate(groups):
            line, column = divmod(j, columns)
            top = legend + i * block + _TITLE + _PANEL_HEAD + line * (high + _PANEL_HEAD)
            panel = sheet.panel(_LEFT + column * (wide + _GAP), top, wide, high)
            set_axes(panel, frame, labels=(j + columns >= len(groups), column == 0))
            _draw_group(panel, frame, group, looks)
    sheet.write_below((_LEFT + WIDTH - _RIGHT) / 2, comparison.n)
    return sheet.figure


def _draw_group(panel: Axes, frame: Frame, group: str, looks: Mapping[str, Look]) -> None:
    rows = frame.comparison.rows
    own = [row for row in rows if row.group == group]
    panel.set_title(escaped(group), loc="left", fontsize=NORMAL, color=INK, pad=3)
    draw_behind(panel, frame, [row for row in rows if row.group != group])
    draw_levels(panel, frame)
    if not draw_curves(panel, frame, own, [looks[row.choice] for row in own]):
        _write_nothing(panel)


def _write_nothing(panel: Axes) -> None:
    panel.text(
        0.5,
        0.5,
        "no values",
        ha="center",
        va="center",
        transform=panel.transAxes,
        zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none"},
    )


def _choice_keys(looks: Mapping[str, Look]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    named = {choice: look for choice, look in looks.items() if choice}
    return [Line2D([], [], label=escaped(name), **look.style) for name, look in named.items()]


def _level_keys(frames: Sequence[Frame]) -> list[Line2D]:
    from matplotlib.lines import Line2D

    drawn = [v for f in frames for v in f.levels if f.scale.holds(v.score.value)]
    keys = [
        Line2D([], [], label=escaped(name), linewidth=1, **v.style)
        for name, v in {level.name: level for level in drawn}.items()
    ]
    keys.append(Line2D([], [], color=ENVELOPE, linewidth=4, label="best method at each S"))
    if len({row.group for row in frames[0].comparison.rows}) > 1:
        keys.append(Line2D([], [], color=BEHIND, linewidth=1.5, label="methods of other panels"))
    return keys


class Sheet:
    """A figure whose parts are placed in inches from the top left."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.height = height
        self.figure = Figure(figsize=(WIDTH, height))

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """An empty panel."""
        below = self.height - top - height
        place = (left / WIDTH, below / self.height, width / WIDTH, height / self.height)
        return self.figure.add_axes(place)

    def write(self, frame: Frame, top: float) -> None:
        """The metric, as a heading across the figure."""
        self.figure.text(
            EDGE / WIDTH,
            1 - (top + 0.07) / self.height,
            escaped(frame.title),
            va="top",
            fontsize=NORMAL + 1,
            weight="bold",
            color=INK,
        )

    def write_below(self, middle: float, n: int, top: float | None = None) -> None:
        """The name of the horizontal axis, and what the points and bars are."""
        text = f"{_ACROSS} ({n:,} samples per point, bars: ± 1 standard error)"
        y = 0.08 if top is None else self.height - top
        self.figure.text(
            middle / WIDTH, y / self.height, text, ha="center", fontsize=NORMAL, color=INK
        )
