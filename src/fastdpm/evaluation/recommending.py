"""The search for the recipe to recommend: many plans of few samples, then few plans of many.

All samplers over all choices of levels are screened in rounds. Each round keeps the best quarter
and quadruples the number of samples (successive halving). The finalists are measured with another
seed, so that the luck of the screening does not count. Everything is cached, so a search that was
interrupted continues from there.
Source: Karnin, Koren & Somekh 2013, Almost optimal exploration in multi-armed bandits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, positive_or_none
from fastdpm.core.methods import NamedRecipe, named_recipes
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.text import counted
from fastdpm.evaluation.comparing import PreparedComparison, Trial, prepare
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.estimate import CellCost, CostEstimate, count_cells, time_network
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.grid import Recipes, counts_of, recipes_of
from fastdpm.evaluation.methods import Method, all_methods, choose_methods
from fastdpm.evaluation.recommendation import Recommendation, Screening, check_wish, choose
from fastdpm.evaluation.report.write import report_identity
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import duration
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model

_BUDGET = 10
_QUALITY_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
_DEFAULT_N = {"image": 2000, "recording": 40}
_KEPT = 4  # a round keeps one of so many plans
_FEWEST = 50  # samples of the first round
_SECONDS_PER_LINE = 10.0
Log = Callable[[str], object]


def _ignore(line: str) -> None:
    """Print nothing."""


@dataclass(frozen=True)
class PreparedRecommendation:
    """A search whose arguments are checked; nothing is drawn or computed yet.

    Attributes:
        handle: The model.
        methods: All methods that are screened.
        counts: The values of S, in the order of the search.
        screen_n: Samples of a plan in the last round of the screening.
        finalists: How many plans of each S are measured at last.
        measuring: How the finalists are measured.
        draw: Seed of the screening, precision, batch size and device; the finalists have the next
            seed.
        clip: What is clipped.
        budget: See :func:`recommend`.
        quality: See :func:`recommend`.
    """

    handle: ModelHandle
    methods: tuple[Method, ...]
    counts: tuple[int, ...]
    screen_n: int
    finalists: int
    measuring: MeasureOptions
    draw: DrawOptions
    clip: str
    budget: float | None
    quality: float | None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the result, for the record of its folder."""
        wish = {"budget": self.budget, "quality": self.quality, "screen_n": self.screen_n}
        first = self._prepare(self.methods[:1], self.counts[0], self.measuring.n, self.draw.seed)
        settings: dict[str, Any] = report_identity(first.planned)
        keys = [method.key for method in self.methods]
        return settings | wish | {"finalists": self.finalists, "methods": keys}

    def estimate(self) -> CostEstimate:
        """Estimate what drawing the samples costs at most.

        if a quality was set, this is the cost of all S; the search may end before.
        """
        costs: list[CellCost] = []
        probe = None
        for num_steps in self.counts:
            prepared, trials = self._screening(num_steps)
            costs += self._costs(num_steps, trials, prepared.measure.least)
            probe = probe or next((t.source.probe for t in trials if t.source is not None), None)
        left = any(cost.left for cost in costs)
        timing = time_network(probe, costs[0].n) if probe is not None and left else None
        return CostEstimate(tuple(costs), timing)

    def run(self, command: str = "", log: Log = _ignore) -> Recommendation:
        """Search; for the arguments, see :func:`recommend`."""
        screened: list[Cell] = []
        measured: list[Comparison] = []
        plans, shown = 0, self._screening(self.counts[0])[0]
        for num_steps in self._search(measured):
            prepared, trials = self._screening(num_steps)
            cells = self._screen(prepared, trials, log)
            screened, plans = [*screened, *cells], plans + len(trials)
            chosen = [cell.method for cell in self._ranked(cells, shown)[: self.finalists]]
            log(f"S = {num_steps}: the finalists are {', '.join(chosen)}")
            measured.append(self._finals(chosen, num_steps).run(command, log))
        comparison = replace(
            measured[0],
            cells=tuple(cell for one in measured for cell in one.cells),
            pictures={name: x for one in measured for name, x in one.pictures.items()},
            seconds=math.fsum(one.seconds or 0 for one in measured),
        )
        found = replace(shown.planned, cells=tuple(screened))
        screening = Screening(plans, self.screen_n, self.draw.seed, found)
        baseline = None if self._baseline is None else self._baseline.key
        return choose(comparison, self.budget, self.quality, screening, baseline)

    def _search(self, measured: Sequence[Comparison]) -> Iterator[int]:
        """The values of S, one after the other; those of a quality end where it is reached."""
        below = 0
        for num_steps in self.counts:
            yield num_steps
            if self.quality is not None and self._reached(measured[-1]):
                break
            below = num_steps
        else:
            return
        while num_steps - below > 1:
            middle = (below + num_steps) // 2
            yield middle
            if self._reached(measured[-1]):
                num_steps = middle
            else:
                below = middle

    def _reached(self, comparison: Comparison) -> bool:
        return choose(comparison, quality=self.quality).reached

    def _screen(
        self, prepared: PreparedComparison[Any], trials: Sequence[Trial[Any]], log: Log
    ) -> list[Cell]:
        """Measure the plans of one S in rounds; return the cells of the last one."""
        kept, cells = list(trials), list[Cell]()
        rounds = self._rounds(prepared.measure.least)
        for number, n in enumerate(rounds, 1):
            text = f"S = {trials[0].cell.num_steps}, round {number} of {len(rounds)}"
            lines = _Lines(
                f"{text}: {counted(len(kept), 'plan')}, {n:,} samples each", len(kept), log
            )
            cells = []
            for trial in kept:
                cells.append(_sized(trial, n).measured(prepared.measure))
                lines.after(len(cells))
            ranked = self._ranked(cells, prepared)
            best = {cell.id for cell in ranked[: self._survivors(len(kept))]}
            kept = [trial for trial in kept if trial.cell.id in best]
        return cells

    def _ranked(self, cells: Sequence[Cell], prepared: PreparedComparison[Any]) -> list[Cell]:
        """The cells with a value, the best first."""
        metric = prepared.measure.metrics[0]
        sign = 1 if metric.lower_is_better else -1
        known = [cell for cell in cells if metric.key in cell.scores]
        return sorted(known, key=lambda cell: sign * cell.scores[metric.key].value)

    def _rounds(self, least: int) -> list[int]:
        """Samples of a plan in each round."""
        found = [self.screen_n]
        while found[0] // _KEPT >= max(least, _FEWEST):
            found.insert(0, found[0] // _KEPT)
        return found

    def _survivors(self, count: int) -> int:
        return min(count, max(self.finalists, math.ceil(count / _KEPT)))

    def _costs(
        self, num_steps: int, trials: Sequence[Trial[Any]], least: int
    ) -> Iterator[CellCost]:
        """What each round and the finalists of one S cost; of later rounds, at most."""
        rounds, kept = self._rounds(least), len(trials)
        each = max(trial.source.rows for trial in trials if trial.source is not None)
        first = count_cells([_sized(trial, rounds[0]).planned for trial in trials])
        name, left = f"S = {num_steps}, ", sum(cost.left for cost in first)
        yield CellCost(f"{name}round 1", num_steps, rounds[0], left, each)
        for number, (few, many) in enumerate(pairwise(rounds), 2):
            kept = self._survivors(kept)
            left = kept * (many - few)
            yield CellCost(f"{name}round {number}", num_steps, many, left, each)
        n = self._finals([trials[0].cell.method], num_steps).measure.n
        last = min(self.finalists, kept) + (self._baseline is not None)
        yield CellCost(f"{name}finalists", num_steps, n, last * n, each)

    def _screening(self, num_steps: int) -> tuple[PreparedComparison[Any], list[Trial[Any]]]:
        """All different plans of one S, to be measured by the primary metric."""
        prepared = self._prepare(self.methods, num_steps, self.screen_n, self.draw.seed)
        drawn = [trial for trial in prepared.trials if trial.source is not None]
        plans = {trial.cell.plan or trial.cell.id: trial for trial in reversed(drawn)}
        within = [t for t in reversed(plans.values()) if t.source.rows <= self._most(num_steps)]
        if not within:
            raise InvalidArgumentError(f"no method can be measured at S = {num_steps}")
        return replace(prepared, measure=prepared.measure.primary()), within

    def _finals(self, keys: Sequence[str], num_steps: int) -> PreparedComparison[Any]:
        """The finalists of one S, and the recommended recipe at that S."""
        by_key = {method.key: method for method in self.methods}
        chosen = {key: by_key[key] for key in keys}
        if self._baseline is not None:
            chosen.setdefault(self._baseline.key, self._baseline)
        return self._prepare(
            list(chosen.values()), num_steps, self.measuring.n, self.draw.seed + 1
        )

    def _prepare(
        self, methods: Sequence[Method], num_steps: int, n: int | None, seed: int
    ) -> PreparedComparison[Any]:
        few = any(not method.has_own_steps for method in methods)
        return prepare(
            self.handle,
            num_steps if few else None,
            methods,
            measuring=replace(self.measuring, n=n),
            options=replace(self.draw, seed=seed),
            clip=self.clip,
        )

    def _most(self, num_steps: int) -> int:
        """The most network evaluations of a plan of S steps."""
        return num_steps * (2 if self.handle.config.recipe.guidance.enabled else 1)

    @property
    def _baseline(self) -> NamedRecipe | None:
        """The method that the model recommends; None if it has its own number of steps."""
        recipe = self.handle.config.recipe
        rows = named_recipes([recipe.kappa])
        same = (row for row in rows if row.at(recipe.num_steps) == recipe.bare)
        own = NamedRecipe.own("recommended", recipe)
        return None if own.has_own_steps else next(same, own)


class _Lines:
    """Prints how far a round is, at most every ten seconds."""

    def __init__(self, text: str, count: int, log: Log) -> None:
        self.text, self.count, self.log = text, count, log
        self.began = self.printed = time.monotonic()
        log(text)

    def after(self, done: int) -> None:
        """Called when a plan is measured."""
        now = time.monotonic()
        if now - self.printed < _SECONDS_PER_LINE:
            return
        self.printed = now
        left = (now - self.began) * (self.count / done - 1)
        self.log(f"{self.text}: {done} done, about {duration(left, digits=2)} left")


@checked
def recommend(
    model: str | Path | FoundModel | Model,
    budget: float | None = None,
    quality: float | None = None,
    *,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    measuring: MeasureOptions | None = None,
    screen_n: int | None = None,
    finalists: int = 3,
    options: DrawOptions | None = None,
    clip: str | None = None,
    recipes: Recipes | None = None,
    command: str = "",
    log: Log = _ignore,
) -> Recommendation:
    """Find the recipe to use for a model: all samplers over all choices of levels are tried.

    Args:
        model: A model, or anything that :func:`fastdpm.load_model` takes.
        budget: The most network evaluations per sample, at least 1; 10 by default. Half and a
            quarter of it are tried too.
        quality: A value of the primary metric to reach, in as few evaluations as possible, up to
            64. Set either this or ``budget``. A Fréchet distance depends on the number of samples.
        steps: Values of S to search in place of these, or one.
        methods: What to screen, as :func:`fastdpm.evaluation.methods.choose_methods` takes it. By
            default all samplers over all choices of levels, kappa 0 and 1, and ``recipes``.
        measuring: Reference, number of samples of the finalists, feature network and cache. By
            default 2,000 images, 400 sounds, or 40 recordings of a vocoder.
        screen_n: Samples of a plan in the last round of the screening; by default half as many.
        finalists: How many plans of each S are measured with another seed, at least 1.
        options: Seed of the screening, precision, batch size, device and condition. The finalists
            have the next seed.
        clip: What is clipped; by default as in the model's recipe.
        recipes: Recipes of your own by name, or a TOML file of them, in addition to those of the
            model.
        command: The command line that reproduces this, for the report.
        log: Called with one line of text now and then.

    Raises:
        InvalidArgumentError: For the reasons of :func:`fastdpm.compare`; if ``budget`` and
            ``quality`` are both set, or the budget is below one evaluation.
    """
    prepared = prepare_recommendation(
        model,
        budget,
        quality,
        steps=steps,
        methods=methods,
        measuring=measuring,
        screen_n=screen_n,
        finalists=finalists,
        options=options,
        clip=clip,
        recipes=recipes,
    )
    return prepared.run(command, log)


@checked
def prepare_recommendation(
    model: str | Path | FoundModel | Model,
    budget: float | None = None,
    quality: float | None = None,
    *,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    measuring: MeasureOptions | None = None,
    screen_n: int | None = None,
    finalists: int = 3,
    options: DrawOptions | None = None,
    clip: str | None = None,
    recipes: Recipes | None = None,
) -> PreparedRecommendation:
    """Check everything that :func:`recommend` needs, to estimate its cost before it runs.

    The arguments are those of :func:`recommend`.
    """
    check_wish(budget, quality)
    if finalists < 1:
        raise InvalidArgumentError(f"`finalists` must be at least 1, got {finalists}")
    settings, draw = measuring or MeasureOptions(), options or DrawOptions()
    handle = ModelHandle(model, draw.device)
    config = handle.config
    total = VarianceSchedule.from_config(config.schedule).num_train_steps
    per_step = 2 if config.recipe.guidance.enabled else 1
    if steps is not None:
        counts = tuple(counts_of([steps] if isinstance(steps, int) else steps, None, total))
    else:
        if budget is None and quality is None:
            budget = float(_BUDGET)
        counts = _counts(budget, total, per_step)
    own = recipes_of(recipes, config)
    chosen = tuple(all_methods(own) if methods is None else choose_methods(methods, None, own))
    kind = "recording" if config.data.mel is not None else config.data.modality
    n = settings.n or _DEFAULT_N.get(kind, 400)
    return PreparedRecommendation(
        handle,
        chosen,
        counts,
        positive_or_none("screen_n", screen_n) or max(n // 2, 1),
        finalists,
        replace(settings, n=n),
        draw,
        config.recipe.clip if clip is None else clip,
        budget,
        quality,
    )


def _counts(budget: float | None, total: int, per_step: int) -> tuple[int, ...]:
    """The values of S to search."""
    if budget is None:
        return tuple(count for count in _QUALITY_STEPS if count <= total) or (total,)
    highest = min(int(budget // per_step), total)
    if highest < 1:
        raise InvalidArgumentError(
            f"`budget` must be at least {per_step} network evaluations with guidance, got"
            f" {budget:g}"
        )
    fewer = (round(highest / part) for part in (4, 2) if round(highest / part) >= 2)
    return tuple(dict.fromkeys((*fewer, highest)))


def _sized(trial: Trial[Any], n: int) -> Trial[Any]:
    return replace(trial, cell=replace(trial.cell, n=n))
