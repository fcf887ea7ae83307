"""The part of the results page on tuned plans, from scripts/tuned.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import searched

from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Metric

_TUNED = "tuned"
_HEAD = """## Tuned plans

Plans that `fastdpm tune` learned for our models ([Tuned plans](tuning.md)), beside the best
untrained ones with as many network evaluations S and with 2 S: ours and diffusers', the finalists
of [the search above](#every-sampler-and-spacing). All samples are drawn with seed 1, and plans are
learned from other noises. A Fréchet distance on few samples rewards a set that looks right as a
whole, and it does not punish blur: read it together with precision (how real single samples are),
recall (how much of the data they cover), the variance of the samples, and the distance to the
samples that the teacher draws from the same noises. The last two are shares of the teacher's
variance and of its standard deviation.
"""


def section(results: Path, names: list[str]) -> str:
    """The tables of the models that are measured; empty without any."""

    def part(name: str, record: dict[str, Any], comparison: Comparison) -> str:
        return _part(results / f"{name}-tuned.png", name, record, comparison)

    return searched.section(_HEAD, part, {n: results / f"{n}-tuned.json" for n in names})


def _part(picture: Path, name: str, record: dict[str, Any], comparison: Comparison) -> str:
    lines = [f"### {name}: tuned plans\n", *_scores(comparison, record["records"])]
    if record["looks"]:
        lines += ["", *_looks(comparison, record["looks"])]
    lines += ["", *_costs(record["records"])]
    if picture.is_file():
        lines += ["", f"![Samples of the same seeds](results/{name}-tuned.png)"]
    return "\n".join([*lines, f"\n    {record['command']}\n"])


def _scores(comparison: Comparison, records: dict[str, dict[str, Any]]) -> list[str]:
    """The first metric of each tuning, and of the peers at S and at 2 S."""
    metric = comparison.primary
    repeats = len(records) > 1
    head = ["S", "tuned", *(["all tunings"] if repeats else []), "best at S", "best at 2 S"]
    lines = [
        f"{metric.name}, {metric.direction}, n = {comparison.n:,}. The last column is the"
        " difference between the tuned plan and the best at 2 S.\n",
        f"| {' | '.join([*head, 'difference'])} |",
        "| --- " * (len(head) + 1) + "|",
    ]
    for num_steps in sorted(map(int, records[_TUNED])):
        tuned = _cell(comparison, _TUNED, num_steps)
        peers = [_peer(comparison, metric, count) for count in (num_steps, 2 * num_steps)]
        cells = [str(num_steps), tuned.scores[metric.key].text]
        if repeats:
            all_of_them = [_cell(comparison, key, num_steps) for key in records]
            values = [cell.scores[metric.key].value for cell in all_of_them]
            cells.append(", ".join(f"{value:.3f}" for value in values))
        cells += [f"{c.scores[metric.key].text} ({c.name})" if c else "-" for c in peers]
        difference = peers[1] and comparison.difference(tuned, peers[1], metric)
        cells.append(difference.text if difference else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _looks(comparison: Comparison, looks: dict[str, dict[str, float]]) -> list[str]:
    """Precision, recall, variance and the distance to the teacher, of the same cells."""
    metric = comparison.primary
    others = [m for m in comparison.metrics if m.key in ("precision", "recall")]
    head = ["S", "method", *(m.key for m in others), "variance", "distance to the teacher"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for num_steps in comparison.steps:
        tuned = [c for c in comparison.cells if (c.method, c.num_steps) == (_TUNED, num_steps)]
        peer = _peer(comparison, metric, num_steps)
        for cell in [*tuned, *([peer] if peer else [])]:
            look = looks.get(f"{cell.method} {num_steps}")
            if look is None:
                continue
            scores = [cell.scores[m.key].text for m in others]
            values = [f"{look[key]:.3f}" for key in ("variance", "distance")]
            lines.append(f"| {' | '.join([str(num_steps), cell.name, *scores, *values])} |")
    return lines


def _costs(records: dict[str, dict[str, Any]]) -> list[str]:
    """What the first tuning took."""
    lines = ["| S | stage used | evaluations | of the teacher |", "| --- " * 4 + "|"]
    for num_steps, record in sorted(records[_TUNED].items(), key=lambda item: int(item[0])):
        cells = [record["evaluations"], record["teacher"]["evaluations"]]
        shown = " | ".join(f"{count:,}" for count in cells)
        lines.append(f"| {num_steps} | {record['chosen']} | {shown} |")
    return lines


def _cell(comparison: Comparison, method: str, num_steps: int) -> Cell:
    cells = comparison.cells
    return next(c for c in cells if (c.method, c.num_steps) == (method, num_steps))


def _peer(comparison: Comparison, metric: Metric, num_steps: int) -> Cell | None:
    """The best untrained plan of S evaluations."""
    return searched.best(
        comparison, metric, num_steps, lambda cell: not cell.method.startswith(_TUNED)
    )
