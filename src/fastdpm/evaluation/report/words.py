"""The findings of a comparison and its settings, in sentences."""

from __future__ import annotations

import re

from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import TUNED
from fastdpm.evaluation.diffusers_samplers import DIFFUSERS_METHODS
from fastdpm.evaluation.methods import recipe_of
from fastdpm.evaluation.results import TIED, Cell, Comparison

_ERROR = "± is one standard error over the samples, with the reference data taken as exact: "
_FROM_HALVES = (
    "from the differences between random halves of the samples; for pairs of sounds, from the"
    " spread over pairs"
)
_JACKKNIFE = (  # of results that were stored before
    "a jackknife over twentieths; for kernel distances, the spread over blocks; for pairs, the"
    " spread over pairs"
)
_PAIRED = (
    "Bold: the best of its column. †: its difference from the best is at most one standard error"
    " of that difference. Methods share their seeds: where samples of the same seed are alike,"
    " that error is smaller than the errors of both values."
)
_COMBINED = (
    "Bold: the best of its column. †: within one combined standard error (root of the sum of"
    " squares) of the best. Methods share their seeds, so this overstates the error."
)


def summary(comparison: Comparison) -> list[str]:
    """The findings by the primary metric."""
    metric = comparison.primary
    sentences = [_sentence_of_best(comparison, cell) for cell in comparison.best_cells]
    sentences = sentences or [f"No few-step method has a {metric.name}."]
    reference = comparison.reference(metric)
    if reference is not None:
        at = reference.scores[metric.key].text
        sentences.append(f"The {reference.name} reaches {at} with {reference.cost}.")
    floor, real = comparison.floor, comparison.floor_score(metric)
    if floor is not None and real is not None:
        sentences.append(
            f"Real data ({floor.label}), measured in the same way, scores {real.text}."
        )
    sentences += _warnings(comparison)
    return sentences


def facts(comparison: Comparison) -> list[tuple[str, str]]:
    """The settings, as names and values."""
    model = comparison.model
    checksum = (model.weights_sha256 or "")[:12]
    rate = f" at {model.sample_rate:,} Hz" if model.sample_rate else ""
    of = f"{model.modality}{rate}, T = {model.T:,}"
    named = [
        ("Model", f"{model.name} ({of})"),
        ("Weights", f"SHA-256 {checksum}…" if checksum else "not recorded"),
        ("Features", comparison.features),
        ("Compared with", comparison.against),
        ("Samples", f"{comparison.n:,} per method and S, unless a cell has another number"),
        ("Seed", comparison.seed),
        ("Clip", comparison.clip),
        ("Precision", comparison.precision),
        ("Errors", _ERROR + (_FROM_HALVES if comparison.paired else _JACKKNIFE)),
    ]
    return [(name, str(value)) for name, value in named if value is not None]


def legend(comparison: Comparison) -> list[str]:
    """How to read the marks of a table."""
    lines = [
        "S is the number of steps; the number of network evaluations is shown if it differs.",
        marks_legend(comparison),
        "The best of many methods is partly the best by chance.",
    ]
    cells = [cell for row in comparison.rows for cell in row.cells.values()]
    guided = any(cell.guidance for cell in cells)
    if guided:
        lines.append(
            "Guidance takes two evaluations a step: a column compares cells of as many steps, not"
            " of as many evaluations."
        )
    if any(cell.costs_more for cell in cells):
        limit = "S evaluations, or 2 S with guidance," if guided else "S evaluations"
        lines.append(
            f"A cell that took more than {limit} is not compared with its column; the figure shows"
            " it at its number of evaluations."
        )
    if any(cell.seconds_per_sample is not None for cell in comparison.cells):
        lines.append(
            "Time per sample is the time to draw all samples of a cell, divided by their number;"
            " it depends on the machine and the batch size."
        )
    return lines


def marks_legend(comparison: Comparison) -> str:
    """What the marks of the best entries mean."""
    return _PAIRED if comparison.paired else _COMBINED


def _sentence_of_best(comparison: Comparison, cell: Cell) -> str:
    metric = comparison.primary
    score = cell.scores[metric.key]
    tied = list(comparison.marks(metric, cell.num_steps).values()).count(TIED)
    text = f"S = {cell.num_steps}: the best {metric.name} is {score.text} ({cell.name})"
    if tied:
        text += f", with {tied} other{'s' if tied > 1 else ''} within one standard error"
    reference = comparison.reference(metric)
    if reference is not None:
        against = reference.scores[metric.key]
        if against.value > 0 and score.value > 0:
            text += f"; {ratio(score.value / against.value)} the {reference.name}"
            text += f" in {cell.cost} instead of {reference.num_evaluations:,.10g}"
    options = options_of(comparison, cell)
    return f"{text}. Sample it with {options}." if options else f"{text}."


