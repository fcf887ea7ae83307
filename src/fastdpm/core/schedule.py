"""Variance schedules, and the bijection between real-valued steps and noise levels.

Paper -> code: T -> ``num_train_steps``, beta_t -> ``betas``, R(t) -> ``VarianceSchedule.R``,
T(r) -> ``VarianceSchedule.T``. A level r = sqrt(alpha_bar) is a signal scale in (0, 1]; 1 is clean
data. Steps are one-based here, as in the paper: t = 0 is clean data and R(t) = sqrt(alpha_bar_t).
Source: Kong & Ping 2021, arXiv:2106.00132, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.limits import MAX_TRAIN_STEPS, check_limit

Array = NDArray[np.float64]

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_SHIFT = np.arange(20.0)


@dataclass(frozen=True, eq=False)
class VarianceSchedule:
    """The variances that a network was trained with, extended to real-valued steps.

    Build one with :meth:`linear`, :meth:`scaled_linear`, :meth:`cosine` or :meth:`from_betas`.

    Attributes:
        betas: Variances beta_1 ... beta_T, shape (T,), each in (0, 1); index 0 is step 1.
        config: The arguments that rebuild the schedule through :meth:`from_config`.
        levels: R at the integer steps 0 ... T, shape (T + 1,), strictly falling from 1.
    """

    betas: Array
    config: dict[str, Any]
    _log_level: Callable[[Array], Array] = field(repr=False)
    levels: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", self.R(np.arange(self.num_train_steps + 1.0)))
        for table in (self.betas, self.levels):
            table.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return VarianceSchedule.from_config, (self.config,)

    @classmethod
    @checked
    def linear(
        cls, num_train_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
    ) -> VarianceSchedule:
        """Create a schedule of evenly spaced variances.

        Real-valued steps use the closed form in Gamma functions.

        Raises:
            InvalidArgumentError: Unless T >= 1 and 0 < beta_start <= beta_end < 1.

        Source: Kong & Ping 2021, arXiv:2106.00132, eq. 8.
        """
        betas = _ramp(num_train_steps, beta_start, beta_end)
        config = {
            "type": "linear",
            "num_train_steps": num_train_steps,
            "beta_start": beta_start,
            "beta_end": beta_end,
        }
        slope = (beta_end - beta_start) / max(num_train_steps - 1, 1)

        def gamma_form(t: Array) -> Array:
            return 0.5 * (t * math.log1p(-beta_start) + _log_gamma_ratio(t, beta_start, slope))

        # At integers the cumulative sum is more accurate than the closed form (error 1e-13).
        steps = np.arange(1.0, num_train_steps + 1)
        correction = 0.5 * np.cumsum(np.log1p(-betas)) - gamma_form(steps)
        return cls(betas, config, lambda t: gamma_form(t) + np.interp(t, steps, correction))

    @classmethod
    @checked
    def scaled_linear(
        cls, num_train_steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> VarianceSchedule:
        """Create a schedule of variances with evenly spaced square roots (latent diffusion).

        Raises:
            InvalidArgumentError: Unless T >= 1 and 0 < beta_start <= beta_end < 1.

        Source: Rombach et al. 2022, arXiv:2112.10752.
        """
        ends = _ramp(num_train_steps, beta_start, beta_end)
        betas = np.linspace(math.sqrt(ends[0]), math.sqrt(beta_end), num_train_steps) ** 2
        config = {
            "type": "scaled_linear",
            "num_train_steps": num_train_steps,
            "beta_start": beta_start,
            "beta_end": beta_end,
        }
        return cls(betas, config, _interpolated(betas))

    @classmethod
    @checked
    def cosine(cls, num_train_steps: int = 1000, max_beta: float = 0.999) -> VarianceSchedule:
        """Create a schedule whose alpha_bar is a squared cosine, with betas up to ``max_beta``.

        Raises:
            InvalidArgumentError: Unless T >= 1 and 0 < max_beta < 1.

        Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17.
        """
        _check_num_train_steps(num_train_steps)
        if not 0.0 < max_beta < 1.0:
            raise InvalidArgumentError(f"`max_beta` must be in (0, 1), got {max_beta}")
        angle = (np.arange(num_train_steps + 1) / num_train_steps + 0.008) / 1.008 * np.pi / 2
        alpha_bar = np.cos(angle) ** 2
        betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)
        config = {"type": "cosine", "num_train_steps": num_train_steps, "max_beta": max_beta}
        return cls(betas, config, _interpolated(betas))

    @classmethod
    @checked
    def from_betas(cls, betas: ArrayLike) -> VarianceSchedule:
        """Create a schedule from any variances beta_1 ... beta_T, shape (T,).

        Between integer steps, log R is interpolated by monotone cubics (PCHIP).

        Raises:
            InvalidArgumentError: If ``betas`` is empty, not one-dimensional, ends below its start,
                or has a value outside (0, 1). A last beta of 1 (zero terminal SNR) has no level.
        """
        table = np.array(betas, dtype=np.float64)
        if table.ndim != 1 or table.size == 0:
            raise InvalidArgumentError(f"`betas` must have shape (T,), got {table.shape}")
        check_limit("the number of `betas`", table.size, MAX_TRAIN_STEPS)
        bad = np.flatnonzero(~((table > 0) & (table < 1)))
        if bad.size:
            raise InvalidArgumentError(
                f"`betas` must be in (0, 1), got {table[bad[0]]:g} at step {bad[0] + 1} of"
                f" {table.size}: rescale the schedule, or drop a last step with zero signal"
            )
        if table[-1] < table[0] * (1 - 1e-6):
            raise InvalidArgumentError(
                f"`betas` must rise from clean data to noise, got {table[0]:g} at step 1 and"
                f" {table[-1]:g} at step {table.size}: reverse them"
            )
        config = {"type": "betas", "betas": table.tolist()}
        return cls(table, config, _interpolated(table))

    @classmethod
    @checked
    def from_config(cls, config: dict[str, Any]) -> VarianceSchedule:
        """Rebuild a schedule from its ``config``.

        Raises:
            InvalidArgumentError: If the type is unknown, or its arguments are invalid.
        """
        builders: dict[str, Callable[..., VarianceSchedule]] = {
            "linear": cls.linear,
            "scaled_linear": cls.scaled_linear,
            "cosine": cls.cosine,
            "betas": cls.from_betas,
        }
        arguments = dict(config)
        kind = arguments.pop("type", None)
        check_one_of("schedule type", kind, builders)
        try:
            return builders[str(kind)](**arguments)
        except TypeError as error:
            raise InvalidArgumentError(
                f"schedule {kind!r} does not take {arguments}: {error}"
            ) from None

    @property
    def num_train_steps(self) -> int:
        """Number of training steps T."""
        return self.betas.size

    @property
    def alpha_bar(self) -> Array:
        """Squared signal scales of steps 1 ... T, shape (T,); index 0 is step 1."""
        return np.asarray(np.cumprod(1 - self.betas))

    @checked
    def R(self, t: ArrayLike) -> Array:
        """Compute the level of a real-valued step.

        Args:
            t: One-based step or steps in [0, T]; 0 is clean data.

        Returns:
            Levels of the same shape, strictly decreasing in ``t``, with R(0) = 1 and
            R(n) = sqrt(alpha_bar_n) at every integer n.

        Raises:
            InvalidArgumentError: If a step is outside [0, T].

        Source: Kong & Ping 2021, arXiv:2106.00132, section 3.1.
        """
        step = np.asarray(t, dtype=np.float64)
        _check_within("t", step, 0.0, float(self.num_train_steps))
        return np.asarray(np.exp(self._log_R(step)))

    @checked
    def T(self, r: ArrayLike) -> Array:
        """Compute the real-valued step of a level; the inverse of :meth:`R`.

        Args:
            r: Level or levels in [R(T), 1].

        Returns:
            One-based steps of the same shape in [0, T]; T(1) = 0 and T(R(T)) = T exactly.

        Raises:
            InvalidArgumentError: If a level is outside [R(T), 1].
        """
        level = np.asarray(r, dtype=np.float64)
        _check_within("level", level, float(self.levels[-1]), 1.0)
        return self._invert(level.ravel()).reshape(level.shape)

    def _log_R(self, t: Array) -> Array:
        """Log R; linear on [0, 1], so that R is strictly decreasing there on every schedule."""
        first = 0.5 * t * math.log1p(-self.betas[0])
        return np.where(t <= 1, first, self._log_level(np.maximum(t, 1.0)))

    def _invert(self, level: Array) -> Array:
        """Bisect between neighboring integer steps, to the last bit."""
        target = np.log(level)
        upper = np.searchsorted(-self.levels, -level).astype(np.float64)
        exact = self.levels[upper.astype(np.intp)] == level
        low, high = np.maximum(upper - 1, 0.0), upper.copy()
        for _ in range(60):
            middle = 0.5 * (low + high)
            above = self._log_R(middle) > target
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        step = np.where(exact, upper, 0.5 * (low + high))
        # Rounding of the level moves the step by less than this: return the integer step.
        nearest = np.rint(step)
        return np.where(np.abs(step - nearest) < 1e-9, nearest, step)


def _check_num_train_steps(num_train_steps: int) -> None:
    if num_train_steps < 1:
        raise InvalidArgumentError(f"`num_train_steps` must be at least 1, got {num_train_steps}")
    check_limit("`num_train_steps`", num_train_steps, MAX_TRAIN_STEPS)


def _ramp(num_train_steps: int, beta_start: float, beta_end: float) -> Array:
    _check_num_train_steps(num_train_steps)
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise InvalidArgumentError(
            "`beta_start` and `beta_end` must satisfy 0 < beta_start <= beta_end < 1,"
            f" got {beta_start:g} and {beta_end:g}"
        )
    return np.linspace(beta_start, beta_end, num_train_steps)


def _check_within(name: str, values: Array, low: float, high: float) -> None:
    outside = values[~((values >= low) & (values <= high))]
    if outside.size:
        raise InvalidArgumentError(
            f"`{name}` must be in [{low:.6g}, {high:.6g}], got {outside.flat[0]:.6g}"
        )


def _log_gamma_ratio(t: Array, beta_start: float, slope: float) -> Array:
    """Ln Gamma(b + 1) - ln Gamma(b - t + 1) - t ln b with b = (1 - beta_1) / slope.

    The error is about 1e-13. Subtracting library log-Gammas would lose digits (1e-10), too many
    to invert R. Instead, the recurrence raises both arguments by 20, and Stirling's series is
    written with log1p so that its large terms cancel symbolically.
    """
    if slope == 0:
        return np.zeros_like(t)
    b = (1 - beta_start) / slope
    w = b + 1 - t
    raised = w + _SHIFT.size
    steps = np.log1p(t[..., None] / (w[..., None] + _SHIFT)).sum(axis=-1)
    stirling = (raised - 0.5) * np.log1p(t / raised) - t + t * math.log1p((_SHIFT.size + 1) / b)
    return np.asarray(stirling + _stirling_tail(raised + t) - _stirling_tail(raised) - steps)


def _stirling_tail(z: Array) -> Array:
    return np.asarray(sum(c / z ** (2 * k + 1) for k, c in enumerate(_STIRLING)))


def _interpolated(betas: Array) -> Callable[[Array], Array]:
    """Monotone cubic interpolation of log R at the integer steps 1 ... T, strict at both ends."""
    knots = np.arange(1.0, betas.size + 1)
    values = 0.5 * np.cumsum(np.log1p(-betas))
    if betas.size == 1:
        return lambda t: np.full_like(t, values[0])
    from scipy.interpolate import CubicHermiteSpline, PchipInterpolator

    slopes = PchipInterpolator(knots, values).derivative()(knots)
    # PCHIP sets an end slope to 0 where the next secant is over three times steeper.
    secants = np.diff(values)
    slopes[0] = min(slopes[0], secants[0] / 4)
    slopes[-1] = min(slopes[-1], secants[-1] / 4)
    spline = CubicHermiteSpline(knots, values, slopes)
    return lambda t: np.asarray(spline(t))
