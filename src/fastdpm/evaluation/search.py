"""The search of :func:`fastdpm.recommend`, step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import GuidanceLike, GuidanceScale
from fastdpm.core.methods import OWN, RECOMMENDED, GitsRecipe, NamedRecipe, named_recipes
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.structure import plain
from fastdpm.evaluation.cells import Cell
from fastdpm.evaluation.comparing import PreparedComparison, Trial, prepare
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.estimate import CellCost, CostEstimate, time_network
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.methods import Method, TunedMethod, steps_of
from fastdpm.evaluation.recommendation import Recommendation, Screening, choose
from fastdpm.evaluation.report.write import report_identity
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.screening import Log, Rounds, different
from fastdpm.evaluation.trajectories import COST, drawn_trajectories

MOST = 64
"""The most network evaluations that a search without a budget tries."""


def ignore(line: str) -> None:
    """Print nothing."""


@dataclass(frozen=True)
class PreparedRecommendation:
    """A search whose arguments are checked; nothing is drawn or computed yet.

    Attributes:
        handle: The model.
        methods: The methods to screen.
        own: Recipes with custom levels, which are finalists without a screening.
        counts: The values of S, in the order of the search.
        rounds: How the methods are screened.
        measuring: How the finalists are measured.
        draw: Seed of the screening, precision, batch size and device. The finalists have the next
            seed, and the best of each S is measured again with the one after.
        clip: What is clipped.
        guidance: How all plans are guided.
        budget: See :func:`recommend`.
        quality: See :func:`recommend`.
    """

    handle: ModelHandle
    methods: tuple[Method, ...]
    own: tuple[Method, ...]
    counts: tuple[int, ...]
    rounds: Rounds
    measuring: MeasureOptions
    draw: DrawOptions
    clip: str
    guidance: GuidanceScale
    budget: float | None
    quality: float | None

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the result, for the record of its folder."""
        everything = (*self.methods, *self.own)
        settings: dict[str, Any] = report_identity(self.check().planned)
        named = [method for method in everything if isinstance(method, NamedRecipe)]
        stated = {method.key: plain(method.recipe) for method in named if method.family == OWN}
        tuned = [method for method in everything if isinstance(method, TunedMethod)]
        plans = {str(s): plan.plan.fingerprint for m in tuned for s, plan in m.plans.items()}
        return settings | {
            "methods": [method.key for method in everything],
            "recipes": stated,
            **({"tuned": plans} if plans else {}),
            "steps": list(self.counts),
            "budget": self.budget,
            "quality": self.quality,
            "screen_n": self.rounds.n,
            "finalists": self.rounds.finalists,
        }

    def check(self) -> PreparedComparison[Any]:
        """Prepare one comparison, which refuses what no search can be made of."""
        return self._prepare(self._known[:1], self.counts[0], self.draw.seed)

    @property
    def _known(self) -> list[Method]:
        """The methods whose levels are known without the model, or else all."""
        everything = [*self.methods, *self.own]
        return [m for m in everything if not isinstance(m, GitsRecipe)] or everything

    def estimate(self) -> CostEstimate:
        """Estimate what drawing the samples costs at most.

        Of what is in the cache, only the first round of each S is left out. If a quality was set,
        this is the cost of all S; the search may end before.
        """
        costs, probe = list[CellCost](), None
        gits = [method for method in self.methods if isinstance(method, GitsRecipe)]
        if gits and not drawn_trajectories(
            self.handle, self.draw, self.clip, self.guidance, self.measuring
        ):
            costs.append(CellCost("trajectories for GITS", 0, COST[0], *COST))
        known = [method for method in self.methods if not isinstance(method, GitsRecipe)]
        for num_steps in self.counts if known else ():
            prepared, trials = self._screening(num_steps, known)
            if not trials:
                continue
            probe = probe or next(t.source.probe for t in trials if t.source is not None)
            costs += self.rounds.costs(num_steps, trials, more=len(gits))
            n, each = prepared.measure.n, max(t.source.rows for t in trials if t.source)
            last = min(self.rounds.finalists, len(trials) + len(gits)) + 2
            costs.append(CellCost(f"S = {num_steps}, finalists", num_steps, n, last * n, each))
        left = any(cost.left for cost in costs)
        size = costs[-1].n if costs else 1
        timing = time_network(probe, size) if probe is not None and left else None
        return CostEstimate(tuple(costs), timing)

    def run(self, command: str = "", log: Log = ignore) -> Recommendation:
        """Search; for the arguments, see :func:`recommend`."""
        found = _Found()
        for num_steps in self._search(found):
            finals = self._own_at(num_steps)
            if self.methods:
                finals += self._screened(num_steps, found, log)
            if finals:
                log(f"S = {num_steps}: the finalists are {', '.join(m.key for m in finals)}")
                self._measure(finals, num_steps, found, command, log)
        for num_steps in sorted({*self._own_steps.values()} - {*self.counts}):
            self._measure(self._own_at(num_steps), num_steps, found, command, log)
        if not found.measured:
            steps = ", ".join(map(str, self.counts))
            raise InvalidArgumentError(f"no method of `methods` can be measured at S = {steps}")
        return self._chosen(found)

    def _screened(self, num_steps: int, found: _Found, log: Log) -> list[Method]:
        """The finalists of one S."""
        prepared, trials = self._screening(num_steps, self.methods)
        if not trials:
            return []
        cells = self.rounds.run(prepared, trials, log)
        last = replace(prepared.planned, cells=tuple(cells))
        found.screened[num_steps] = (len(trials), last)
        by_key = {method.key: method for method in self.methods}
        return [by_key[cell.method] for cell in cells[: self.rounds.finalists]]

    def _measure(
        self, methods: Sequence[Method], num_steps: int, found: _Found, command: str, log: Log
    ) -> None:
        """Measure finalists, and the best of them once more."""
        chosen = {method.key: method for method in methods}
        if (baseline := self._baseline) is not None:
            chosen.setdefault(baseline.key, baseline)
        measured = self._prepare([*chosen.values()], num_steps, self.draw.seed + 1)
        kept = different(measured.trials, self._baseline_key)
        found.measured.append(replace(measured, trials=tuple(kept)).run(command, log))
        best = choose(found.measured[-1]).cell
        again = self._prepare([chosen[best.method]], num_steps, self.draw.seed + 2)
        log(f"S = {num_steps}: the best once more, with other samples")
        found.fresh[best.id] = again.run(command, log).cells[0]

    def _chosen(self, found: _Found) -> Recommendation:
        comparison = replace(
            found.measured[0],
            cells=tuple(cell for one in found.measured for cell in one.cells),
            pictures={name: x for one in found.measured for name, x in one.pictures.items()},
            seconds=math.fsum(one.seconds or 0 for one in found.measured),
        )
        screening = None
        if found.screened:
            plans = {num_steps: count for num_steps, (count, _) in found.screened.items()}
            parts = [part for _, part in found.screened.values()]
            cells = tuple(cell for part in parts for cell in part.cells)
            whole = replace(parts[0], cells=cells)
            screening = Screening(plans, self.rounds.n, self.draw.seed, whole)
        return choose(
            comparison, self.budget, self.quality, screening, self._baseline_key, found.fresh
        )

    def _search(self, found: _Found) -> Iterator[int]:
        """The values of S, one after the other; those of a quality end where it is reached."""
        below = 0
        for num_steps in self.counts:
            yield num_steps
            if self.quality is not None and self._reached(found):
                break
            below = num_steps
        else:
            return
        while num_steps - below > 1:
            middle = (below + num_steps) // 2
            yield middle
            if self._reached(found):
                num_steps = middle
            else:
                below = middle

    def _reached(self, found: _Found) -> bool:
        """Whether the best cell of the last S reaches the quality."""
        if not found.measured:
            return False
        return choose(found.measured[-1], quality=self.quality, fresh=found.fresh).reached

    def _screening(
        self, num_steps: int, methods: Sequence[Method]
    ) -> tuple[PreparedComparison[Any], list[Trial[Any]]]:
        """All different plans of one S, to be measured by the primary metric."""
        prepared = self._prepare(methods, num_steps, self.draw.seed)
        prepared = replace(prepared, measure=prepared.measure.primary())
        limit = num_steps * self._per_step
        trials = different(prepared.trials, self._baseline_key)
        return prepared, [t for t in trials if t.source is not None and t.source.rows <= limit]

    def _prepare(
        self, methods: Sequence[Method], num_steps: int, seed: int
    ) -> PreparedComparison[Any]:
        few = any(not method.has_own_steps for method in methods)
        return prepare(
            self.handle,
            num_steps if few else None,
            methods,
            measuring=self.measuring,
            options=replace(self.draw, seed=seed),
            clip=self.clip,
            guidance_scale=self.guidance,
        )

    @property
    def _own_steps(self) -> dict[str, int]:
        """The S of each recipe with custom levels that is within the budget."""
        limit = self.budget or MOST
        known = {m.key: steps_of(m, self._schedule, ())[0] for m in self.own}
        return {key: count for key, count in known.items() if count * self._per_step <= limit}

    def _own_at(self, num_steps: int) -> list[Method]:
        steps = self._own_steps
        return [method for method in self.own if steps.get(method.key) == num_steps]

    @property
    def _schedule(self) -> VarianceSchedule:
        return VarianceSchedule.from_config(self.handle.config.schedule)

    @property
    def _per_step(self) -> int:
        return evaluations_per_step(self.guidance)

    @property
    def _baseline_key(self) -> str | None:
        return None if self._baseline is None else self._baseline.key

    @property
    def _baseline(self) -> NamedRecipe | None:
        """The method that the model recommends; None if it has its own number of steps."""
        recipe = self.handle.config.recipe
        if recipe.custom is not None or recipe.takes_all_steps:
            return None
        rows = named_recipes([recipe.kappa])
        same = (row for row in rows if row.at(recipe.num_steps) == recipe.bare)
        return next(same, NamedRecipe(RECOMMENDED, OWN, "recommended recipe", "", recipe))


@dataclass
class _Found:
    """What a search has measured so far.

    Attributes:
        screened: For each S, the number of plans, and those of the last round.
        measured: The finalists of each S.
        fresh: The best finalist of each S, measured once more, by its id.
    """

    screened: dict[int, tuple[int, Comparison]] = field(default_factory=dict)
    measured: list[Comparison] = field(default_factory=list)
    fresh: dict[str, Cell] = field(default_factory=dict)


def searched_guidance(
    handle: ModelHandle, guidance_scale: GuidanceLike | None, draw: DrawOptions
) -> GuidanceScale:
    """The guidance of all plans; the model's if it is None.

    Raises:
        InvalidArgumentError: If the model has no use for it, or it has a scale for each row.
    """
    found = handle.check_guidance(guidance_scale, draw.for_model(handle).condition)
    if isinstance(found.scale, tuple):
        raise InvalidArgumentError(
            "`guidance_scale` must be one number: the plans of a search have different rows"
        )
    return found


def evaluations_per_step(guidance: GuidanceScale) -> int:
    """Network evaluations of a step: two with guidance."""
    return 2 if guidance.enabled else 1