def recipe_for(comparison: Comparison, cell: Cell) -> Recipe | None:
    """The recipe that draws the samples of a cell; None if none does.

    Older files do not state it. There, it is that of the method, with guidance of one scale.
    """
    scale = re.fullmatch(r"guidance (-?[\d.]+)", cell.guidance)
    if cell.recipe is not None or (cell.guidance and scale is None):
        return cell.recipe
    found = recipe_of(cell.method, cell.num_steps, comparison.model.T)
    guided = None if scale is None else float(scale[1])
    return found and found.replace(clip=comparison.clip, guidance_scale=guided)


def options_of(comparison: Comparison, cell: Cell) -> str:
    """The options of `fastdpm sample` that repeat a cell; empty if none do."""
    recipe = recipe_for(comparison, cell)
    theirs = DIFFUSERS_METHODS.get(cell.method)
    if cell.family == TUNED:
        precise = comparison.precision not in (None, "float32")
        also = f" --precision {comparison.precision}" if precise else ""
        return f"-S {cell.num_steps} --method {TUNED}{also}"
    if recipe is not None:
        options = _typed(recipe)
    elif theirs is not None and not theirs.stochastic and not cell.guidance:
        options = f"-S {cell.num_steps} --recipe {theirs.key}"
    else:
        return ""
    if comparison.clip:
        options += f" --clip {comparison.clip}"
    if comparison.precision not in (None, "float32"):
        options += f" --precision {comparison.precision}"
    if recipe is not None and recipe.guidance.enabled:
        return f"{options} {_guided(recipe)}"
    stated = "--guidance" in (comparison.command or "")
    guided = stated or any(other.guidance for other in comparison.cells)
    return f"{options} --guidance 1" if guided else options


def _guided(recipe: Recipe) -> str:
    """The options of guidance of a recipe."""
    scale, interval = recipe.guidance_scale, recipe.guidance_interval
    scales = scale if isinstance(scale, tuple) else (scale,)
    options = f"--guidance {','.join(map(repr, scales))}"
    if interval is not None:
        options += f" --guidance-interval {interval[0]!r}:{interval[1]!r}"
    if recipe.guidance_rescale:
        options += f" --guidance-rescale {recipe.guidance_rescale!r}"
    return options


def _typed(recipe: Recipe) -> str:
    """The options that choose the sampler and the levels of a recipe."""
    if recipe.takes_all_steps:
        return f"--method {recipe.method}"
    custom = ("at_levels", "at_steps", "variances")
    typed = next((name for name in custom if getattr(recipe, name) is not None), None)
    if typed is not None:
        numbers = ",".join(map(repr, getattr(recipe, typed)))  # every digit: R(T) is a limit
        options = f"--{typed.replace('_', '-')} {numbers} --method {recipe.method}"
    else:
        options = f"-S {recipe.num_steps} --method {recipe.method}"
        options += f" --levels {recipe.levels} --spacing {recipe.spacing}"
    if recipe.sampler.takes_kappa:
        options += f" --kappa {recipe.kappa:g}"
    if recipe.start is not None:
        options += f" --start {recipe.start:g}"
    return options if recipe.bounded else f"{options} --unbounded"


def ratio(times: float) -> str:
    """How a value compares with another that it is ``times`` as large as: "12% above"."""
    percent = round(100 * (times - 1))
    if percent == 0:
        return "equal to"
    if percent >= 100:
        return f"{times:.3g} times as large as with"
    return f"{abs(percent)}% {'above' if percent > 0 else 'below'}"


def _warnings(comparison: Comparison) -> list[str]:
    """Reasons why some numbers cannot be compared directly."""
    found = []
    floor = comparison.floor
    counts = [(c.name, c.n) for c in comparison.references if c.n != comparison.n and c.n]
    counts += [(floor.label, floor.n)] if floor is not None and floor.n != comparison.n else []
    if counts:
        others = ", ".join(f"{name}: {n:,}" for name, n in counts)
        found.append(
            f"All numbers are of {comparison.n:,} samples, except {others}. Many metrics, such as"
            " Fréchet distances, depend on the number of samples, so compare them with care."
        )
    failed = sum(cell.failed is not None for cell in comparison.cells)
    if failed:
        found.append(f"{failed} of {len(comparison.cells)} cells failed; the tables say why.")
    return found + [f"{line}." for line in comparison.left_out]
