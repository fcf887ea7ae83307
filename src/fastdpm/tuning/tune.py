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
from fastdpm.data.condition import ClassLabels, Condition, one_condition
from fastdpm.models.identity import model_digest
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan
from fastdpm.tuning import refine as refinement
from fastdpm.tuning.noises import Noises
from fastdpm.tuning.options import TuneOptions
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.stages import Clock, Done, Log, Work
from fastdpm.tuning.teacher import ROWS, check_steady, converged

_FRESH = 0.5  # fresh noises for each one that is learned from
_CHECKED = 32  # noises of the check of the teacher


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
        self._held: tuple[int, Noises] | None = None
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
        rows = self.options.teacher_steps or ROWS
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
        check_steady(predict)
        facts = converged(predict, self.options.teacher_steps, self.options.teacher_end, self.log)
        drawn = self.options.n * self.options.seeds + self._fresh_count
        cost = predict.evaluations + drawn * facts["steps"] * predict.evaluations_each
        if self.options.chosen_by == "moments":
            cost += self._fresh_count  # of their features, once
        return facts | {"evaluations": cost}

    @property
    def _fresh_count(self) -> int:
        return max(32, round(_FRESH * self.options.n))

    def _learning(self, repeat: int) -> Noises:
        """The noises that a repeat learns from; those of one repeat are held at a time."""
        if self._held is None or self._held[0] != repeat:
            count, self._held = self.options.n, None
            after_fresh = repeat * count + self._fresh_count
            first = after_fresh if repeat else 0
            self._held = repeat, self._noises(range(first, first + count))
        return self._held[1]

    @cached_property
    def fresh(self) -> Noises:
        """The noises to choose by."""
        first = self.options.n
        noises = self._noises(range(first, first + self._fresh_count))
        if self.options.chosen_by == "moments":
            noises.prepare_moments()
        return noises

    def _noises(self, samples: range) -> Noises:
        rows, end = self.teacher["steps"], self.teacher["end"]
        clock = Clock.start(None)

        def after_row(row: int) -> None:
            if clock.due:
                left = f"about {clock.left((row + 1) / rows):.0f} s left"
                self.log(f"teacher: {row + 1} of {rows} steps from {len(samples)} noises, {left}")

        return Noises.draw(self._make, samples, self.guidance, rows, end, after_row)

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
        stages = self.options.stages
        self._prepare(len(done) // len(stages))
        clock = Clock.start(self.options.minutes)
        for number in range(len(done), len(stages) * self.options.seeds):
            repeat, place = divmod(number, len(stages))
            if place == 0 and done and clock.over:
                break
            before, stage = done[number - place :], stages[place]
            done.append(self._work(repeat, clock).do(stage, num_steps, repeat, before))
            keep([asdict(one) for one in done])
        best = min(done, key=lambda one: one.losses[self.options.chosen_by])
        if not math.isfinite(best.losses[self.options.chosen_by]):
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

    def _work(self, repeat: int, clock: Clock) -> Work:
        began = time.monotonic()
        learning = self._learning(repeat)
        clock.deadline += time.monotonic() - began  # the teacher's time does not count
        return Work(learning, self.fresh, self.options, clock, self.log)

    def _prepare(self, repeat: int) -> None:
        """Draw the teacher's trajectories before the time of one S counts."""
        _ = self.fresh
        if repeat < self.options.seeds:
            self._learning(repeat)

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
            "seeds": self.options.seeds,
            "teacher": dict(self.teacher),
            "stages": [one.facts for one in done],
            "chosen": best.stage,
            "repeat": best.repeat,
            "rows": [float(f"{far:.3g}") for far in self.fresh.along(best.learned(self.model))],
            "evaluations": sum(one.evaluations for one in done),
            "seconds": round(sum(one.seconds for one in done), 1),
        }


def _spread(condition: Tensor | None) -> Tensor | None:
    """Conditions in random order, so that the first ones are no special ones."""
    if condition is None:
        return None
    order = np.random.default_rng(0).permutation(len(condition))
    return condition[torch.from_numpy(order)]


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
