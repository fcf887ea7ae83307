"""Recipes: the few choices that define a plan, as users and model folders state them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from fastdpm.core import samplers
from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.choices import complete_choice, find_choice
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceScale
from fastdpm.core.levels import (
    NoiseLevels,
    check_num_steps,
    levels_all,
    levels_custom,
    levels_from_variances,
)
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.structure import LEFT_OUT

CLIPS = ("none", "x0", "dynamic", "state")
PRECISIONS = {"float32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # torch's names
_CUSTOM = ("at_levels", "at_steps", "variances")
_COMPUTED = ("num_steps", "levels", "spacing", "bounded", "start")


@checked_class
@dataclass(frozen=True)
class Recipe:
    """How to sample: a sampler and its noise levels, which :meth:`compile` turns into a plan.

    Attributes:
        num_steps: Network evaluations S, from 1 to T; most samplers take one step for each. The
            standard samplers ignore it and take all T steps.
        levels: How levels are chosen: by variance ("var"), by training step ("step") or by noise
            scale ("sigma").
        spacing: Spacing of the levels, such as "linear" or "quadratic"; see
            :data:`fastdpm.core.choices.CHOICES`.
        kappa: Stochasticity in [0, 1] of "ddim-rev"; 0 is DDIM-rev, 1 is DDPM-rev.
        method: Name of a sampler in :data:`fastdpm.core.samplers.SAMPLERS`.
        clip: What to clip: "none"; the predicted clean data, to [-1, 1] ("x0") or to a dynamic
            range ("dynamic", dynamic thresholding); or the state after each row, to [-1, 1]
            ("state", as in LMNT's DiffWave).
        bounded: Keep the authors' bound on VAR's variances.
        start: Where STEP quadratic starts, as a share of T in (0, 1]; None is the authors' 0.8.
        at_levels: Custom levels, rising. They replace ``levels``, ``spacing`` and ``num_steps``.
        at_steps: Custom zero-based real-valued steps, falling. They replace the same choices.
        variances: Custom variances, clean end first. They replace the same choices.
        guidance_scale: Scale of classifier-free guidance, or one for each row of the plan; 1 is no
            guidance. See :class:`fastdpm.core.GuidanceScale`.
        guidance_interval: Lowest and highest noise level with guidance, each in (0, 1].
        guidance_rescale: How far the guided prediction is rescaled, in [0, 1].

    Raises:
        InvalidArgumentError: If a value is invalid, or two of them contradict each other.
    """

    num_steps: int = 20
    levels: str = "step"
    spacing: str = "linear"
    kappa: float = 0.0
    method: str = "ddim-rev"
    clip: str = "none"
    bounded: bool = True
    start: float | None = None
    at_levels: tuple[float, ...] | None = None
    at_steps: tuple[float, ...] | None = None
    variances: tuple[float, ...] | None = None
    guidance_scale: float | tuple[float, ...] = field(default=1.0, metadata=LEFT_OUT)
    guidance_interval: tuple[float, float] | None = None
    guidance_rescale: float = field(default=0.0, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        self._check_choice()
        check_one_of("clip", self.clip, CLIPS)
        if not 0.0 <= self.kappa <= 1.0:
            raise InvalidArgumentError(f"`kappa` must be in [0, 1], got {self.kappa}")
        if not (self.sampler.takes_kappa or self.takes_all_steps) and self.kappa != 0:
            raise InvalidArgumentError(
                f"method {self.method!r} takes no kappa: leave `kappa` at 0, got {self.kappa}"
            )
        if self.num_steps < 1:
            raise InvalidArgumentError(f"`num_steps` must be at least 1, got {self.num_steps}")
        custom = [name for name in _CUSTOM if getattr(self, name) is not None]
        for name in custom:
            if not getattr(self, name):
                raise InvalidArgumentError(f"`{name}` must hold at least one number, got none")
        if len(custom) > 1:
            raise InvalidArgumentError(f"pass only one of {_join(custom)}")
        for name, value in vars(self.guidance).items():
            object.__setattr__(self, f"guidance_{name}", value)

    def _check_choice(self) -> None:
        choice = find_choice(self.levels, self.spacing)
        if self.start is not None and not choice.takes_start:
            raise InvalidArgumentError(f"{choice.title} has no `start`: drop it")
        if self.start is not None and not 0 < self.start <= 1:
            raise InvalidArgumentError(f"`start` must be in (0, 1], got {self.start:g}")

    @property
    def guidance(self) -> GuidanceScale:
        """The scale of guidance, with its interval and how far it is rescaled."""
        return GuidanceScale(self.guidance_scale, self.guidance_interval, self.guidance_rescale)

    @property
    def bare(self) -> Recipe:
        """The recipe without clipping and guidance, which are not part of a plan."""
        unguided = {f"guidance_{name}": value for name, value in vars(NO_GUIDANCE).items()}
        return replace(self, clip="none", **unguided)

    @property
    def sampler(self) -> samplers.Sampler:
        """The sampler that ``method`` names."""
        return samplers.find(self.method)

    @property
    def custom(self) -> tuple[float, ...] | None:
        """The custom levels, steps or variances, or None."""
        stated = (getattr(self, name) for name in _CUSTOM)
        return next((numbers for numbers in stated if numbers is not None), None)

    @property
    def takes_all_steps(self) -> bool:
        """Whether ``method`` always takes all T training steps."""
        return self.sampler.all_steps

    @property
    def stochasticity(self) -> float:
        """The kappa of first-order rows: 1 for the standard samplers, else ``kappa``."""
        return 1.0 if self.takes_all_steps else self.kappa

    def change(self, name: str | None = None, **choices: Any) -> Recipe:
        """Replace choices of a recipe that was perhaps found by its name; see :meth:`replace`.

        Raises:
            InvalidArgumentError: Also if it was found by its name, has custom levels, and a choice
                would replace these.
        """
        idle = [name for name in (*_COMPUTED, *_CUSTOM) if choices.get(name) is not None]
        if name is not None and self.custom is not None and idle:
            raise InvalidArgumentError(
                f"recipe {name!r} has {len(self.custom)} levels of its own: drop {_join(idle)}"
            )
        return self.replace(**choices)

    def replace(self, **choices: Any) -> Recipe:
        """Return the recipe with ``choices`` replaced; a choice of None keeps its value.

        Raises:
            InvalidArgumentError: If a choice would have no effect next to another one.
        """
        changes = {name: value for name, value in choices.items() if value is not None}
        if "guidance_scale" in changes:
            guidance = GuidanceScale.of(changes.pop("guidance_scale"), self.guidance)
            changes = {f"guidance_{n}": value for n, value in vars(guidance).items()} | changes
        sampler = samplers.find(changes.get("method", self.method))
        custom, computed = changes.keys() & _CUSTOM, changes.keys() & _COMPUTED
        if custom and computed:
            raise InvalidArgumentError(
                f"{_join(computed)} would have no effect with {_join(custom)}: drop one of them"
            )
        unused = changes.keys() & {*_CUSTOM, *_COMPUTED, "kappa"} if sampler.all_steps else set()
        if unused:
            raise InvalidArgumentError(
                f"method {sampler.name!r} always takes all training steps: drop {_join(unused)}"
            )
        changes |= complete_choice(self.levels, self.spacing, changes)
        choice = find_choice(changes["levels"], changes["spacing"])
        if not choice.takes_start:
            changes.setdefault("start", None)
        if changes.get("bounded") is False and not choice.bounded:
            raise InvalidArgumentError("only VAR levels have a bound: set `levels` to var")
        if computed or custom:
            changes = dict.fromkeys(_CUSTOM) | changes
        if not (sampler.takes_kappa or sampler.all_steps):
            changes.setdefault("kappa", 0.0)
        return replace(self, **changes)

    def describe(self) -> str:
        """Describe the recipe in a few words."""
        guidance = f", {text}" if (text := self.guidance.describe()) else ""
        if self.takes_all_steps:
            return f"{self.method}, all steps{guidance}"
        custom = self.custom
        levels = (
            f"{len(custom)} custom levels"
            if custom
            else f"{find_choice(self.levels, self.spacing).title}, S = {self.num_steps}"
        )
        stochastic = f", kappa = {self.kappa:g}" if self.sampler.takes_kappa else ""
        levels += f", start {self.start:g}" if self.start is not None and not custom else ""
        clip = "" if self.clip == "none" else f", clip {self.clip}"
        return f"{self.method}, {levels}{stochastic}{clip}{guidance}"

    @checked
    def choose_levels(self, schedule: VarianceSchedule) -> NoiseLevels:
        """Choose S noise levels on a schedule; the standard samplers take all of them."""
        return self._levels(schedule, self.num_steps)

    def _levels(self, schedule: VarianceSchedule, count: int) -> NoiseLevels:
        if self.takes_all_steps:
            return levels_all(schedule)
        if self.variances is not None:
            return levels_from_variances(schedule, self.variances)
        if self.at_levels is not None or self.at_steps is not None:
            return levels_custom(schedule, level=self.at_levels, t=self.at_steps)
        choice = find_choice(self.levels, self.spacing)
        options: dict[str, Any] = {}
        if choice.bounded and not self.bounded:
            options["bounded"] = False
        if self.start is not None:
            options["start"] = self.start
        return choice.function(schedule, count, **options)

    @checked
    def compile(self, schedule: VarianceSchedule) -> Plan:
        """Compile the plan on a schedule."""
        if self.takes_all_steps:
            return self.sampler.function(schedule)
        count = None
        if self.custom is None:
            count = self.num_steps
            check_num_steps(schedule, count)
        levels = self._levels(schedule, self.sampler.steps(self.num_steps))
        return self.sampler.over(levels, schedule, self.kappa, count).trimmed


def _join(names: Iterable[str]) -> str:
    return " and ".join(f"`{name}`" for name in sorted(names))
