"""Recipes: the handful of choices that name a plan, as people and model folders write them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import (
    SPACINGS,
    NoiseLevels,
    levels_from_variances,
    levels_given,
    levels_step,
    levels_var,
)
from fastdpm.core.multistep import dpmpp_2m, dpmpp_3m, multistep_3
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev, standard
from fastdpm.core.schedule import VarianceSchedule

MULTISTEP: dict[str, Callable[[NoiseLevels], Plan]] = {
    "dpmpp-2m": dpmpp_2m,
    "dpmpp-3m": dpmpp_3m,
    "multistep-3": multistep_3,
}
STANDARD = {"standard": "small", "standard-large": "large", "standard-learned": "learned"}
METHODS = ("ddim-rev", *MULTISTEP, *STANDARD)
LEVELS = ("var", "step")
CLIPS = ("none", "x0", "dynamic")
_BY_HAND = ("at_levels", "at_steps", "variances")
_CHOSEN = ("num_steps", "levels", "spacing", "bounded")


@dataclass(frozen=True)
class Recipe:
    """How to sample, from which :meth:`compile` makes a plan.

    Attributes:
        num_steps: S, from 2 to T; the standard samplers take all T whatever it says.
        levels: "var" or "step".
        spacing: "linear" or "quadratic".
        kappa: Stochasticity in [0, 1] of "ddim-rev"; 0 is DDIM-rev, 1 is DDPM-rev.
        method: "ddim-rev", "dpmpp-2m", "dpmpp-3m", "multistep-3", "standard" (fixed small
            variance), "standard-large" or, where the network learned it, "standard-learned".
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
        check_one_of("levels", self.levels, LEVELS)
        check_one_of("spacing", self.spacing, SPACINGS)
        check_one_of("method", self.method, METHODS)
        check_one_of("clip", self.clip, CLIPS)
        if not 0.0 <= self.kappa <= 1.0:
            raise InvalidArgumentError(f"kappa must be in [0, 1], got {self.kappa}")
        if self.method in MULTISTEP and self.kappa != 0:
            raise InvalidArgumentError(
                f"method {self.method!r} draws no noise: leave kappa at 0, got {self.kappa}"
            )
        by_hand = [v for v in (self.at_levels, self.at_steps, self.variances) if v is not None]
        if len(by_hand) > 1:
            raise InvalidArgumentError("give levels, steps or variances by hand, one of them only")

    def replace(self, **choices: Any) -> Recipe:
        """The recipe with every choice that is not None put in its place.

        Raises:
            InvalidArgumentError: If a stated choice would change nothing beside another.
        """
        given = {name: value for name, value in choices.items() if value is not None}
        method = given.get("method", self.method)
        by_hand, chosen = given.keys() & _BY_HAND, given.keys() & _CHOSEN
        if by_hand and chosen:
            raise InvalidArgumentError(
                f"{_and(by_hand)} leaves nothing to choose for {_and(chosen)}: drop one of them"
            )
        idle = given.keys() & {*_BY_HAND, *_CHOSEN, "kappa"} if method in STANDARD else set()
        if idle:
            raise InvalidArgumentError(
                f"method {method!r} takes every training step as it is: drop {_and(idle)}"
            )
        if given.get("bounded") is False and given.get("levels", self.levels) != "var":
            raise InvalidArgumentError("only VAR levels have a bound: add levels 'var'")
        if chosen or by_hand:
            given = dict.fromkeys(_BY_HAND) | given
        if method in MULTISTEP:
            given.setdefault("kappa", 0.0)
        return replace(self, **given)

    def describe(self) -> str:
        """The recipe in a few words."""
        if self.method in STANDARD:
            return f"{self.method}, all steps"
        by_hand = self.variances or self.at_levels or self.at_steps
        chosen = (
            f"{len(by_hand)} levels by hand"
            if by_hand
            else f"{self.levels.upper()} {self.spacing}, S = {self.num_steps}"
        )
        stochastic = f", kappa = {self.kappa:g}" if self.method == "ddim-rev" else ""
        clip = "" if self.clip == "none" else f", clip {self.clip}"
        return f"{self.method}, {chosen}{stochastic}{clip}"

    def choose_levels(self, schedule: VarianceSchedule) -> NoiseLevels:
        """The noise levels on a schedule."""
        if self.variances is not None:
            return levels_from_variances(schedule, self.variances)
        if self.at_levels is not None or self.at_steps is not None:
            return levels_given(schedule, level=self.at_levels, t=self.at_steps)
        if self.levels == "step":
            return levels_step(schedule, self.num_steps, self.spacing)
        return levels_var(schedule, self.num_steps, self.spacing, bounded=self.bounded)

    def compile(self, schedule: VarianceSchedule) -> Plan:
        """The plan on a schedule."""
        if self.method in STANDARD:
            return standard(schedule, STANDARD[self.method])
        levels = self.choose_levels(schedule)
        if self.method in MULTISTEP:
            return MULTISTEP[self.method](levels)
        return ddim_rev(levels, self.kappa)


def _and(names: Iterable[str]) -> str:
    return " and ".join(sorted(names))
