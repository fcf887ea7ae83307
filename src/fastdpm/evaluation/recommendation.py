"""Which recipe to use, from the cells of a comparison. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.recipe import Recipe
from fastdpm.core.text import counted
from fastdpm.evaluation.cells import Cell
from fastdpm.evaluation.report.words import options_of, ratio, recipe_for
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score

_LEVEL = 0.05  # of all tests together


@dataclass(frozen=True)
class Screening:
    """How the finalists of a recommendation were found.

    Attributes:
        plans: Number of different plans that were screened, over all values of S.
        n: Samples of a plan in the last round.
        seed: Seed of the screening; the finalists have another one.
        comparison: The plans that reached the last round, by their primary metric.
    """

    plans: int
    n: int
    seed: int
    comparison: Comparison


@dataclass(frozen=True)
class Rival:
    """A cell beside the recommended one.

    Attributes:
        cell: The cell.
        worse: How much worse its primary metric is, with the standard error of the difference.
        different: Whether the two differ, at 5% over all rivals together (Holm's method).
    """

    cell: Cell
    worse: Score
    different: bool


@dataclass(frozen=True)
class Recommendation:
    """The recipe to use, and why. ``str`` of it is three lines for people.

    Attributes:
        comparison: What was measured.
        cell: The recommended cell.
        budget: The most network evaluations per sample, if one was set.
        quality: The value of the primary metric to reach, if one was set.
        screening: How the cells of ``comparison`` were chosen; None if it was made by ``compare``.
        baseline: Key of the method that the model recommended before; None if it is not measured.
    """

    comparison: Comparison
    cell: Cell
    budget: float | None = None
    quality: float | None = None
    screening: Screening | None = None
    baseline: str | None = None

    @property
    def recipe(self) -> Recipe:
        """The recipe, with its clipping and guidance."""
        return self.recipes_by_cell[self.cell.id]

    @property
    def score(self) -> Score:
        """The primary metric of the recommended cell."""
        return self.cell.scores[self.comparison.primary.key]

    @property
    def front(self) -> tuple[Cell, ...]:
        """The Pareto front: cells that no other one beats with as few evaluations, rising."""
        key, sign = self.comparison.primary.key, _sign(self.comparison)
        found: list[Cell] = []
        for cell in sorted(
            (cell for cell in self.comparison.cells if key in cell.scores),
            key=lambda cell: (cell.num_evaluations, sign * cell.scores[key].value),
        ):
            if not found or sign * cell.scores[key].value < sign * found[-1].scores[key].value:
                found.append(cell)
        return tuple(found)

    @property
    def recipes(self) -> dict[str, Recipe]:
        """The recipes of the front, by names such as "best-6" with their network evaluations."""
        found = self.recipes_by_cell
        front = (cell for cell in self.front if cell.id in found)
        return {f"best-{cell.num_evaluations:g}": found[cell.id] for cell in front}

    @property
    def recipes_by_cell(self) -> dict[str, Recipe]:
        """The recipe of each cell that has one, by the cell's id."""
        pairs = ((cell.id, recipe_for(self.comparison, cell)) for cell in self.comparison.cells)
        return {name: recipe for name, recipe in pairs if recipe is not None}

    @property
    def reached(self) -> bool:
        """Whether the quality that was set is reached; true if none was."""
        return self.quality is None or _reaches(self.comparison, self.cell, self.quality)

    @property
    def rivals(self) -> tuple[Rival, ...]:
        """The other cells with as many evaluations, the nearest first."""
        sign, metric = _sign(self.comparison), self.comparison.primary
        found = []
        for other in self.comparison.cells:
            same = other.num_evaluations == self.cell.num_evaluations
            worse = self.comparison.difference(other, self.cell, metric)
            if other.id != self.cell.id and same and worse is not None:
                worse = worse if sign > 0 else Score(-worse.value, worse.error, worse.halves)
                found.append((other, worse))
        found.sort(key=lambda pair: pair[1].value)
        flags = differences([worse for _, worse in found])
        return tuple(Rival(*pair, flag) for pair, flag in zip(found, flags, strict=True))

    @property
    def lines(self) -> tuple[str, str, str]:
        """What to use, why, and what it is compared with."""
        return self._what(), self._why(), self._instead()

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _what(self) -> str:
        comparison, cell = self.comparison, self.cell
        text = f"{cell.name} at S = {cell.num_steps}: {comparison.primary.name} {self.score.text}"
        text += f" with {cell.cost}"
        if not self.reached:
            text = f"{self.quality:g} is not reached; the nearest is {text}"
        return f"{text}. Sample it with {options_of(comparison, cell)}."

    def _why(self) -> str:
        rivals, screening = self.rivals, self.screening
        better = [rival.cell.name for rival in rivals if rival.worse.value < 0]
        tied = [rival.cell.name for rival in rivals if not rival.different]
        among = f"the best of {len(rivals) + 1} with {self.cell.cost}"
        if better:
            among = f"{among}, after {_joined(better)}, whose samples no recipe draws"
        if screening is None:
            luck = "; they share its seeds, so the best is partly the best by chance"
        else:
            among += (
                f": finalists of {counted(screening.plans, 'plan')}, screened with"
                f" {screening.n:,} samples each and measured with {self.cell.n:,} others"
            )
            luck = ""
        if not rivals:
            return f"It is the only one with {self.cell.cost}{luck}."
        if not tied:
            return f"It is {among}, and different from all others (5%, Holm){luck}."
        return f"It is {among}; not different from {_joined(tied)} (5%, Holm){luck}."

    def _instead(self) -> str:
        """The recipe that the model recommended, and what fewer evaluations give."""
        key, texts = self.comparison.primary.key, []
        before = next((rival for rival in self.rivals if rival.cell.method == self.baseline), None)
        if self.baseline == self.cell.method:
            texts.append("The model's recommended recipe has the same sampler and levels")
        elif before is not None:
            score = before.cell.scores[key]
            share = f", {ratio(score.value / self.score.value)} it" if self.score.value > 0 else ""
            texts.append(f"The model's recommended recipe gives {score.text} at this S{share}")
        fewer = [c for c in self.front if c.num_evaluations < self.cell.num_evaluations]
        for cell in fewer[::-1][:2]:
            texts.append(f"{cell.cost} give {cell.scores[key].text} ({cell.name})")
        return "; ".join(texts) + "." if texts else "Nothing with fewer evaluations was measured."

    def write(self, folder: str | Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
        """Write the report of the comparison, the figure of the front, and its recipes.

        Args:
            folder: Created if it does not exist; an earlier one in it is replaced.
            formats: Formats of the figures: "png", "pdf" and "svg".

        Returns:
            The files; see :func:`fastdpm.evaluation.report.write.fill_recommendation`.
        """
        from fastdpm.evaluation.report.write import write_recommendation

        return write_recommendation(Path(folder), self, formats=formats)

    def plot(self, path: str | Path) -> None:
        """Draw quality against network evaluations, with the Pareto front.

        Args:
            path: A .png, .pdf or .svg file, replaced if it exists.

        Raises:
            InvalidArgumentError: If the file has another suffix.
        """
        from fastdpm.evaluation.report.front import front_figure
        from fastdpm.output.figures import save_figure

        save_figure(front_figure(self), Path(path))


def choose(
    comparison: Comparison,
    budget: float | None = None,
    quality: float | None = None,
    screening: Screening | None = None,
    baseline: str | None = None,
) -> Recommendation:
    """Choose among the cells of a comparison; see :meth:`Comparison.recommend`."""
    check_wish(budget, quality)
    key, sign = comparison.primary.key, _sign(comparison)
    measured = [cell for cell in comparison.cells if key in cell.scores]
    cells = [cell for cell in measured if recipe_for(comparison, cell) is not None]
    if budget is not None:
        within = [cell for cell in cells if cell.num_evaluations <= budget]
        if cells and not within:
            least = min(cell.num_evaluations for cell in cells)
            raise InvalidArgumentError(
                f"`budget` is {budget:g}, but every cell took at least {least:g} evaluations"
            )
        cells = within
    if not cells:
        raise InvalidArgumentError(
            f"no cell with a {comparison.primary.name} has a recipe: measure more methods"
        )
    best = min(cells, key=lambda cell: sign * cell.scores[key].value)
    if quality is not None:
        enough = [cell for cell in cells if _reaches(comparison, cell, quality)]
        order = lambda c: (c.num_evaluations, sign * c.scores[key].value)  # noqa: E731
        best = min(enough, key=order, default=best)
    return Recommendation(comparison, best, budget, quality, screening, baseline)


def check_wish(budget: float | None, quality: float | None) -> None:
    """Raise InvalidArgumentError if both are set, or one is out of range."""
    for name, value in (("budget", budget), ("quality", quality)):
        if value is not None and not math.isfinite(value):
            raise InvalidArgumentError(f"`{name}` must be finite, got {value}")
    if budget is not None and quality is not None:
        raise InvalidArgumentError("set `budget` or `quality`, not both")
    if budget is not None and budget < 1:
        raise InvalidArgumentError(
            f"`budget` must be at least 1 network evaluation, got {budget:g}"
        )


def differences(scores: Sequence[Score]) -> list[bool]:
    """Which differences are not zero, at 5% over all of them together.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    from scipy.special import ndtr

    odds = [2 * float(ndtr(-abs(s.value) / s.spread)) if s.spread else 1.0 for s in scores]
    order = sorted(range(len(odds)), key=odds.__getitem__)
    found = [False] * len(odds)
    for place, index in enumerate(order):
        if odds[index] > _LEVEL / (len(odds) - place):
            break
        found[index] = True
    return found


def _reaches(comparison: Comparison, cell: Cell, quality: float) -> bool:
    sign, score = _sign(comparison), cell.scores[comparison.primary.key]
    return sign * score.value <= sign * quality


def _sign(comparison: Comparison) -> int:
    return 1 if comparison.primary.lower_is_better else -1


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
