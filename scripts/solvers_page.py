"""The part of the results page on all samplers and spacings, from scripts/solvers.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import searched

from fastdpm.evaluation.results import Comparison

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
    return searched.section(_HEAD, _part, {n: results / f"{n}-solvers.json" for n in names})


def _part(name: str, record: dict[str, Any], comparison: Comparison) -> str:
    metric, lines = comparison.primary, []
    held = 0
    for num_steps in comparison.steps:
        ours = searched.best(comparison, metric, num_steps, lambda c: c.family != _THEIRS)
        theirs = searched.best(comparison, metric, num_steps, lambda c: c.family == _THEIRS)
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
