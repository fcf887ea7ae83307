"""The stages of a tuning: the work, its time, and what is kept of each finished one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from fastdpm.core.errors import SamplingError
from fastdpm.core.text import counted
from fastdpm.models.model import Model
from fastdpm.tuning import refine as refinement
from fastdpm.tuning.closed_form import fit
from fastdpm.tuning.noises import Noises
from fastdpm.tuning.options import TuneOptions
from fastdpm.tuning.rollout import Learned
from fastdpm.tuning.search import search_levels

_SECONDS_PER_LINE = 10.0
_SCOUTS, _SEARCHED = 32, 128  # noises of the search for levels
_SEARCH = 1 / 8  # of all evaluations, at most
_ITERATIONS = {"paths": 2, "moments": 4}
_SHARE = {"paths": 1 / 4, "moments": 1.0}  # of the evaluations that are left
_FEWEST = 128  # noises
Log = Callable[[str], object]


@dataclass
class Clock:
    """The time of the stages of one S: when to end, and when to print."""

    began: float
    deadline: float = math.inf
    printed: float = 0.0

    @classmethod
    def start(cls, minutes: float | None) -> Self:
        """A clock that starts now, for some minutes, or without an end."""
        now = time.monotonic()
        return cls(now, math.inf if minutes is None else now + 60 * minutes, now)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    def left(self, share: float) -> float:
        """Seconds that are left when a share of the work is done."""
        return (time.monotonic() - self.began) * max(0.0, 1 / share - 1)

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        now = time.monotonic()
        if now - self.printed < _SECONDS_PER_LINE:
            return False
        self.printed = now
        return True


@dataclass(frozen=True, eq=False)
class Done:
    """A finished stage, as it is kept.

    Attributes:
        stage: Its name.
        log_snr: Lambda of each row.
        table: Coefficients of the data form.
        shift: Lambda that the network receives, less that of the row.
        evaluations: Network evaluations.
        seconds: Its time.
        losses: Losses on fresh noises.
        repeat: Which noises it learned from.
    """

    stage: str
    log_snr: list[float]
    table: list[list[float]]
    shift: list[float]
    evaluations: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    repeat: int = 0

    def learned(self, model: Model) -> Learned:
        """Its levels and coefficients."""
        tables = (np.array(values) for values in (self.log_snr, self.table, self.shift))
        return Learned(model.schedule, *tables)

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says of it."""
        facts: dict[str, Any] = {"stage": self.stage, "evaluations": self.evaluations}
        facts |= {"repeat": self.repeat} if self.repeat else {}
        return facts | {"seconds": round(self.seconds, 1), "losses": self.losses}


