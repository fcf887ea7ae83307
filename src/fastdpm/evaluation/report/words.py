"""What a comparison found and how it was measured, in plain sentences."""

from __future__ import annotations

from fastdpm.evaluation.results import TIED, Cell, Comparison

_ERROR_MEANS = (
    "± is one standard error over the samples, the reference taken as it is: a jackknife over"
    " twentieths, for kernel distances the spread over blocks, for pairs that over pairs"
)


def summary(comparison: Comparison) -> list[str]:
    """What was found, in plain sentences, by the primary metric."""
    metric = comparison.primary
    sentences = [_sentence_of_best(comparison, cell) for cell in comparison.best_cells]
    sentences = sentences or [f"No few-step method has a {metric.name}."]
    reference = comparison.reference(metric)
    if reference is not None:
        at = reference.scores[metric.key].text
        sentences.append(f"The {reference.name} is at {at} with {reference.cost}.")
    floor, real = comparison.floor, comparison.floor_score(metric)
    if floor is not None and real is not None:
        sentences.append(f"Real data scored the same way ({floor.label}) are at {real.text}.")
    sentences += _warnings(comparison)
    return sentences


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """What was measured and how, as names and values."""
    model = comparison.model
    checksum = (model.weights_sha256 or "")[:12]
    rate = f" at {model.sample_rate:,} Hz" if model.sample_rate else ""
    of = f"{model.modality}{rate}, T = {model.T:,}"
    named = [
        ("Model", f"{model.name} ({of})"),
        ("Weights", f"SHA-256 {checksum}…" if checksum else "not recorded"),
        ("Features", comparison.features),
        ("Compared with", comparison.against),
        ("Samples", f"{comparison.n:,} a cell, unless the cell says otherwise"),
        ("Seed", comparison.seed),
        ("Clip", comparison.clip),
        ("Precision", comparison.precision),
        ("Errors", _ERROR_MEANS),
    ]
    return [(name, str(value)) for name, value in named if value is not None]


def legend(comparison: Comparison) -> list[str]:
    """How to read the marks of a table."""
    lines = [
        "S is the number of steps asked for; network evaluations are given where they differ.",
        "Bold: the best of its column. †: within one combined standard error"
        " (root of the sum of squares) of the best. Methods share their seeds, so this is on the"
        " large side; the best of many is favoured by chance.",
    ]
    if any(cell.costs_more for row in comparison.rows for cell in row.cells.values()):
        lines.append(
            "A cell of more than S evaluations is not compared with its column, because it cost"
            " more; the figure places it at its cost."
        )
    return lines


def _sentence_of_best(comparison: Comparison, cell: Cell) -> str:
    metric = comparison.primary
    score = cell.scores[metric.key]
    tied = list(comparison.marks(metric, cell.num_steps).values()).count(TIED)
    text = f"S = {cell.num_steps}: the best {metric.name} is {score.text}, of {cell.name}"
    if tied:
        text += f", with {tied} other{'s' if tied > 1 else ''} within one combined standard error"
    reference = comparison.reference(metric)
    if reference is not None and reference.scores[metric.key].value > 0 and cell.num_evaluations:
        times = score.value / reference.scores[metric.key].value
        fewer = reference.num_evaluations / cell.num_evaluations
        text += (
            f"; {times:.3g} times the value of the {reference.name},"
            f" in {fewer:.3g} times fewer evaluations"
        )
    return text + "."


def _warnings(comparison: Comparison) -> list[str]:
    """What keeps the numbers from being compared as they stand."""
    found = []
    floor = comparison.floor
    counts = [(c.name, c.n) for c in comparison.references if c.n != comparison.n and c.n]
    counts += [(floor.label, floor.n)] if floor is not None and floor.n != comparison.n else []
    if counts:
        others = ", ".join(f"{name}: {n:,}" for name, n in counts)
        found.append(
            f"Not everything was measured on {comparison.n:,} samples ({others}). Many metrics,"
            " Fréchet distances among them, depend on the count: compare across counts with care."
        )
    failed = sum(cell.failed is not None for cell in comparison.cells)
    if failed:
        found.append(f"{failed} of {len(comparison.cells)} cells failed; the tables say why.")
    return found + [f"{line}." for line in comparison.left_out]
