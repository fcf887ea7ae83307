"""The results page: the findings of the paper, tested on the built-in models.

Reads docs/results/NAME.json, which scripts/results.sh measures; `scripts/generate_docs.py` writes
the page.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import inversion_page
import solvers_page
import tuned_page

from fastdpm.evaluation.report.markdown import markdown
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Metric, Score

RESULTS = Path(__file__).parent.parent / "docs" / "results"
COLOR, IMAGES, SOUNDS, VOCODER = "cifar10", "digits", "spoken-digits", "spoken-digits-vocoder"
MORE = {  # further comparisons of cifar10, and what they show
    "cifar10-kappa": "values of kappa",
    "cifar10-samplers": "other samplers",
    "cifar10-guidance": "guidance",
    "cifar10-float32": "float32",
}
_GUIDED, _FLOAT32 = "cifar10-guidance", "cifar10-float32"
_EXPECTED = {COLOR: "DDIM-rev", IMAGES: "DDIM-rev", SOUNDS: "DDPM-rev", VOCODER: "DDPM-rev"}
_NEITHER = "no difference"
Keep = Callable[[Cell], bool]

_HEAD = """# Results

`scripts/results.sh DATA` measures these results, and `scripts/generate_docs.py` writes this page.

± is one standard error over the drawn samples; the reference is treated as exact. Each table says
where the error comes from. "FD (network)" is a Fréchet distance on that built-in feature
network. It is not an FID, so compare it only within one table. It decreases as the number of
samples increases, so all methods of a table use the same number.

## The findings of the paper, tested on our models