@dataclass(frozen=True, eq=False)
class Work:
    """The work of the stages of one S.

    Attributes:
        learning: The noises to learn from.
        fresh: The noises to choose by.
        options: Options.
        clock: The time.
        log: Called with one line of text now and then.
    """

    learning: Noises
    fresh: Noises
    options: TuneOptions
    clock: Clock
    log: Log

    def do(self, stage: str, num_steps: int, repeat: int, before: Sequence[Done]) -> Done:
        """Do a stage, after the stages before it."""
        began, spent = time.monotonic(), self.learning.evaluations + self.fresh.evaluations
        again = f" ({repeat + 1} of {self.options.seeds})" if self.options.seeds > 1 else ""
        name = f"S = {num_steps}{again}, {stage}"
        if stage == "levels":
            learned, more = self._levels(name, num_steps)
        else:
            left = self.options.evaluations - sum(one.evaluations for one in before)
            learned = before[-1].learned(self.learning.predict.model)
            learned, more = self._refined(name, stage, learned, left)
        losses = dict(self.fresh.losses(learned, moments=self.options.chosen_by == "moments"))
        shown = ", ".join(f"{kind} {value:.3g}" for kind, value in losses.items())
        count = self.learning.evaluations + self.fresh.evaluations - spent + more
        seconds = time.monotonic() - began
        self.log(f"{name}: {shown} on fresh noises; {count:,} evaluations, {seconds:.0f} s")
        names = ("log_snr", "table", "shift")
        tables = {name: getattr(learned, name).tolist() for name in names}
        return Done(
            stage, **tables, evaluations=count, seconds=seconds, losses=losses, repeat=repeat
        )

    def _levels(self, name: str, num_steps: int) -> tuple[Learned, int]:
        """The levels, with coefficients in closed form, and the cost of the search."""
        few, many = (self.learning.first(count) for count in (_SCOUTS, _SEARCHED))
        limit = max(1, round(_SEARCH * self.options.evaluations))
        tried, clock = 0, Clock.start(None)

        def spent() -> int:
            return few.evaluations + many.evaluations

        def stop(loss: float) -> bool:
            nonlocal tried
            tried += 1
            if self.clock.due:
                left = clock.left(spent() / limit)
                shown = f"{tried} tried, distance {loss:.3g}, at most {left:.0f} s left"
                self.log(f"{name}: {shown}")
            return spent() >= limit or self.clock.over

        best = search_levels(few, many, num_steps, stop)
        try:
            learned, _ = fit(self.learning.predict, self.learning.paths, best.learned.log_snr)
        except SamplingError:
            self.log(f"{name}: not all noises give finite values, so fewer decide")
            learned = best.learned
        return learned, spent()

    def _refined(self, name: str, stage: str, learned: Learned, left: int) -> tuple[Learned, int]:
        """The best of the iterations on fresh noises, and their cost."""
        moments, num_steps = stage == "moments", learned.num_rows
        kinds = refinement.KINDS if moments else ("level", "coefficient")
        each = self.learning.predict.evaluations_each * refinement.evaluations(num_steps, kinds)
        each += refinement.count_numbers(num_steps) if moments else 0
        left, limit = round(_SHARE[stage] * left), _ITERATIONS[stage]
        noises, few = self._noises_for(left, limit, each, num_steps, moments=moments)
        if len(few) * each > left:
            needed = f"{len(few) * each:,} evaluations, and {max(left, 0):,} are left"
            self.log(f"{name}: left out, since an iteration takes {needed}")
            return learned, 0

        def spent() -> int:
            return noises.evaluations + (few.evaluations if moments else 0)

        residual = noises.to_moments if moments else noises.to_paths
        best, least, clock = learned, math.inf, Clock.start(None)
        steps = refinement.refine(
            *(noises.predict, learned, residual, limit),
            kinds=kinds,
            few=(few.predict, few.to_moments) if moments else None,
            over=lambda: self.clock.over,
        )
        for number, step in enumerate(steps):
            loss = self.fresh.losses(step.learned, moments=moments)[stage]
            if step.rejected:
                attempts = counted(step.rejected, "step")
                self.log(f"{name}: {attempts} to values that are not finite, taken back")
            after = f"after {counted(number, 'iteration')}"
            after += f", at most {clock.left(number / limit):.0f} s left" if number else ""
            self.log(f"{name}: {loss:.3g} on fresh noises {after}")
            if loss < least:
                best, least = step.learned, loss
            if self.clock.over or spent() + len(few) * each > left:
                break
        return best, spent()

    def _noises_for(
        self, left: int, limit: int, each: int, num_steps: int, *, moments: bool
    ) -> tuple[Noises, Noises]:
        """The noises of the residual, and those of Jacobians, which moments need fewer of.

        As many as the evaluations that are left allow, and not too few to learn from.
        """
        all_of_them = self.options.n
        if not moments:
            count = max(left // (limit * each), _FEWEST)
            noises = self.learning.first(min(count, all_of_them))
            return noises, noises
        step = self.learning.predict.evaluations_each * num_steps + 1
        count = max(left // (2 * limit * refinement.REUSED * step), 2 * _FEWEST)
        noises = self.learning.first(min(count, all_of_them))
        left -= limit * refinement.REUSED * step * len(noises)
        return noises, noises.few(min(max(left // (limit * each), _FEWEST), len(noises)))
