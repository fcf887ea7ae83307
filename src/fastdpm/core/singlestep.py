"""Plans that take two evaluations per step: Heun and DPM-Solver-2.

In s = sqrt(1 - r^2) / r the probability-flow equation is d(x / r) / ds = eps. A step begins with a
row that leads to a second level, evaluates the network there, and then takes the whole step from
its start with both predictions, or with the second one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.history import scales
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import VarianceSchedule


@checked
def heun(
    levels: NoiseLevels, schedule: VarianceSchedule, num_evaluations: int | None = None
) -> Plan:
    """Compile Heun's method: the mean of the predictions at both ends of a step.

    Args:
        levels: The levels of the steps.
        schedule: The schedule that the levels belong to.
        num_evaluations: 2 n for n levels: the last step, if it ends at clean data, evaluates the
            network at half of its scale s instead of its end. Or 2 n - 1, with an Euler row at
            the end, which is the default for levels that end at clean data.

    Raises:
        InvalidArgumentError: If ``num_evaluations`` is neither.

    Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
    """
    return _compile("Heun", levels, schedule, num_evaluations, lambda _, end: end, 0.5)


@checked
def dpm_solver_2(
    levels: NoiseLevels, schedule: VarianceSchedule, num_evaluations: int | None = None
) -> Plan:
    """Compile DPM-Solver-2: the prediction in the middle of a step, in log s.

    Args:
        levels: The levels of the steps.
        schedule: The schedule that the levels belong to.
        num_evaluations: 2 n for n levels: the last step, if it ends at clean data, evaluates the
            network at half of its scale s. Or 2 n - 1, with an Euler row at the end, which is the
            default for levels that end at clean data.

    Raises:
        InvalidArgumentError: If ``num_evaluations`` is neither.

    Source: Lu et al. 2022, arXiv:2206.00927, algorithm 4 with r1 = 1/2.
    """

    def middle(start: float, end: float) -> float:
        return float(np.sqrt(start * end))

    return _compile("DPM-Solver-2", levels, schedule, num_evaluations, middle, 1.0)


def _compile(
    name: str,
    levels: NoiseLevels,
    schedule: VarianceSchedule,
    num_evaluations: int | None,
    second: Callable[[float, float], float],
    share: float,
) -> Plan:
    """Steps whose second prediction, at scale ``second(start, end)``, has the weight ``share``."""
    scale = scales(levels.level)
    level, t = [float(levels.level[0])], []
    a: list[list[float]] = []
    b: list[list[float]] = []

    def add(step: float, end: float, weights: list[float]) -> None:
        """Add a row from the last level, or from the one before it if it has two weights."""
        back = len(weights)
        t.append(step)
        level.append(end)
        a.append([0.0] * (back - 1) + [end / level[-1 - back]] + [0.0] * (2 - back))
        b.append([end * weight for weight in weights] + [0.0] * (2 - back))

    single = _ends_with_euler(levels, num_evaluations)
    for s in range(levels.num_steps):
        start, end = float(scale[s]), float(scale[s + 1])
        final = s == levels.num_steps - 1
        if final and single:
            add(levels.t[s], levels.level[-1], [end - start])
            continue
        middle, weight = (start / 2, 1.0) if end == 0 else (second(start, end), share)
        r = levels.level[s + 1] if middle == end else 1 / np.hypot(1, middle)
        add(levels.t[s], r, [middle - start])
        t_middle = levels.t[s + 1] if middle == end and not final else schedule.T(r) - 1
        step = end - start
        add(float(t_middle), levels.level[s + 1], [weight * step, (1 - weight) * step])
    label = f"{name} over {levels.label}"
    level_table, t_table, a_table, b_table = map(np.array, (level, t, a, b))
    return Plan(level_table, t_table, a_table, b_table, np.zeros(len(t)), label, levels.notes)


def _ends_with_euler(levels: NoiseLevels, num_evaluations: int | None) -> bool:
    """Whether the last row is a step of its own, by the number of evaluations."""
    whole = 2 * levels.num_steps
    if num_evaluations not in (None, whole - 1, whole):
        raise InvalidArgumentError(
            f"`num_evaluations` of {levels.num_steps} steps must be {whole - 1} or {whole}, got"
            f" {num_evaluations}"
        )
    return num_evaluations == whole - 1 or (num_evaluations is None and levels.level[-1] == 1)
