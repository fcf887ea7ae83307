"""How strongly each network evaluation of a sampler follows its condition.

Classifier-free guidance replaces a prediction by

    eps = eps_null + scale (eps_condition - eps_null),

where eps_null is the prediction without a condition. At scale 1 it is the prediction for the
condition, and at 0 that without: both take one evaluation, and every other scale takes two.
Sources: Ho & Salimans 2022, arXiv:2207.12598, eq. 6 with scale = 1 + w; Kynkäänniemi et al. 2024,
arXiv:2404.07724, for intervals; Lin et al. 2023, arXiv:2305.08891, section 3.4, for rescaling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from fastdpm.core.errors import InvalidArgumentError, shown
from fastdpm.core.schedule import Array
from fastdpm.core.structure import LEFT_OUT, plain

_MAX_SCALE = 10_000
ScaleAt = Callable[[float], float]
"""A scale of guidance by noise level."""


class GuidanceArguments(TypedDict):
    """The arguments of a guided network; see :class:`fastdpm.sampling.Guidance`."""

    guidance_scale: float | ScaleAt
    guidance_rescale: float


@dataclass(frozen=True)
class GuidanceScale:
    """The scale of classifier-free guidance, for all rows of a plan or for each.

    Attributes:
        scale: Scale of every row, or one scale for each row of the plan. 1 is no guidance, 0
            ignores the condition, above 1 strengthens it, and below 0 leads away from it. At most
            10,000 in size.
        interval: Lowest and highest noise level with guidance, each in (0, 1], where 1 is clean
            data; outside of them the scale is 1. None for all levels.
        rescale: How far the standard deviation of the guided prediction is restored to that of
            the prediction for the condition, in [0, 1]; 0 leaves it.

    Raises:
        InvalidArgumentError: If a value is out of range, or has no effect with the others.
    """

    scale: float | tuple[float, ...] = 1.0
    interval: tuple[float, float] | None = None
    rescale: float = field(default=0.0, metadata=LEFT_OUT)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _scale(self.scale))
        object.__setattr__(self, "rescale", _rescale(self.rescale))
        if self.interval is not None:
            object.__setattr__(self, "interval", self._checked_interval())
        idle = [name for name in ("interval", "rescale") if getattr(self, name)]
        if idle and not self.enabled:
            raise InvalidArgumentError(
                f"{' and '.join(f'`guidance_{name}`' for name in idle)} would have no effect with"
                " a `guidance_scale` of 1: drop it, or set another scale"
            )

    def _checked_interval(self) -> tuple[float, float]:
        ends: Any = self.interval
        try:
            low, high = (_number("guidance_interval", value) for value in tuple(ends))
        except (TypeError, ValueError, RuntimeError):
            low = high = math.nan  # refused below
        if not 0 < low < high <= 1:
            raise InvalidArgumentError(
                "`guidance_interval` must be two noise levels, rising, in (0, 1], where 1 is clean"
                f" data, got {shown(ends)}"
            )
        if isinstance(self.scale, tuple):
            raise InvalidArgumentError(
                "`guidance_scale` already has a scale for each row: drop `guidance_interval`"
            )
        return low, high

    @classmethod
    def of(cls, value: GuidanceLike | None, default: GuidanceScale | None = None) -> GuidanceScale:
        """The scale that an argument stands for.

        Args:
            value: None stands for ``default``. A number keeps the interval of ``default``, and
                numbers keep its rescaling; a scale with all its settings is taken as it is.
            default: No guidance if it is None.
        """
        default = default or NO_GUIDANCE
        if value is None:
            return default
        if isinstance(value, GuidanceScale):
            return value
        found = cls(value)  # type: ignore[arg-type]
        if not found.enabled or not default.enabled:
            return found
        interval = None if isinstance(found.scale, tuple) else default.interval
        return cls(found.scale, interval, default.rescale)

    @property
    def enabled(self) -> bool:
        """Whether the scale of any row is not 1."""
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        return any(scale != 1 for scale in scales)

    def per_row(self, level: Array) -> Array:
        """The scale of each row, shape (S,).

        Args:
            level: Noise levels at which the rows evaluate the network, shape (S,).

        Raises:
            InvalidArgumentError: If there is a scale for each row, but not S of them, or rows at
                the same level have different scales.
        """
        if not isinstance(self.scale, tuple):
            low, high = self.interval or (0.0, 1.0)
            return np.where((level >= low) & (level <= high), self.scale, 1.0)
        if len(self.scale) != len(level):
            raise InvalidArgumentError(
                f"`guidance_scale` must be one number or have one for each of the {len(level)}"
                f" rows, got {len(self.scale)}"
            )
        pairs = set(zip(level.tolist(), self.scale, strict=True))
        if len(pairs) > len(set(level.tolist())):
            raise InvalidArgumentError(
                "`guidance_scale` must be the same in rows that evaluate the network at the same"
                " level: pass one number"
            )
        return np.array(self.scale)

    def over(self, level: Array) -> GuidanceArguments:
        """The arguments of a network that is evaluated at these levels; see :meth:`per_row`."""
        if not self.enabled:
            return {"guidance_scale": 1.0, "guidance_rescale": 0.0}
        table = dict(zip(level.tolist(), self.per_row(level).tolist(), strict=True))
        return {"guidance_scale": table.__getitem__, "guidance_rescale": self.rescale}

    def evaluations(self, level: Array, evaluated: Array | None = None) -> int:
        """Network evaluations of rows at these levels, summed; see :meth:`per_row`.

        Args:
            level: Noise levels of the rows that :meth:`per_row` takes.
            evaluated: Those at which the network is evaluated, among ``level``; all by default.
        """
        table = dict(zip(level.tolist(), self.per_row(level).tolist(), strict=True))
        rows = level if evaluated is None else evaluated
        return sum(count_evaluations(table[r], self.rescale) for r in rows.tolist())

    @property
    def record(self) -> dict[str, Any] | None:
        """The guidance as values for JSON; None if there is none."""
        return plain(self) if self.enabled else None

    def describe(self) -> str:
        """Describe the guidance in a few words; empty if there is none."""
        if not self.enabled:
            return ""
        numbers = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        text = f"guidance {' '.join(f'{number:.12g}' for number in numbers)}"
        if self.interval is not None:
            text += f" at levels {self.interval[0]:.12g} to {self.interval[1]:.12g}"
        return text + (f", rescaled by {self.rescale:.12g}" if self.rescale else "")


GuidanceLike = GuidanceScale | float | Sequence[float]
"""What arguments called ``guidance_scale`` accept."""


def count_evaluations(scale: float, rescale: float = 0.0) -> int:
    """Network evaluations of a prediction at a scale: 1 or 2."""
    return 1 if scale == 1 or (scale == 0 and rescale == 0) else 2


def _scale(value: Any) -> float | tuple[float, ...]:
    """A number or a tuple of numbers."""
    empty = getattr(value, "is_meta", False)  # a tensor of PyTorch without numbers
    plain = value.tolist() if hasattr(value, "tolist") and not empty else value
    if not isinstance(plain, list | tuple):
        return _number("guidance_scale", plain)
    if not plain:
        raise InvalidArgumentError("`guidance_scale` must have at least one number, got none")
    return tuple(_number("guidance_scale", number) for number in plain)


def _rescale(value: Any) -> float:
    """A number in [0, 1]."""
    number = _float(value)
    if not 0 <= number <= 1:
        got = f"{number:g}" if math.isfinite(number) else shown(value)
        raise InvalidArgumentError(f"`guidance_rescale` must be in [0, 1], got {got}")
    return number


def _number(name: str, value: Any) -> float:
    """A finite number as a float."""
    number = _float(value)
    if abs(number) <= _MAX_SCALE:
        return number
    raise InvalidArgumentError(
        f"`{name}` must be a number of at most {_MAX_SCALE:,} in size, got {shown(value)}"
    )


def _float(value: Any) -> float:
    """A value as a float; NaN if it is no number."""
    try:
        return math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


NO_GUIDANCE = GuidanceScale()
