"""Learning a plan for one network: levels and coefficients, from forward evaluations alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import (
    InvalidArgumentError,
    SamplingError,
    check_one_of,
)
from fastdpm.core.guidance import GuidanceLike, GuidanceScale
from fastdpm.core.history import scales
from fastdpm.core.recipe import CLIPS
from fastdpm.core.text import counted
from fastdpm.data.condition import ClassLabels, Condition, one_condition
from fastdpm.models.identity import model_digest
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan
from fastdpm.tuning import refine as refinement
from fastdpm.tuning.closed_form import fit
from fastdpm.tuning.noises import Noises
from fastdpm.tuning.options import TuneOptions
from fastdpm.tuning.paths import distance, draw_paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.rollout import Learned
from fastdpm.tuning.search import search_levels
from fastdpm.tuning.stages import Clock, Done

_FRESH = 0.5  # fresh noises for each one that is learned from
_SCOUTS, _SEARCHED = 32, 128  # noises of the search for levels
_CHECKED = 32  # noises of the check of the teacher
_ROWS, _MOST_ROWS = 24, 192
_CONVERGED = 1e-3
_ITERATIONS = {"paths": 2, "moments": 12}
_SEARCH = 1 / 8  # of all evaluations, at most
_FEWEST, _REFINED = 128, 3  # noises, and iterations that they are chosen for
Log = Callable[[str], object]


class Tuning:
    """Tunes plans of several S for one network; they share the teacher.

    Args:
        model: The model.
        options: Options.
        clip: What is clipped; by default as in the model's recipe.
        guidance_scale: Scale of classifier-free guidance, one number; by default as in the
            model's recipe.
        condition: Conditions, (m, ...), which the noises take in turn; by default the model's own.
        class_labels: Class labels, likewise.
        log: Called with one line of text now and then.
    """

    def __init__(
        self,
        model: Model,
        options: TuneOptions | None = None,
        *,
        clip: str | None = None,
        guidance_scale: GuidanceLike | None = None,
        condition: Condition | None = None,
        class_labels: ClassLabels | None = None,
        log: Log = lambda line: None,
    ) -> None:
        self.model, self.options, self.log = model, options or TuneOptions(), log
        data = model.config.data
        stated = one_condition(condition, class_labels, data, model.null_class)
        self.condition = _spread(model.check_condition(stated))
        self.guidance = model.check_guidance(guidance_scale, self.condition)
        if isinstance(self.guidance.scale, tuple):
            raise InvalidArgumentError(
                "`guidance_scale` must be one number: the rows of a plan are not known yet"
            )
        self.clip = model.config.recipe.clip if clip is None else clip
        check_one_of("clip", self.clip, CLIPS)
        if self.clip == "state":
            raise InvalidArgumentError(
                "plans cannot be learned with `clip` 'state': choose another, such as 'x0'"
            )
        end, scale = self.options.teacher_end, float(scales(model.schedule.levels[1:2])[0])
        if end < scale:
            raise InvalidArgumentError(
                f"`teacher_end` must be at least {scale:.3g}, the noise scale of the first"
                f" training step, got {end:g}"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the plans, apart from S and the conditions, for the record."""
        options = asdict(self.options)
        del options["batch_size"]
        about = {"model": self.model.config.name, "model_digest": self._digest}
        return about | {"clip": self.clip, "guidance": self.guidance.record} | options

    @cached_property
    def _digest(self) -> str:
        return model_digest(self.model, guided=self.guidance.enabled)

    def check(self, num_steps: int) -> None:
        """Check that plans of S rows can be tuned.

        Raises:
            InvalidArgumentError: If S is out of range, or there are too few noises.
        """
        rows = self.options.teacher_steps or _ROWS
        if not 1 <= num_steps < rows:
            raise InvalidArgumentError(
                f"`num_steps` must be in [1, {rows - 1}], below the teacher's {rows} steps, got"
                f" {num_steps}: set more `teacher_steps`"
            )
        least = max(32, 8 * (num_steps + 1))
        if self.options.n < least:
            count = refinement.count_numbers(num_steps)
            raise InvalidArgumentError(
                f"`n` must be at least {least} to learn the {count} numbers of a plan of"
                f" {num_steps} steps, got {self.options.n}"
            )

    def _make(self, samples: range, guidance: GuidanceScale) -> DataPredictor:
        return DataPredictor(
            self.model,
            self.options.seed,
            samples,
            condition=self.condition,
            guidance=guidance,
            clip=self.clip,
            precision=self.options.precision,
            batch_size=self.options.batch_size,
        )

    @cached_property
    def teacher(self) -> dict[str, Any]:
        """Steps of the teacher, its end, and how far it is from one of twice the steps.

        Raises:
            InvalidArgumentError: If the network answers the same question differently, or the
                teacher has not converged.
        """
        predict = self._make(range(min(_CHECKED, self.options.n)), self.guidance)
        _check_steady(predict)
        rows, end = self.options.teacher_steps or _ROWS, self.options.teacher_end
        samples = draw_paths(predict, rows, end).samples
        while True:
            better = draw_paths(predict, 2 * rows, end).samples
            error = distance(samples, better)
            if error <= _CONVERGED or self.options.teacher_steps or 2 * rows > _MOST_ROWS:
                break
            rows, samples = 2 * rows, better
        facts = {"steps": rows, "end": end, "error": float(f"{error:.3g}")}
        self.log(
            f"teacher: {rows} steps; twice as many change its samples by"
            f" {100 * error**0.5:.2g}% (rms)"
        )
        if not error <= 10 * _CONVERGED:
            raise InvalidArgumentError(
                f"the teacher has not converged: {2 * rows} steps change the samples of {rows} by"
                f" {100 * error**0.5:.2g}% (rms): set more `teacher_steps`, or check the network"
            )
        drawn = self.options.n + self._fresh_count
        cost = predict.evaluations + drawn * rows * predict.evaluations_each
        cost += self._fresh_count if self._by == "moments" else 0  # of their features
        return facts | {"evaluations": cost}

    @property
    def _fresh_count(self) -> int:
        return max(32, round(_FRESH * self.options.n))

    @cached_property
    def learning(self) -> Noises:
        """The noises to learn from."""
        return self._noises(range(self.options.n))

    @cached_property
    def fresh(self) -> Noises:
        """The noises to choose by."""
        first = self.options.n
        noises = self._noises(range(first, first + self._fresh_count))
        if self._by == "moments":
            noises.prepare_moments()
        return noises

    def _noises(self, samples: range) -> Noises:
        rows, end = self.teacher["steps"], self.teacher["end"]
        return Noises.draw(self._make, samples, self.guidance, rows, end)

    def run(
        self,
        num_steps: int,
        kept: Sequence[Mapping[str, Any]] = (),
        keep: Callable[[list[dict[str, Any]]], object] = lambda done: None,
    ) -> TunedPlan:
        """Tune a plan.

        Args:
            num_steps: S.
            kept: Stages that an interrupted run has finished.
            keep: Called with all finished stages after each one, as values for JSON.
        """
        self.check(num_steps)
        done = [Done(**stage) for stage in kept]
        minutes = self.options.minutes
        clock = Clock(time.monotonic(), printed=time.monotonic())
        clock.deadline = math.inf if minutes is None else clock.began + 60 * minutes
        for stage in self.options.stages[len(done) :]:
            done.append(self._stage(stage, num_steps, done, clock))
            keep([asdict(one) for one in done])
        best = min(done, key=lambda one: one.losses[self._by])
        if not math.isfinite(best.losses[self._by]):
            raise SamplingError(
                f"no plan of {num_steps} steps gives finite values on fresh noises: check the"
                " network's weights and precision"
            )
        return TunedPlan(
            plan=best.learned(self.model).plan(f"tuned, S = {num_steps}"),
            model=self._digest,
            condition=self._kind,
            guidance=self.guidance,
            clip=self.clip,
            precision=self.options.precision,
            record=self._record(done, best),
        )

    @property
    def _by(self) -> str:
        """The loss that chooses among the stages."""
        return "moments" if "moments" in self.options.stages else "paths"

    @property
    def _kind(self) -> str:
        data = self.model.config.data
        if self.condition is None:
            return "none"
        return "classes" if data.classes is not None else "mel" if data.mel else "tensor"

    def _record(self, done: Sequence[Done], best: Done) -> dict[str, Any]:
        return {
            "noises": self.options.n,
            "fresh_noises": len(self.fresh),
            "seed": self.options.seed,
            "teacher": dict(self.teacher),
            "stages": [one.facts for one in done],
            "chosen": best.stage,
            "rows": [float(f"{far:.3g}") for far in self.fresh.along(best.learned(self.model))],
            "evaluations": sum(one.evaluations for one in done),
            "seconds": round(sum(one.seconds for one in done), 1),
        }

    def _stage(self, stage: str, num_steps: int, done: Sequence[Done], clock: Clock) -> Done:
        """Do a stage."""
        learning, fresh = self.learning, self.fresh
        began, before = time.monotonic(), learning.evaluations + fresh.evaluations
        name, more = f"S = {num_steps}, {stage}", 0
        if stage == "levels":
            learned, more = self._levels(name, num_steps, clock)
        else:
            spent = sum(one.evaluations for one in done)
            learned, more = self._refined(name, stage, done[-1].learned(self.model), spent, clock)
        losses = dict(fresh.losses(learned, moments=self._by == "moments"))
        shown = ", ".join(f"{kind} {value:.3g}" for kind, value in losses.items())
        count = learning.evaluations + fresh.evaluations - before + more
        seconds = time.monotonic() - began
        self.log(f"{name}: {shown} on fresh noises; {count:,} evaluations, {seconds:.0f} s")
        table = learned.table.tolist()
        return Done(stage, learned.log_snr.tolist(), table, count, seconds, losses)

    def _levels(self, name: str, num_steps: int, clock: Clock) -> tuple[Learned, int]:
        """The levels, with coefficients in closed form, and the cost of the search."""
        few, many = (self.learning.first(count) for count in (_SCOUTS, _SEARCHED))
        limit, tried = round(_SEARCH * self.options.evaluations), 0

        def spent() -> int:
            return few.evaluations + many.evaluations

        def stop(loss: float) -> bool:
            nonlocal tried
            tried += 1
            if clock.due:
                left = max(0.0, (time.monotonic() - clock.began) * (limit / spent() - 1))
                self.log(f"{name}: {tried} tried, distance {loss:.3g}, at most {left:.0f} s left")
            return spent() >= limit or clock.over

        best = search_levels(few, many, num_steps, stop)
        try:
            learned, _ = fit(self.learning.predict, self.learning.paths, best.learned.log_snr)
        except SamplingError:
            self.log(f"{name}: not all noises give finite values, so fewer decide")
            learned = best.learned
        return learned, spent()

    def _refined(
        self, name: str, stage: str, learned: Learned, spent: int, clock: Clock
    ) -> tuple[Learned, int]:
        """The best of the iterations on fresh noises, and their cost."""
        moments, num_steps = stage == "moments", learned.num_rows
        each = self.learning.predict.evaluations_each * refinement.evaluations(num_steps)
        each += refinement.count_numbers(num_steps) if moments else 0
        left = self.options.evaluations - spent
        noises = self._fitting(left // (_REFINED * each))
        residual = noises.to_moments if moments else noises.to_paths
        best, least = learned, math.inf
        steps = refinement.refine(noises.predict, learned, residual, _ITERATIONS[stage])
        for number, step in enumerate(steps):
            loss = self.fresh.losses(step.learned, moments=moments)[stage]
            if step.rejected:
                attempts = counted(step.rejected, "step")
                self.log(f"{name}: {attempts} to values that are not finite, taken back")
            self.log(f"{name}: {loss:.3g} on fresh noises after {counted(number, 'iteration')}")
            if loss < least:
                best, least = step.learned, loss
            if clock.over or noises.evaluations + len(noises) * each > left:
                break
        return best, noises.evaluations

    def _fitting(self, count: int) -> Noises:
        """So many noises, but not too few to learn from, and as many as there are at most."""
        return self.learning.first(min(max(count, _FEWEST), self.options.n))


def _spread(condition: Tensor | None) -> Tensor | None:
    """Conditions in random order, so that the first ones are no special ones."""
    if condition is None:
        return None
    order = np.random.default_rng(0).permutation(len(condition))
    return condition[torch.from_numpy(order)]


def _check_steady(predict: DataPredictor) -> None:
    """Check that the network answers the same question twice in the same way.

    Raises:
        InvalidArgumentError: If it does not.
    """
    level = float(predict.schedule.levels[predict.schedule.num_train_steps // 2])
    one, two = (predict(predict.start, level) for _ in range(2))
    if not torch.allclose(one, two, rtol=1e-3, atol=1e-3):
        raise InvalidArgumentError(
            "the network answers the same question differently each time: call network.eval(), or"
            " remove its randomness"
        )


@checked
def tune(
    model: Model,
    num_steps: int,
    *,
    options: TuneOptions | None = None,
    clip: str | None = None,
    guidance_scale: GuidanceLike | None = None,
    condition: Condition | None = None,
    class_labels: ClassLabels | None = None,
    log: Log = lambda line: None,
) -> TunedPlan:
    """Learn a plan for a network: no data, no training and no gradients are needed.

    A teacher of many steps draws samples from some noises. Levels are then searched whose
    coefficients, in closed form, lead from the same noises to nearly the same samples; at last
    levels and coefficients are improved together, until also the moments of the network's own
    features agree.

    Args:
        model: The model.
        num_steps: Network evaluations S of the plan, below the teacher's.
        options: Options.
        clip: What is clipped; by default as in the model's recipe.
        guidance_scale: Scale of classifier-free guidance, one number; by default as in the
            model's recipe.
        condition: Conditions, (m, ...), which the noises take in turn; by default the model's own.
        class_labels: Class labels, likewise.
        log: Called with one line of text now and then.

    Raises:
        InvalidArgumentError: If an argument is invalid or does not fit the model, there are too
            few noises, the teacher has not converged, or the network answers the same question
            differently.
        SamplingError: If the network's output is unusable.
    """
    tuning = Tuning(
        model,
        options,
        clip=clip,
        guidance_scale=guidance_scale,
        condition=condition,
        class_labels=class_labels,
        log=log,
    )
    return tuning.run(num_steps)
