"""The part of the results page on all samplers and spacings, from scripts/solvers.py."""

from __future__ import annotations

import json
from pathlib import Path

from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Metric

_THEIRS = "diffusers"
_HEAD = """## Every sampler and spacing

For each S, all of our samplers over all choices of levels were screened in rounds with seed 0, and
so were diffusers' samplers with all of their spacings. Three finalists of each side were measured
with seed 1, so the luck of the screening does not count; that among the three finalists does, on
both sides alike.
*Difference* is ours minus diffusers', with the standard error of the difference of samples that
share their seeds.
"""


def section(results: Path, names: list[str]) -> str:
    """The tables of the models that are measured; empty without any."""
    found = [part for name in names if (part := _part(results, name))]
    return "\n".join([_HEAD, *found]) if found else ""


def _part(results: Path, name: str) -> str:
    path = results / f"{name}-solvers.json"
    if not path.is_file():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    comparison = Comparison.from_dict(record["comparison"])
    metric, lines = comparison.primary, []
    held = 0
    for num_steps in comparison.steps:
        ours = _best(comparison, metric, num_steps, theirs=False)
        theirs = _best(comparison, metric, num_steps, theirs=True)
        if ours is None or theirs is None:
            continue
        difference = comparison.difference(ours, theirs, metric)
        if difference is None:
            continue
        sign = 1 if metric.lower_is_better else -1
        held += sign * difference.value <= difference.spread
        cells = (f"{c.scores[metric.key].text} ({c.name})" for c in (ours, theirs))
        lines.append(f"| {num_steps} | {' | '.join(cells)} | {difference.text} |")
    plans = {side: sum(s[side] for s in record["screened"].values()) for side in ("ours", _THEIRS)}
    return "\n".join(
        [
            f"### {name}: all samplers\n",
            f"{metric.name}, {metric.direction}, n = {comparison.n:,}; screened with up to"
            f" {record['screen_n']:,} samples: {plans['ours']:,} plans of ours and"
            f" {plans[_THEIRS]:,} of diffusers, over all S.\n",
            f"![Quality against network evaluations](results/{name}-solvers.png)\n",
            "| S | ours | diffusers | difference |",
            "| --- | --- | --- | --- |",
            *lines,
            "",
            f"Ours is at most one standard error above diffusers' at {held} of {len(lines)} values"
            f" of S.\n\n    {record['command']}\n",
        ]
    )


def _best(comparison: Comparison, metric: Metric, num_steps: int, *, theirs: bool) -> Cell | None:
    """The best cell of a side with at most S evaluations."""
    cells = [
        cell
        for cell in comparison.cells
        if cell.num_steps == num_steps
        and metric.key in cell.scores
        and (cell.family == _THEIRS) == theirs
        and not cell.costs_more
    ]
    sign = 1 if metric.lower_is_better else -1
    return min(cells, key=lambda cell: sign * cell.scores[metric.key].value, default=None)
