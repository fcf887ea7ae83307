"""Recipes: the handful of choices that name a plan, as people and model folders write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastdpm.core import samplers
from fastdpm.core.choices import find_choice
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import (
    NoiseLevels,
    levels_all,
    levels_custom,
    levels_from_variances,
)
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import VarianceSchedule

CLIPS = ("none", "x0", "dynamic")
PRECISIONS = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
_BY_HAND = ("at_levels", "at_steps", "variances")
_CHOSEN = ("num_steps", "levels", "spacing", "bounded")


@dataclass(frozen=True)
class Recipe:
    """How to sample, from which :meth:`compile` makes a plan.

    Attributes:
        num_steps: S, from 1 to T; the standard samplers take all T whatever it says.
        levels: "var" or "step"; a first name of :data:`fastdpm.core.choices.CHOICES`.
        spacing: "linear" or "quadratic"; the second name.
        kappa: Stochasticity in [0, 1] of "ddim-rev"; 0 is DDIM-rev, 1 is DDPM-rev.
        method: A name of :data:`fastdpm.core.samplers.SAMPLERS`.
        clip: What is done to the clean data that a prediction implies: "none", "x0" (clip it to
            [-1, 1]) or "dynamic" (threshold it).
        bounded: Keep the authors' bound on VAR's variances.
        at_levels: Levels by hand, rising; in place of ``levels``, ``spacing`` and ``num_steps``.
        at_steps: Zero-based real-valued steps by hand, falling; likewise.
        variances: Variances by hand, clean end first; likewise.

    Raises:
        InvalidArgumentError: If a choice does not exist, or two of them contradict each other.
    """

    num_steps: int = 20
    levels: str = "step"
    spacing: str = "linear"
    kappa: float = 0.0
    method: str = "ddim-rev"
    clip: str = "none"
    bounded: bool = True
    at_levels: tuple[float, ...] | None = None
    at_steps: tuple[float, ...] | None = None
    variances: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        find_choice(self.levels, self.spacing)
        check_one_of("clip", self.clip, CLIPS)
        if not 0.0 <= self.kappa <= 1.0:
            raise InvalidArgumentError(f"`kappa` must be in [0, 1], got {self.kappa}")
        if not (self.sampler.takes_kappa or self.takes_all_steps) and self.kappa != 0:
            raise InvalidArgumentError(
                f"method {self.method!r} draws no noise: leave `kappa` at 0, got {self.kappa}"
            )
        by_hand = [v for v in (self.at_levels, self.at_steps, self.variances) if v is not None]
        if len(by_hand) > 1:
            raise InvalidArgumentError("give levels, steps or variances by hand, one of them only")

    @property
    def sampler(self) -> samplers.Sampler:
        """The row of ``method``."""
        return samplers.find(self.method)

    @property
    def takes_all_steps(self) -> bool:
        """Whether ``method`` takes all T training steps as they are."""
        return self.sampler.all_steps

    @property
    def stochasticity(self) -> float:
        """The kappa that rows of first order have: 1 for the standard samplers."""
        return 1.0 if self.takes_all_steps else self.kappa

    def replace(self, **choices: Any) -> Recipe:
        """The recipe with every choice that is not None put in its place.

        Raises:
            InvalidArgumentError: If a stated choice would change nothing beside another.
        """
        given = {name: value for name, value in choices.items() if value is not None}
        sampler = samplers.find(given.get("method", self.method))
        by_hand, chosen = given.keys() & _BY_HAND, given.keys() & _CHOSEN
        if by_hand and chosen:
            raise InvalidArgumentError(
                f"{_and(by_hand)} leaves nothing to choose for {_and(chosen)}: drop one of them"
            )
        idle = given.keys() & {*_BY_HAND, *_CHOSEN, "kappa"} if sampler.all_steps else set()
        if idle:
            raise InvalidArgumentError(
                f"method {sampler.name!r} takes every training step as it is: drop {_and(idle)}"
            )
        levels, spacing = (given.get(name, getattr(self, name)) for name in ("levels", "spacing"))
        if given.get("bounded") is False and not find_choice(levels, spacing).bounded:
            raise InvalidArgumentError("only VAR levels have a bound: add `levels` 'var'")
        if chosen or by_hand:
            given = dict.fromkeys(_BY_HAND) | given
        if not (sampler.takes_kappa or sampler.all_steps):
            given.setdefault("kappa", 0.0)
        return replace(self, **given)

    def describe(self) -> str:
        """The recipe in a few words."""
        if self.takes_all_steps:
            return f"{self.method}, all steps"
        by_hand = self.variances or self.at_levels or self.at_steps
        chosen = (
            f"{len(by_hand)} levels by hand"
            if by_hand
            else f"{find_choice(self.levels, self.spacing).title}, S = {self.num_steps}"
        )
        stochastic = f", kappa = {self.kappa:g}" if self.sampler.takes_kappa else ""
        clip = "" if self.clip == "none" else f", clip {self.clip}"
        return f"{self.method}, {chosen}{stochastic}{clip}"

    def choose_levels(self, schedule: VarianceSchedule) -> NoiseLevels:
        """The noise levels on a schedule; all of them for the standard samplers."""
        if self.takes_all_steps:
            return levels_all(schedule)
        if self.variances is not None:
            return levels_from_variances(schedule, self.variances)
        if self.at_levels is not None or self.at_steps is not None:
            return levels_custom(schedule, level=self.at_levels, t=self.at_steps)
        choice = find_choice(self.levels, self.spacing)
        unbounded = {} if self.bounded or not choice.bounded else {"bounded": False}
        return choice.function(schedule, self.num_steps, **unbounded)

    def compile(self, schedule: VarianceSchedule) -> Plan:
        """The plan on a schedule."""
        if self.takes_all_steps:
            return self.sampler.function(schedule)
        return self.sampler.over(self.choose_levels(schedule), self.kappa)


def _and(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in sorted(names))
