"""Which recipe to use, from the cells of a comparison. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.recipe import Recipe
from fastdpm.core.text import counted
from fastdpm.evaluation.cells import Cell
from fastdpm.evaluation.report.words import options_of, recipe_for
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score

_LEVEL = 0.05  # of all tests together


@dataclass(frozen=True)
class Screening:
    """How the finalists of a recommendation were found.

    Attributes:
        plans: Number of different plans that were screened, by S.
        n: Samples of a plan in the last round.
        seed: Seed of the screening; the finalists have another one.
        comparison: The plans that reached the last round, by their primary metric.
    """

    plans: Mapping[int, int]
    n: int
    seed: int
    comparison: Comparison


@dataclass(frozen=True)
class Rival:
    """A cell beside the recommended one.

    Attributes:
        cell: The cell.
        worse: How much worse its primary metric is, with the standard error of the difference.
        different: Whether the two differ, at 5% over all pairs of cells together.
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
        fresh: The best cells once more, with samples that had no part in choosing them, by id.
    """

    comparison: Comparison
    cell: Cell
    budget: float | None = None
    quality: float | None = None
    screening: Screening | None = None
    baseline: str | None = None
    fresh: Mapping[str, Cell] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe | None:
        """The recipe, with its clipping and guidance; None if there is only a plan."""
        return recipe_for(self.comparison, self.cell)

    @property
    def score(self) -> Score:
        """The primary metric of the recommended cell, from fresh samples if there are any."""
        return self.score_of(self.cell)

    def score_of(self, cell: Cell) -> Score:
        """The primary metric of a cell, from fresh samples if there are any."""
        return _score(self.comparison, cell, self.fresh)

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
        """The recommended recipe and those of the front among cells with recipes.

        Their names have the network evaluations: "best-6".
        """
        cells = [cell for cell in self.comparison.cells if recipe_for(self.comparison, cell)]
        front = replace(self, comparison=replace(self.comparison, cells=tuple(cells))).front
        pairs = ((cell, recipe_for(self.comparison, cell)) for cell in (*front, self.cell))
        return {f"best-{cell.num_evaluations:g}": recipe for cell, recipe in pairs if recipe}

    @property
    def reached(self) -> bool:
        """Whether the quality that was set is reached; true if none was."""
        return self.quality is None or _reaches(
            self.comparison, self.cell, self.quality, self.fresh
        )

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
        count = len(found) + 1
        flags = differences([worse for _, worse in found], tests=count * (count - 1) // 2)
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
        better = [r.cell.name for r in rivals if not options_of(self.comparison, r.cell)]
        tied = [r.cell.name for r in rivals if not r.different]
        among = f"the best of {len(rivals) + 1} with {self.cell.cost}"
        if screening is None:
            why = "; they share its seeds, so the best is partly the best by chance"
        else:
            why = self._how(screening)
        if not rivals:
            return f"It is the only one with {self.cell.cost}{why}."
        if better:
            among += f" (but {_joined(better)} cannot be sampled by name)"
        others = f"not different from {_joined(tied)}" if tied else "different from all others"
        return f"It is {among}, {others} (5%, Bonferroni over all pairs){why}."

    def _how(self, screening: Screening) -> str:
        """How the cells were found and measured."""
        plans = counted(screening.plans.get(self.cell.num_steps, 0), "plan")
        same = " on the same recordings" if self.comparison.features == "pairs of sounds" else ""
        how = f"; finalists of {plans}, screened with {screening.n:,} samples each, were measured"
        how += f" with {self.cell.n:,} others{same}"
        return f"{how}, and the best one once more" if self.cell.id in self.fresh else how

    def _instead(self) -> str:
        """The recipe that the model recommended, and what fewer evaluations give."""
        texts = []
        before = next((r for r in self.rivals if r.cell.method == self.baseline), None)
        if self.baseline is not None and self.baseline == self.cell.method:
            texts.append("The model's recommended recipe has the same sampler and levels")
        elif before is not None:
            texts.append(f"The model's recommended recipe is {before.worse.text} worse at this S")
        fewer = [c for c in self.front if c.num_evaluations < self.cell.num_evaluations]
        for cell in fewer[::-1][:2]:
            texts.append(f"{cell.cost} give {self.score_of(cell).text} ({cell.name})")
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
    fresh: Mapping[str, Cell] | None = None,
) -> Recommendation:
    """Choose among the cells of a comparison; see :meth:`Comparison.recommend`."""
    check_wish(budget, quality)
    again, sign = fresh or {}, _sign(comparison)
    measured = [cell for cell in comparison.cells if comparison.primary.key in cell.scores]
    cells = [cell for cell in measured if options_of(comparison, cell)]
    if budget is not None:
        within = [cell for cell in cells if cell.num_evaluations <= budget]
        if cells and not within:
            least = min(cell.num_evaluations for cell in cells)
            raise InvalidArgumentError(
                f"`budget` is {budget:g}, but every method took at least {least:g} evaluations"
            )
        cells = within
    if not cells:
        raise InvalidArgumentError(
            f"no cell with a {comparison.primary.name} can be sampled by name: measure more"
            " methods"
        )
    best = min(cells, key=lambda cell: sign * cell.scores[comparison.primary.key].value)
    if quality is not None:
        known = [cell for cell in cells if cell.id in again] or cells
        enough = [cell for cell in known if _reaches(comparison, cell, quality, again)]
        best = min(
            enough,
            key=lambda cell: (cell.num_evaluations, sign * _score(comparison, cell, again).value),
            default=best,
        )
    return Recommendation(comparison, best, budget, quality, screening, baseline, again)


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


def differences(scores: Sequence[Score], tests: int | None = None) -> list[bool]:
    """Which differences are not zero, at 5% over a number of tests together (Bonferroni).

    A standard error from random halves has about as many degrees of freedom as there are halves.

    Args:
        scores: The differences.
        tests: The number of tests; by default that of ``scores``. For differences from a cell that
            was chosen among k, it is the number of all pairs, k (k - 1) / 2.
    """
    from scipy.special import ndtr, stdtr

    found = []
    for score in scores:
        ratio = -abs(score.value) / score.spread if score.spread else 0.0
        tail = stdtr(len(score.halves), ratio) if score.halves else ndtr(ratio)
        found.append(bool(2 * tail <= _LEVEL / (tests or len(scores))))
    return found


def _score(comparison: Comparison, cell: Cell, fresh: Mapping[str, Cell]) -> Score:
    key = comparison.primary.key
    again = fresh.get(cell.id)
    return again.scores[key] if again is not None and key in again.scores else cell.scores[key]


def _reaches(
    comparison: Comparison, cell: Cell, quality: float, fresh: Mapping[str, Cell]
) -> bool:
    sign = _sign(comparison)
    return sign * _score(comparison, cell, fresh).value <= sign * quality


def _sign(comparison: Comparison) -> int:
    return 1 if comparison.primary.lower_is_better else -1


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
