"""A picture of a comparison: the primary metric against network evaluations.

Nothing that a user named is written into a picture, so that any name can be given to a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdpm.evaluation.results import Cell, Comparison, Row
from fastdpm.evaluation.scores import Metric, Score
from fastdpm.output.figures import save_figure, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAMILY_TITLES = {
    "paper": "FastDPM: levels by VAR or STEP",
    "multistep": "Multistep plans",
    "diffusers": "Samplers of diffusers",
}
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#56B4E9", "#8B4513", "#332288"),
    *("#E7298A", "#44AA99"),
)
_STYLES = {
    "VAR linear": ("-", "o", True),
    "VAR quadratic": ("-", "s", False),
    "STEP linear": ("--", "o", True),
    "STEP quadratic": ("--", "s", False),
    "leading": ("-", "o", True),
    "linspace": ("--", "s", False),
    "trailing": (":", "^", True),
}
_MORE_STYLES = (("-.", "D", True), ("-.", "v", False), (":", "P", True), (":", "X", False))
_GREY = "#777777"
_LEAST_RATIO_FOR_LOG = 4.0


def write_distance(path: Path, comparison: Comparison) -> None:
    """Draw the primary metric against network evaluations, a panel for each family of methods.

    Colour tells the group, line and marker tell the choice; error bars are one standard error.
    """
    families = comparison.families or ("",)
    heights = [_panel_height(comparison, family) for family in families]
    figure, axes = subplots(len(families), 1, (9.6, sum(heights)))
    if (grid := axes[0][0].get_gridspec()) is not None:
        grid.set_height_ratios(heights)
    for family, (panel,) in zip(families, axes, strict=True):
        rows = [row for row in comparison.rows if row.family == family]
        _draw_references(panel, comparison)
        if len(families) > 1:
            _draw_envelope(panel, comparison)
        drawn = _draw_rows(panel, rows, comparison.primary)
        _set_scale(panel, comparison, rows)
        _set_evaluations(panel, comparison)
        panel.set_title(FAMILY_TITLES.get(family, family), loc="left", fontsize="medium")
        if not drawn:
            panel.text(0.5, 0.5, "nothing was measured", ha="center", transform=panel.transAxes)
        _legend(panel, rows)
    axes[-1][0].set_xlabel("network evaluations per sample")
    save_figure(figure, path)


def _panel_height(comparison: Comparison, family: str) -> float:
    rows = [row for row in comparison.rows if row.family == family]
    entries = len({row.group for row in rows}) + len({row.choice for row in rows})
    return max(4.2, 0.22 * (entries + len(comparison.references) + 4) + 0.8)


def _set_scale(panel: Axes, comparison: Comparison, rows: Sequence[Row]) -> None:
    """Take in all that the panel shows, with logarithms where they are needed to see it."""
    from matplotlib.ticker import LogLocator, NullFormatter

    metric, key = comparison.primary, comparison.primary.key
    panel.set_ylabel(f"{metric.name}\n({metric.direction})")
    panel.grid(color="#dddddd", linewidth=0.6, which="major")
    points = [cell for row in rows for cell in _measured(row.cells.values(), key)]
    cells = [*points, *comparison.references, *comparison.best_cells]
    scores = [cell.scores[key] for cell in cells if key in cell.scores]
    if comparison.drawn_floor is not None:
        scores.append(comparison.drawn_floor)
    if not scores:
        return
    low, high = (limit(score.value for score in scores) for limit in (min, max))
    if low > 0 and high > _LEAST_RATIO_FOR_LOG * low:
        panel.set_yscale("log", nonpositive="clip")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.yaxis.set_minor_formatter(NullFormatter())
        # An error as large as its value would reach down without end.
        low = min(max(s.value - s.spread, s.value / 2.5) for s in scores)
        high = max(min(s.value + s.spread, s.value * 2.5) for s in scores)
        panel.set_ylim(low / 1.2, high * 1.2)
        return
    low = min(s.value - s.spread for s in scores)
    high = max(s.value + s.spread for s in scores)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    panel.set_ylim(low - margin, high + margin)


def _draw_rows(panel: Axes, rows: Sequence[Row], metric: Metric) -> bool:
    colours, styles = _colours(rows), _styles(rows)
    drawn = False
    for row in rows:
        cells = _measured(row.cells.values(), metric.key)
        if not cells:
            continue
        line, marker, filled = styles[row.choice]
        colour = colours[row.group]
        panel.errorbar(
            [cell.num_evaluations for cell in cells],
            [cell.scores[metric.key].value for cell in cells],
            yerr=[cell.scores[metric.key].spread for cell in cells],
            color=colour,
            linestyle=line,
            marker=marker,
            markerfacecolor=colour if filled else "white",
            markersize=5,
            linewidth=1.3,
            elinewidth=1,
            capsize=2.5,
        )
        drawn = True
    return drawn


def _set_evaluations(panel: Axes, comparison: Comparison) -> None:
    """One horizontal scale for all panels, with a tick at every S."""
    from matplotlib.ticker import NullLocator

    cells = [cell for row in comparison.rows for cell in row.cells.values()]
    costs = [cell.num_evaluations for cell in _measured(cells, comparison.primary.key)]
    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xticks(comparison.steps, [str(tick) for tick in comparison.steps])
    if costs:
        panel.set_xlim(min(costs) / 1.1, max(costs) * 1.1)


def _measured(cells: Iterable[Cell], key: str) -> list[Cell]:
    """Those that can be drawn, by their evaluations."""
    drawn = [cell for cell in cells if key in cell.scores and cell.num_evaluations > 0]
    return sorted(drawn, key=lambda cell: cell.num_evaluations)


def _draw_envelope(panel: Axes, comparison: Comparison) -> None:
    """The best cell of each column, whatever its family: what a panel is to be compared with."""
    metric = comparison.primary
    best = sorted(comparison.best_cells, key=lambda cell: cell.num_evaluations)
    panel.plot(
        [cell.num_evaluations for cell in best],
        [cell.scores[metric.key].value for cell in best],
        color="#bbbbbb",
        linewidth=6,
        solid_capstyle="round",
        zorder=0.5,
        label="best of all panels",
    )


def _draw_references(panel: Axes, comparison: Comparison) -> None:
    metric = comparison.primary
    for cell, line in zip(comparison.references, ("-", "-.", ":"), strict=False):
        if metric.key in cell.scores:
            name = f"{cell.name},\n{cell.cost}"
            _draw_level(panel, cell.scores[metric.key], "black", line, name)
    floor, score = comparison.floor, comparison.drawn_floor
    if floor is not None and score is not None:
        _draw_level(panel, score, _GREY, "--", f"real data:\n{floor.label}")


def _draw_level(panel: Axes, score: Score, colour: str, line: str, label: str) -> None:
    error = score.spread
    panel.axhspan(score.value - error, score.value + error, color=colour, alpha=0.13, linewidth=0)
    panel.axhline(
        score.value, color=colour, linestyle=line, linewidth=1.1, label=label.replace("$", r"\$")
    )


def _legend(panel: Axes, rows: Sequence[Row]) -> None:
    """Two keys in one: colours are groups, lines and markers are choices."""
    from matplotlib.lines import Line2D

    def key(label: str, **style: Any) -> Line2D:
        return Line2D([], [], label=label.replace("$", r"\$"), **style)

    entries = [key(group, color=c, linewidth=4) for group, c in _colours(rows).items()]
    for choice, (line, marker, filled) in _styles(rows).items():
        if choice:
            face = _GREY if filled else "white"
            style = {"linestyle": line, "marker": marker, "markerfacecolor": face}
            entries.append(key(choice, color=_GREY, markersize=5, **style))
    handles, _ = panel.get_legend_handles_labels()
    panel.legend(
        handles=[*entries, *handles],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0,
        fontsize="small",
        frameon=False,
        handlelength=3.2,
    )


def _colours(rows: Sequence[Row]) -> dict[str, str]:
    groups = dict.fromkeys(row.group for row in rows)
    return {group: _COLOURS[i % len(_COLOURS)] for i, group in enumerate(groups)}


def _styles(rows: Sequence[Row]) -> dict[str, tuple[str, str, bool]]:
    choices = list(dict.fromkeys(row.choice for row in rows))
    others = [choice for choice in choices if choice not in _STYLES and choice]
    more = {choice: _MORE_STYLES[i % len(_MORE_STYLES)] for i, choice in enumerate(others)}
    return {
        choice: _STYLES.get(choice) or more.get(choice, ("-", "o", True)) for choice in choices
    }