The paper ([Kong & Ping 2021](https://arxiv.org/abs/2106.00132)) uses larger models and more
samples; the models here are the small built-in ones. Each cell shows the best choice of levels, by
the model's first metric. Selecting the best makes both sides look slightly better than they are.
The column "better" names a side if the two differ by more than two standard errors of the
difference. Both sides share their seeds, so much of their errors cancels; where a table does not
keep what this needs, the two errors are treated as independent, which overstates it.
"""


def page() -> str:
    """Return the whole page."""
    measured = [name for name in (COLOR, *MORE) if (RESULTS / f"{name}.json").is_file()]
    color = {name: read(name) for name in measured}
    found = {name: read(name) for name in (IMAGES, SOUNDS, VOCODER)}
    paper = {COLOR: color[COLOR]} | found if COLOR in color else found
    pairs = {name: _reverse_processes(one, _EXPECTED[name]) for name, one in paper.items()}
    choices = {name: _approximations(one) for name, one in paper.items()}
    kappas = {COLOR: _kappas(color["cifar10-kappa"])} if "cifar10-kappa" in color else {}
    findings = {
        "(a, b) DDIM-rev is better on images, DDPM-rev on sound": pairs,
        "(c) VAR is better than STEP at the smallest S": choices,
        "(e) a kappa between 0 and 1 is better than both": kappas,
    }
    parts = [
        _HEAD,
        _in_short(list(paper), findings),
        "### (a) On images, is DDIM-rev better than DDPM-rev at small S?\n",
        *(pairs[name].text for name in (COLOR, IMAGES) if name in pairs),
        "### (b) On sound, is DDPM-rev better than DDIM-rev?\n",
        *(pairs[name].text for name in (SOUNDS, VOCODER)),
        "### (c) Is VAR better than STEP at the smallest S?\n\nThe paper found that it is.\n",
        *(finding.text for finding in choices.values()),
        "### (d) Are fewer steps enough with more conditional information?\n",
        _enough_steps(found[SOUNDS], found[VOCODER]),
        *(finding.text for finding in kappas.values()),
        *([_precisions(color)] if {_GUIDED, _FLOAT32} <= color.keys() else []),
        _errors(),
        inversion_page.section(RESULTS / "inversion.json"),
        solvers_page.section(RESULTS, [COLOR, IMAGES, VOCODER]),
        tuned_page.section(RESULTS, [COLOR, f"{COLOR}-guidance-1.5", IMAGES, SOUNDS, VOCODER]),
        *((_part if name in MORE else _section)(name, part) for name, part in color.items()),
        *(_section(name, comparison) for name, comparison in found.items()),
    ]
    return "\n".join(parts)


class Finding(NamedTuple):
    """What one model shows about a finding of the paper: a table, and one clause."""

    text: str
    verdict: str


def _in_short(names: Sequence[str], findings: Mapping[str, Mapping[str, Finding]]) -> str:
    """The verdicts of all findings, one model a column."""
    lines = _table(["finding of the paper", *(f"`{name}`" for name in names)])
    for finding, found in findings.items():
        if found:
            verdicts = [found[name].verdict if name in found else "-" for name in names]
            lines.append(f"| {finding} | {' | '.join(verdicts)} |")
    return "\n".join([*lines, ""])


def _tally(won: Mapping[str, int], expected: str, unit: str) -> str:
    """How often the expected side, the other side and none of them was better."""
    other = next(side for side in won if side not in (expected, _NEITHER))
    clauses = [f"{side} is better at {won[side]}" for side in (expected, other) if won[side]]
    if won[_NEITHER]:
        clauses.append(f"there is no significant difference at {won[_NEITHER]}")
    clauses[0] += f" of {sum(won.values())} {unit}"
    return ", and ".join(clauses) if len(clauses) < 3 else "{}, {}, and {}".format(*clauses)


def read(name: str) -> Comparison:
    """Read the comparison of a model."""
    text = (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    return Comparison.from_dict(json.loads(text))


def best(comparison: Comparison, num_steps: int, keep: Keep) -> Cell | None:
    """Return the best cell at one S that ``keep`` accepts, by the first metric."""
    metric = comparison.primary
    cells = [
        cell
        for cell in comparison.cells
        if cell.num_steps == num_steps and metric.key in cell.scores and keep(cell)
    ]
    sign = 1 if metric.lower_is_better else -1
    return min(cells, key=lambda cell: sign * cell.scores[metric.key].value, default=None)


def verdict(metric: Metric, a: Score, b: Score) -> int:
    """Return 1 if a is better, -1 if b is, and 0 within two standard errors of the difference."""
    difference = b.minus(a)
    if abs(difference.value) <= 2 * difference.spread:
        return 0
    return 1 if (difference.value > 0) == metric.lower_is_better else -1


def _reverse_processes(comparison: Comparison, expected: str) -> Finding:
    sides = ("DDIM-rev", "DDPM-rev")
    metric = comparison.primary
    lines = [f"`{comparison.model.name}`, {metric.name}, {metric.direction}:", ""]
    lines += _table(["S", *sides, "better"])
    won = dict.fromkeys((*sides, _NEITHER), 0)
    for num_steps in comparison.steps:
        pair = [best(comparison, num_steps, _of_group(side)) for side in sides]
        if row := _row(metric, pair, sides, won):
            lines.append(f"| {num_steps} | {row} |")
    found = _tally(won, expected, "values of S")
    closing = f"The paper found {expected} to be better. Here, {found}."
    return Finding("\n".join([*lines, "", closing, ""]), found)


def _approximations(comparison: Comparison) -> Finding:
    metric, smallest = comparison.primary, comparison.steps[0]
    sides = ("VAR", "STEP")
    lines = [
        f"`{comparison.model.name}` at S = {smallest}, {metric.name}, {metric.direction}:",
        "",
    ]
    lines += _table(["reverse process", *sides, "better"])
    won = dict.fromkeys((*sides, _NEITHER), 0)
    for group in dict.fromkeys(c.group for c in comparison.cells if c.family == "paper"):
        pair = [best(comparison, smallest, _of_group(group, side)) for side in sides]
        if row := _row(metric, pair, sides, won):
            lines.append(f"| {group} | {row} |")
    found = _tally(won, "VAR", "reverse processes")
    return Finding("\n".join([*lines, "", f"Here, {found}.", ""]), found)


def _row(
    metric: Metric, pair: Sequence[Cell | None], sides: Sequence[str], won: dict[str, int]
) -> str:
    """Two cells and the better one, which is counted in ``won``; empty if one is missing."""
    cells = [cell for cell in pair if cell is not None]
    if len(cells) < 2:
        return ""
    scores = [cell.scores[metric.key] for cell in cells]
    better = {1: sides[0], -1: sides[1], 0: _NEITHER}[verdict(metric, *scores)]
    won[better] += 1
    return " | ".join(
        [*(f"{cell.scores[metric.key].text} ({cell.choice})" for cell in cells), better]
    )


def _enough_steps(free: Comparison, conditioned: Comparison) -> str:
    lines = [
        "The paper found that they are. The table shows the value of the best method of the paper"
        " at each S, divided by that of the standard sampler with all T steps (which has its own"
        " number of samples). If fewer steps are enough for the vocoder, its numbers are closer"
        " to 1 than those of the unconditional model. The metrics differ, so compare trends only.",
        "",
    ]
    steps = sorted({*free.steps} & {*conditioned.steps})
    lines += _table(["model", "metric", "T steps", *(f"S = {s}" for s in steps)])
    for comparison in (free, conditioned):
        metrics = comparison.metrics if comparison is conditioned else comparison.metrics[:1]
        for metric in metrics:
            reference = next(iter(comparison.references), None)
            if reference is None or metric.key not in reference.scores:
                continue
            at = reference.scores[metric.key]
            ratios = [_ratio(comparison, metric, s, at) for s in steps]
            lines.append(
                f"| `{comparison.model.name}` | {metric.name}, {metric.direction} |"
                f" {at.text} (n = {reference.n}) | {' | '.join(ratios)} |"
            )
    return "\n".join([*lines, ""])


def _kappas(comparison: Comparison) -> Finding:
    """Whether a value of kappa between 0 and 1 is better than both."""
    metric = comparison.primary
    groups = list(dict.fromkeys(cell.group for cell in comparison.cells))
    lines = [
        "### (e) Is a kappa between 0 and 1 better than both?",
        "",
        f"`{comparison.model.name}`, n = {comparison.n:,}, {metric.name}, {metric.direction}:",
        "",
    ]
    lines += _table(["S", *groups, "best kappa between 0 and 1"])
    verdicts = []
    for num_steps in comparison.steps:
        cells = {group: best(comparison, num_steps, _of_group(group)) for group in groups}
        known = {group: cell for group, cell in cells.items() if cell is not None}
        if len(known) < len(groups):
            continue
        scores = {group: cell.scores[metric.key] for group, cell in known.items()}
        ends = [scores[group] for group in ("DDIM-rev", "DDPM-rev")]
        between = [scores[group] for group in groups if "kappa" in group]
        sign = 1 if metric.lower_is_better else -1
        middle = min(between, key=lambda score: sign * score.value)
        signs = [verdict(metric, middle, end) for end in ends]
        found = {1: "better than both", -1: "worse than one of them"}.get(min(signs), "not better")
        shown = (f"{scores[group].text} ({known[group].choice})" for group in groups)
        lines.append(f"| {num_steps} | {' | '.join(shown)} | {found} |")
        verdicts.append(f"S = {num_steps}: {found}")
    return Finding("\n".join([*lines, ""]), "; ".join(verdicts))


def _precisions(color: Mapping[str, Comparison]) -> str:
    """What bf16 changes: the same samples in both precisions."""
    half, whole = color[_GUIDED], color[_FLOAT32]
    metric = whole.primary
    lines = [
        "### Does bf16 change the results?",
        "",
        f"`{COLOR}`, S = {whole.steps[0]}, n = {whole.n:,}, the same seeds, {metric.name},"
        f" {metric.direction}:",
        "",
    ]
    lines += _table(["method", "float32", "bf16", "bf16 - float32"])
    for cell in whole.cells:
        same = (cell.method, cell.num_steps, cell.n, cell.guidance)
        twin = next(
            (c for c in half.cells if (c.method, c.num_steps, c.n, c.guidance) == same), None
        )
        if twin is not None:
            exact, rounded = (one.scores[metric.key] for one in (cell, twin))
            change = rounded.minus(exact).text
            lines.append(f"| {cell.name} | {exact.text} | {rounded.text} | {change} |")
    return "\n".join([*lines, ""])


def _ratio(comparison: Comparison, metric: Metric, num_steps: int, at: Score) -> str:
    pick = min if metric.lower_is_better else max
    values = [
        cell.scores[metric.key].value
        for cell in comparison.cells
        if cell.num_steps == num_steps and cell.family == "paper" and metric.key in cell.scores
    ]
    return f"{pick(values) / at.value:.2f}" if values else "-"


def _errors() -> str:
    rows = json.loads((RESULTS / "errors.json").read_text(encoding="utf-8"))
    ratios = [row["ratio"] for row in rows]
    lines = [
        "## Are the standard errors right?",
        "",
        f"Each model was drawn with {rows[0]['seeds']} seeds and two recipes, DDIM-rev and"
        " DDPM-rev. *Spread* is the standard deviation over the seeds; *stated* is the root mean"
        " square of the standard errors that the runs state. *Difference* is that of the two"
        " recipes, whose samples share their seeds. `labeled-digits` is a network with class"
        " labels, where sample i is of class i mod 10. Over all rows, the ratio of stated to"
        f" spread is {min(ratios):.2f} to {max(ratios):.2f}. The spread itself is known to"
        f" {1 / math.sqrt(2 * (rows[0]['seeds'] - 1)):.0%}.",
        "",
    ]
    lines += _table(["model", "S", "n", "metric", "of", "spread", "stated", "ratio"])
    lines += [
        f"| `{row['model']}` | {row['num_steps']} | {row['n']} | {row['metric']} | {row['of']} |"
        f" {row['spread']:.3g} | {row['stated']:.3g} | {row['ratio']:.2f} |"
        for row in rows
    ]
    return "\n".join([*lines, "", "Reproduce with `python scripts/error_spread.py`.", ""])


def _section(name: str, comparison: Comparison) -> str:
    body = markdown(comparison).split("\n", 1)[1].replace("\n## ", "\n### ")
    return (
        f"## {name}\n\n![Distance against network evaluations](results/{name}-distance.png)\n\n"
        f"![Samples of the same seeds](results/{name}-samples.png)\n{body}"
    )


def _part(name: str, comparison: Comparison) -> str:
    """A further comparison of a model: its first table, and the command."""
    return (
        f"## {comparison.model.name}: {MORE[name]}\n\n{comparison.primary.name},"
        f" {comparison.primary.direction}, n = {comparison.n:,}, {comparison.precision}.\n\n"
        f"![Distance against network evaluations](results/{name}-distance.png)\n\n"
        f"{comparison.table()}\n\n"
        f"    {comparison.command}\n"
    )


def _of_group(group: str, approximation: str = "") -> Keep:
    return lambda cell: cell.group == group and cell.choice.startswith(approximation)


def _table(names: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(names)} |", f"| {' | '.join(['---'] * len(names))} |"]
