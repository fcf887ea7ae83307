"""Labels beside a panel, each at the end of its curve and none on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastdpm.evaluation.cells import Row
from fastdpm.evaluation.report.looks import SMALL, Look, escaped
from fastdpm.evaluation.report.panels import Frame, measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = SMALL + 0.5
_LINE, _SPACE = 0.15, 0.05  # inches
_LEADER = 0.3
_LONG = 26  # characters


@dataclass(frozen=True)
class _Label:
    text: str
    color: str
    end: tuple[float, float]  # of the curve, as parts of the panel

    @property
    def height(self) -> float:
        return _LINE * (1 + self.text.count("\n")) + _SPACE


def label_width(figure: Figure, rows: Sequence[Row], frame: Frame) -> float:
    """Inches that labels take up beside a panel."""
    widths = [0.0]
    for text in [*(row.name for row in rows), *(level.name for level in frame.levels)]:
        drawn = figure.text(0, 0, _wrapped(text), fontsize=_SIZE)
        widths.append(drawn.get_window_extent().width / figure.dpi)
        drawn.remove()
    return max(widths) + _LEADER + 0.1


def draw_labels(
    panel: Axes,
    frame: Frame,
    rows: Sequence[Row],
    looks: Sequence[Look],
    size: tuple[float, float],
) -> None:
    """Write the names of curves and lines at the right of a panel of ``size`` inches."""
    labels = []
    for row, look in zip(rows, looks, strict=True):
        cells = measured(row.cells.values(), frame.metric)
        if cells:
            value = cells[-1].scores[frame.metric.key].value
            end = frame.across(cells[-1].num_evaluations), _inside(frame.scale.place(value))
            labels.append(_Label(_wrapped(row.name), look.color, end))
    for level in frame.levels:
        if frame.scale.holds(level.score.value):
            end = 1.0, frame.scale.place(level.score.value)
            labels.append(_Label(_wrapped(level.name), level.color, end))
    labels.sort(key=lambda label: label.end[1])
    width, height = size
    places = apart([v.end[1] * height for v in labels], [v.height for v in labels], height)
    for label, place in zip(labels, places, strict=True):
        x = [label.end[0], 1 + 0.06 / width, 1 + (_LEADER - 0.05) / width]
        y = [label.end[1], label.end[1], place / height]
        panel.plot(x, y, lw=0.7, color=label.color, alpha=0.6, clip_on=False,
                   transform=panel.transAxes, zorder=2)  # fmt: skip
        panel.text(
            1 + _LEADER / width,
            place / height,
            label.text,
            va="center",
            fontsize=_SIZE,
            color=label.color,
            linespacing=1.1,
            transform=panel.transAxes,
        )


def apart(wanted: Sequence[float], heights: Sequence[float], room: float) -> list[float]:
    """Centers near the wanted ones, rising, so that parts of these heights do not overlap.

    Blocks of touching parts are centered on what their parts want, and kept between 0 and
    ``room`` if they fit.
    """
    blocks: list[list[int]] = []

    def start(block: Sequence[int]) -> float:
        whole = sum(heights[i] for i in block)
        offset, total = 0.0, 0.0
        for i in block:
            total += wanted[i] - offset - heights[i] / 2
            offset += heights[i]
        return max(0.0, min(total / len(block), room - whole))

    for i in range(len(wanted)):
        block = [i]
        while blocks and start(blocks[-1]) + sum(heights[j] for j in blocks[-1]) > start(block):
            block = blocks.pop() + block
        blocks.append(block)
    places = []
    for block in blocks:
        at = start(block)
        for i in block:
            places.append(at + heights[i] / 2)
            at += heights[i]
    return places


def _inside(part: float) -> float:
    return min(1.0, max(0.0, part))


def _wrapped(text: str) -> str:
    """A long name on two lines, broken after its first comma."""
    return escaped(text.replace(", ", ",\n", 1) if len(text) > _LONG else text)
