"""The legend above the panels of a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastdpm.evaluation.report.looks import EDGE, SMALL, WIDTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.lines import Line2D

_COLUMNS = 4
_TOP, _SPACE = 0.05, 0.04  # inches


def draw_legend(figure: Figure, keys: Sequence[Sequence[Line2D]]) -> None:
    """Write the entries at the top, each kind in lines of its own."""
    top = _TOP
    for entries in filter(None, keys):
        legend, height = _fitting(figure, entries, top)
        figure.add_artist(legend)
        top += height + _SPACE


def legend_height(keys: Sequence[Sequence[Line2D]]) -> float:
    """Inches that :func:`draw_legend` needs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1))
    return _TOP + sum(_fitting(figure, entries, 0)[1] + _SPACE for entries in filter(None, keys))


def _fitting(figure: Figure, entries: Sequence[Line2D], top: float) -> tuple[Legend, float]:
    """A legend with as many columns as fit, up to four, and its height in inches."""
    for columns in range(min(_COLUMNS, len(entries)), 0, -1):
        legend = _legend(figure, entries, columns, top)
        size = legend.get_window_extent()
        if size.width / figure.dpi <= WIDTH - EDGE:
            break
    return legend, size.height / figure.dpi


def _legend(figure: Figure, entries: Sequence[Line2D], columns: int, top: float) -> Legend:
    from matplotlib.legend import Legend

    return Legend(
        figure,
        list(entries),
        [str(entry.get_label()) for entry in entries],
        loc="upper left",
        bbox_to_anchor=(EDGE / WIDTH, 1 - top / figure.get_figheight()),
        ncols=columns,
        fontsize=SMALL + 0.5,
        frameon=False,
        borderaxespad=0,
        borderpad=0,
        labelspacing=0.4,
        handlelength=2.6,
        columnspacing=1.4,
    )
