"""Noise levels for S sampling steps: VAR, STEP, or custom.

Paper -> code: r_S < ... < r_1 < r_0 = 1 -> ``NoiseLevels.level`` (sampling order, noise first),
t_s - 1 -> ``NoiseLevels.t`` (zero-based, as networks expect), eta_s -> the variances of VAR.
Source: Kong & Ping 2021, arXiv:2106.00132, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.errors import InvalidArgumentError, check_one_of, shown
from fastdpm.core.schedule import Array, VarianceSchedule

_WELL_ABOVE = 0.05  # levels


@checked_class
@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """S + 1 noise levels in sampling order, and the S steps for the network.

    Attributes:
        level: Signal scales, shape (S + 1,), strictly rising; all but the last are in (0, 1), the
            last in (0, 1] (1 is clean data).
        t: Steps for the network, shape (S,), zero-based and not rounded. T(level) - 1 is in
            (-1, 0) for levels cleaner than the first training step.
        label: A description of how they were chosen.
        notes: Remarks for the user, such as a bound that took effect.

    Raises:
        InvalidArgumentError: If the levels are not strictly rising or out of range.
    """

    level: Array
    t: Array
    label: str = "levels"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        level = np.array(self.level, dtype=np.float64)
        t = np.array(self.t, dtype=np.float64)
        if level.ndim != 1 or level.size < 2 or t.shape != (level.size - 1,):
            raise InvalidArgumentError(
                f"S steps `t` need S + 1 levels in `level`, got shapes {t.shape} and {level.shape}"
            )
        if not np.all(np.isfinite(t)):
            raise InvalidArgumentError("every step must be finite")
        check_rising(level)
        for name, table in (("level", level), ("t", t)):
            table.flags.writeable = False
            object.__setattr__(self, name, table)

    @property
    def num_steps(self) -> int:
        """Number of steps S, one network evaluation each."""
        return self.t.size

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, rows: slice) -> NoiseLevels:
        """Take a contiguous part of the chain; ``levels[2:]`` skips the two noisiest steps."""
        if not isinstance(rows, slice):
            raise InvalidArgumentError(
                f"`rows` must be a slice, as in levels[2:], got {shown(rows)}: index .level or .t"
                " instead"
            )
        start, stop, step = rows.indices(self.num_steps)
        if step != 1 or stop <= start:
            raise InvalidArgumentError(
                f"a slice of {self.num_steps} steps must be non-empty and contiguous, got {rows}"
            )
        label = f"{self.label}, rows {start} to {stop - 1}"
        return NoiseLevels(self.level[start : stop + 1], self.t[start:stop], label, self.notes)


def check_falling(level: Array) -> None:
    """Raise unless levels fall towards noise.

    A level may be repeated, by a row that corrects the predicted state at that level.
    """
    check_rising(np.unique(level))
    rises = np.flatnonzero(np.diff(level) > 0)
    if rises.size or level[-1] == level[0]:
        row = int(rises[0]) if rises.size else 0
        raise InvalidArgumentError(
            f"level {row + 1} is {level[row + 1]:.6g} after {level[row]:.6g}: levels must rise"
            " strictly towards data, or fall towards noise"
        )


def check_rising(level: Array) -> None:
    """Raise unless levels rise strictly and are in (0, 1), or (0, 1] for the last one."""
    check_inside(level)
    falls = np.flatnonzero(np.diff(level) <= 0)
    if falls.size:
        row = int(falls[0])
        raise InvalidArgumentError(
            f"level {row + 1} is {level[row + 1]:.6g} after {level[row]:.6g}: levels must rise"
            " strictly in sampling order, from noise to clean data"
        )


def check_inside(level: Array) -> None:
    """Raise unless levels are in (0, 1), or (0, 1] for the last one."""
    inside = (level > 0) & (level < 1)
    inside[-1] = 0 < level[-1] <= 1
    if not inside.all():
        row = int(np.flatnonzero(~inside)[0])
        raise InvalidArgumentError(
            f"level {row} of {level.size} is {level[row]:.6g}: levels must be in (0, 1), and only"
            " the last may be 1"
        )


@checked
def levels_step(
    schedule: VarianceSchedule,
    num_steps: int,
    spacing: str = "linear",
    *,
    start: float | None = None,
) -> NoiseLevels:
    """STEP: choose S of the T training steps, and their levels.

    Args:
        schedule: The schedule the network was trained with.
        num_steps: S, from 1 to T. S = 1 takes step T - 1.
        spacing: "linear" spreads the steps evenly over 0 ... T - 1; "quadratic" places step i at
            floor(0.8 T i^2 / (S - 1)^2), denser towards clean data. Repeated steps are merged.
        start: Where "quadratic" starts, as a share of T in (0, 1]; the authors' 0.8 by default. If
            the chain starts well above R(T), ``notes`` says so.

    Raises:
        InvalidArgumentError: If ``num_steps`` or ``spacing`` is out of range, or ``start`` is, or
            is set for "linear".

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.2.
    """
    _check_choice(schedule, num_steps, spacing)
    label = f"STEP {spacing}, S = {num_steps}"
    if start is not None:
        if spacing == "linear":
            raise InvalidArgumentError("`start` is for quadratic spacing: drop it")
        if not 0 < start <= 1:
            raise InvalidArgumentError(f"`start` must be in (0, 1], got {start:g}")
        label += f", start = {start:g}"
    if num_steps == 1:
        return single_level(schedule, label)
    total, last = schedule.num_train_steps, num_steps - 1
    if spacing == "linear":
        steps = [i * (total - 1) // last for i in range(num_steps)]
    else:
        share = Fraction(4, 5) if start is None else Fraction(start).limit_denominator(10**6)
        steps = [min(int(share * total * i * i / last**2), total - 1) for i in range(num_steps)]
    t = np.array(sorted(set(steps), reverse=True), dtype=np.float64)
    return levels_of_steps(schedule, t, num_steps, label)


@checked
def levels_var(
    schedule: VarianceSchedule, num_steps: int, spacing: str = "linear", *, bounded: bool = True
) -> NoiseLevels:
    """VAR: choose S rising variances that lead from clean data to R(T), and their levels.

    Args:
        schedule: The schedule the network was trained with.
        num_steps: S, from 1 to T. S = 1 takes step T - 1.
        spacing: "linear" uses eta_s = beta_1 + (s - 1) x; "quadratic" uses
            eta_s = beta_1 (1 + (s - 1) x)^2. x is solved for.
        bounded: Keep the authors' bound on x (eta_S <= 0.99, or x <= 0.95 / (S sqrt(beta_1))).
            If the bound takes effect, the chain starts at a cleaner level than R(T), and ``notes``
            says so.

    Raises:
        InvalidArgumentError: If an argument is out of range, or no such variances exist.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.2, and the bound of the authors' code.
    """
    _check_choice(schedule, num_steps, spacing)
    label = f"VAR {spacing}, S = {num_steps}"
    if num_steps == 1:
        return single_level(schedule, label)
    beta, index = float(schedule.betas[0]), np.arange(num_steps)

    def variances(x: float) -> Array:
        eta = beta + index * x if spacing == "linear" else beta * (1 + index * x) ** 2
        return np.asarray(eta, dtype=np.float64)

    if spacing == "linear":
        bound, limit = (0.99 - beta) / (num_steps - 1), (1 - beta) / (num_steps - 1)
    else:
        bound = 0.95 / (num_steps * math.sqrt(beta))
        limit = (1 / math.sqrt(beta) - 1) / (num_steps - 1)
    limit *= 1 - 1e-12
    bound = min(max(bound, 0.0), limit)  # with a large beta_1, eta_S < 1 is stricter
    excess = _product_excess(variances, float(np.log(schedule.levels[-1])))
    notes = []
    if bounded and excess(bound) > 0:
        level = _levels_of(variances(bound))
        notes.append(
            f"the noisiest level is {level[0]:.4g}, cleaner than that of the training"
            f" ({schedule.levels[-1]:.4g}), because VAR keeps the authors' bound on its variances;"
            " bounded=False (--unbounded on the command line) lifts the bound"
        )
    else:
        level = _levels_of(variances(_root(excess, limit, label)))
    t = schedule.T(np.maximum(level[:-1], schedule.levels[-1])) - 1
    return NoiseLevels(level, t, label, tuple(notes))


@checked
def levels_from_variances(schedule: VarianceSchedule, variances: ArrayLike) -> NoiseLevels:
    """Compute the levels of custom variances eta_1 ... eta_S, as audio models publish them.

    Args:
        schedule: The schedule the network was trained with.
        variances: Shape (S,), each in (0, 1), clean end first.

    Raises:
        InvalidArgumentError: If a variance is outside (0, 1), or the first level is below R(T).

    Source: Kong et al. 2021, arXiv:2009.09761, section 3.1 (fast sampling).
    """
    eta = np.atleast_1d(np.asarray(variances, dtype=np.float64))
    if eta.ndim != 1 or not eta.size or not np.all((eta > 0) & (eta < 1)):
        raise InvalidArgumentError(
            f"`variances` must be numbers in (0, 1), got {eta.tolist() or 'none'}"
        )
    level = _levels_of(eta)
    low = float(schedule.levels[-1])
    if level[0] < low * (1 - 1e-12):
        raise InvalidArgumentError(
            f"`variances` lead to level {level[0]:.4g}, noisier than the schedule's R(T) ="
            f" {low:.4g}: use smaller variances"
        )
    label, notes = f"{eta.size} custom variances", _note_of_start(schedule, level)
    if eta.size > 1 and np.all(np.diff(eta) < 0):
        rising = ",".join(map(str, eta[::-1].tolist()))
        notes = (
            *notes,
            "the variances fall from the clean end to the noisy end; if you listed the noisy end"
            f" first, pass them in the other order: {rising}",
        )
    return NoiseLevels(level, schedule.T(np.maximum(level[:-1], low)) - 1, label, notes)


@checked
def levels_custom(
    schedule: VarianceSchedule,
    *,
    level: ArrayLike | None = None,
    t: ArrayLike | None = None,
    end: float = 1.0,
) -> NoiseLevels:
    """Choose each level, or each zero-based step, in sampling order (noise first).

    Args:
        schedule: The schedule the network was trained with.
        level: S levels in [R(T), 1), rising.
        t: S real-valued zero-based steps in (-1, T - 1], falling. Pass either ``level`` or ``t``.
        end: The level at which to stop; 1 is clean data.

    Raises:
        InvalidArgumentError: If both or neither of ``level`` and ``t`` are passed, or a value is
            out of order or out of range.
    """
    if not 0 < end <= 1:
        raise InvalidArgumentError(f"`end` must be in (0, 1], got {end:g}")
    if (level is None) == (t is None):
        raise InvalidArgumentError("pass exactly one of `level` and `t`")
    if np.asarray(level if t is None else t).size == 0:
        raise InvalidArgumentError("`level` and `t` must hold at least one value, got none")
    if t is not None:
        step = np.atleast_1d(np.asarray(t, dtype=np.float64))
        outside = step[~((step > -1) & (step <= schedule.num_train_steps - 1))]
        if outside.size:
            raise InvalidArgumentError(
                f"steps `t` must be in (-1, {schedule.num_train_steps - 1}], got {outside[0]:g}"
            )
        rising = np.flatnonzero(np.diff(step) >= 0)
        if rising.size:
            before, after = step[rising[0] : rising[0] + 2]
            raise InvalidArgumentError(
                f"steps `t` must fall from noise to data, got {after:g} after {before:g}"
            )
        value = schedule.R(step + 1)
    else:
        value = np.atleast_1d(np.asarray(level, dtype=np.float64))
        check_rising(np.append(value, end))
        step = schedule.T(value) - 1
    label, notes = f"{step.size} custom levels", _note_of_start(schedule, value)
    return NoiseLevels(np.append(value, end), step, label, notes)


@checked
def levels_all(schedule: VarianceSchedule) -> NoiseLevels:
    """Take all T training steps, as the standard sampler does."""
    total = schedule.num_train_steps
    return NoiseLevels(schedule.levels[::-1], np.arange(total - 1.0, -1, -1), f"all {total} steps")


def levels_of_steps(
    schedule: VarianceSchedule, t: Array, num_steps: int, label: str
) -> NoiseLevels:
    """The levels of distinct steps, with notes on merged ones and on a start far from R(T)."""
    level, notes = np.append(schedule.R(t + 1), 1.0), []
    if len(t) < num_steps:
        notes.append(
            f"{num_steps} steps were chosen, of which {len(t)} differ: equal ones were merged"
        )
    remedy = "; `start` = 1 for quadratic steps, or another spacing, starts at R(T)"
    notes += _note_of_start(schedule, level, _WELL_ABOVE, remedy)
    return NoiseLevels(level, t, label, tuple(notes))


def _note_of_start(
    schedule: VarianceSchedule, level: Array, margin: float = 0.01, remedy: str = ""
) -> tuple[str, ...]:
    """A note on levels that start more than ``margin`` above R(T)."""
    low = float(schedule.levels[-1])
    if level[0] <= low + margin:
        return ()
    return (
        f"sampling starts at level {level[0]:.4g}, cleaner than R(T) = {low:.4g}: the network"
        f" expects some signal there, and pure noise has none{remedy}",
    )


def check_num_steps(schedule: VarianceSchedule, num_steps: int) -> None:
    """Raise InvalidArgumentError unless 1 <= S <= T."""
    if not 1 <= num_steps <= schedule.num_train_steps:
        raise InvalidArgumentError(
            f"`num_steps` (S) must be in [1, {schedule.num_train_steps}] (T), got {num_steps}"
        )


def _check_choice(schedule: VarianceSchedule, num_steps: int, spacing: str) -> None:
    check_num_steps(schedule, num_steps)
    check_one_of("spacing", spacing, ("linear", "quadratic"))


def single_level(schedule: VarianceSchedule, label: str) -> NoiseLevels:
    """A single step from R(T) to clean data."""
    return NoiseLevels(
        np.array([schedule.levels[-1], 1.0]), np.array([schedule.num_train_steps - 1.0]), label
    )


def _levels_of(variances: Array) -> Array:
    """The levels sqrt(prod (1 - eta_s)) in sampling order, with clean data (1) last."""
    return np.append(np.exp(0.5 * np.cumsum(np.log1p(-variances)))[::-1], 1.0)


def _product_excess(variances: Callable[[float], Array], log_r: float) -> Callable[[float], float]:
    return lambda x: float(np.log1p(-variances(x)).sum() - 2 * log_r)


def _root(excess: Callable[[float], float], upper: float, label: str) -> float:
    """Solve for the x at which the product of all 1 - eta_s is alpha_bar_T."""
    if abs(excess(0.0)) < 1e-12:
        return 0.0
    if not excess(0.0) >= 0 >= excess(upper):
        raise InvalidArgumentError(
            f"{label}: no rising variances from beta_1 lead to this schedule's R(T): choose"
            " another `num_steps`, or STEP levels"
        )
    from scipy.optimize import brentq

    return float(brentq(excess, 0.0, upper, xtol=1e-300, rtol=8.9e-16, maxiter=1000))
