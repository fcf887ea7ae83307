"""The figure of a recommendation: quality against network evaluations, with the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastdpm.evaluation.recommendation import Recommendation
from fastdpm.evaluation.report.figures import Sheet
from fastdpm.evaluation.report.looks import INK, NORMAL, SMALL, SOFT, WIDTH, escaped
from fastdpm.evaluation.report.panels import Frame, draw_levels, set_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _RIGHT, _TITLE, _HIGH, _BELOW = 0.6, 0.12, 0.32, 3.3, 0.6
_LINE = 0.2  # of the list, in inches
_FRONT, _CHOSEN = "#0072B2", "#D55E00"


def front_figure(found: Recommendation) -> Figure:
    """All cells as gray points, the Pareto front with numbers, and a list of what these are."""
    comparison = found.comparison
    frame = Frame.of(comparison, comparison.primary, _HIGH)
    listed = _TITLE + _HIGH + _BELOW
    sheet = Sheet(listed + _LINE * (len(found.front) + 0.5))
    sheet.write(frame, 0)
    panel = sheet.panel(_LEFT, _TITLE, WIDTH - _LEFT - _RIGHT, _HIGH)
    set_axes(panel, frame)
    draw_levels(panel, frame)
    _draw_wish(panel, found)
    _draw_points(panel, found, frame)
    sheet.write_below((_LEFT + WIDTH - _RIGHT) / 2, comparison.n, top=listed - 0.15)
    for number, cell in enumerate(found.front, 1):
        mark = ", recommended" if cell.id == found.cell.id else ""
        text = f"{number}  {cell.cost}: {found.score_of(cell).text}, {cell.name}{mark}"
        color = _CHOSEN if mark else INK
        top = 1 - (listed + _LINE * (number - 0.5)) / sheet.height
        sheet.figure.text(_LEFT / WIDTH, top, escaped(text), fontsize=NORMAL, color=color)
    return sheet.figure


def _draw_points(panel: Axes, found: Recommendation, frame: Frame) -> None:
    key = frame.metric.key
    for cell in frame.cells:
        score = cell.scores[key]
        if frame.scale.holds(score.value):
            panel.errorbar(
                cell.num_evaluations, score.value, score.spread, fmt="o", color=SOFT, ms=3, lw=0.8
            )
    front = [cell for cell in found.front if not cell.takes_all_steps]
    costs = [cell.num_evaluations for cell in front]
    values = [found.score_of(cell).value for cell in front]
    panel.plot(costs, values, color=_FRONT, lw=1.2, zorder=3)
    for number, cell in enumerate(front, 1):
        at = (cell.num_evaluations, found.score_of(cell).value)
        color = _CHOSEN if cell.id == found.cell.id else _FRONT
        panel.plot(*at, "o", ms=11, color=color, zorder=4)
        style = {"ha": "center", "va": "center_baseline", "fontsize": SMALL, "color": "white"}
        panel.text(*at, str(number), zorder=5, **style)  # type: ignore[arg-type]


def _draw_wish(panel: Axes, found: Recommendation) -> None:
    """The budget or the quality that was set, as a line."""
    if found.budget is not None:
        panel.axvline(found.budget, color=SOFT, lw=1, ls=":")
    if found.quality is not None:
        panel.axhline(found.quality, color=SOFT, lw=1, ls=":")
