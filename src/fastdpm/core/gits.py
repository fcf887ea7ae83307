"""GITS: the noise levels over which a chain of Euler steps follows the trajectories of a model.

A teacher draws trajectories over N + 1 levels, and ``cost[i, j]`` says how badly one Euler step (a
row of DDIM-rev) from its state i reaches its state j. With V_1(i) = cost[i, N], the recursion

    V_k(i) = min over j > i of (cost[i, j] + coeff V_(k-1)(j))

is the least cost of k steps from level i to clean data, in which a step counts ``coeff`` times as
much as the one before it. The schedule is the path of V_S(0). Costs may be negative, because
levels only rise: every path is finite, and has exactly S steps.
Source: Chen et al. 2024, arXiv:2405.11326.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.errors import InvalidArgumentError, shown
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.schedule import Array, VarianceSchedule

_TABLES = ("level", "cost")
_SAME_LEVEL = 1e-9


@checked_class
@dataclass(frozen=True, eq=False)
class TrajectoryCosts:
    """What one Euler step between any two levels of a model's trajectories costs.

    :func:`fastdpm.models.trajectory_costs` computes them.

    Attributes:
        level: Levels of the trajectories, shape (N + 1,), strictly rising from R(T) to 1.
        cost: Cost of a step from level i to level j > i, shape (N + 1, N + 1); it may be negative.
            Other entries are ignored, and kept as 0.

    Raises:
        InvalidArgumentError: If shapes disagree, the levels are out of order or out of range, or a
            cost is not finite.
    """

    level: Array
    cost: Array

    def __post_init__(self) -> None:
        level = np.array(self.level, dtype=np.float64)
        if level.ndim != 1 or level.size < 2:
            raise InvalidArgumentError(
                f"`level` must have N + 1 levels, at least 2, got {shown(level)}"
            )
        if not (np.all(np.diff(level) > 0) and level[0] > 0 and level[-1] == 1):
            raise InvalidArgumentError(
                f"`level` must rise strictly in (0, 1] and end at 1, got {level.tolist()}"
            )
        if np.shape(self.cost) != (level.size, level.size):
            raise InvalidArgumentError(
                f"`cost` must have shape {(level.size, level.size)}, a row and a column for each"
                f" of the levels, got {np.shape(self.cost)}"
            )
        cost = np.triu(self.cost, 1)
        if not np.all(np.isfinite(cost)):
            raise InvalidArgumentError("every `cost` of a step must be finite")
        for name, table in zip(_TABLES, (level, cost), strict=True):
            table.flags.writeable = False
            object.__setattr__(self, name, table)

    @property
    def num_steps(self) -> int:
        """Number of steps N of the trajectories, and the most that a schedule can have."""
        return self.level.size - 1

    def to_dict(self) -> dict[str, Any]:
        """Convert to values for JSON, from which :meth:`from_dict` restores every number."""
        return {name: getattr(self, name).tolist() for name in _TABLES}

    @classmethod
    @checked
    def from_dict(cls, data: Mapping[str, Any]) -> TrajectoryCosts:
        """Read what :meth:`to_dict` wrote.

        Raises:
            InvalidArgumentError: If a key is missing or unknown, or the costs are invalid.
        """
        if data.keys() != set(_TABLES):
            raise InvalidArgumentError(
                f"`data` must have the keys {' and '.join(_TABLES)}, got {shown(list(data))}"
            )
        return cls(**data)


@checked
def levels_gits(
    schedule: VarianceSchedule, num_steps: int, costs: TrajectoryCosts, *, coeff: float = 1.0
) -> NoiseLevels:
    """Choose the S levels of a model's trajectories that Euler steps follow at the least cost.

    Args:
        schedule: The schedule the network was trained with.
        num_steps: S, from 1 to the number of steps N of the trajectories.
        costs: Costs of the steps, from :func:`fastdpm.models.trajectory_costs`.
        coeff: How many times as much each step counts as the one before it, above 0. Larger values
            place more levels near clean data. The paper has 1.15, for costs that are not scaled by
            the level: those are ``TrajectoryCosts(costs.level, costs.cost / costs.level)``.

    Raises:
        InvalidArgumentError: If ``num_steps`` or ``coeff`` is out of range, or ``costs`` belong to
            another schedule.

    Source: Chen et al. 2024, arXiv:2405.11326.
    """
    first, low = float(costs.level[0]), float(schedule.levels[-1])
    if abs(first - low) > _SAME_LEVEL:
        raise InvalidArgumentError(
            f"`costs` belong to another schedule: they start at level {first:.9g}, and this one at"
            f" R(T) = {low:.9g}"
        )
    if not 1 <= num_steps <= costs.num_steps:
        raise InvalidArgumentError(
            f"`num_steps` (S) must be in [1, {costs.num_steps}], the steps of the trajectories in"
            f" `costs`, got {num_steps}"
        )
    level = costs.level[cheapest_path(costs.cost, num_steps, coeff)]
    level[0] = low
    return NoiseLevels(level, schedule.T(level[:-1]) - 1, f"GITS, S = {num_steps}")


def cheapest_path(cost: Array, num_steps: int, coeff: float) -> NDArray[np.intp]:
    """The rising path of the least cost from the first level to the last one.

    Args:
        cost: Cost of a step from i to j > i, shape (N + 1, N + 1).
        num_steps: Steps S of the path, from 1 to N.
        coeff: How many times as much each step counts as the one before it, above 0.

    Returns:
        Indices of the levels, shape (S + 1,), from 0 to N. Of equal paths, the one whose next
        level is the noisiest.

    Raises:
        InvalidArgumentError: If ``coeff`` is out of range.
    """
    if not 0 < coeff < np.inf:
        raise InvalidArgumentError(f"`coeff` must be above 0 and finite, got {coeff:g}")
    step = np.where(np.triu(np.ones_like(cost, dtype=bool), 1), cost, np.inf)
    value, following = step[:, -1], []
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(num_steps - 1):
            total = step + coeff * value
            value = total.min(axis=1)
            following.append(total.argmin(axis=1))
    if not np.isfinite(value[0]):
        raise InvalidArgumentError(
            f"`coeff` is too large for {num_steps} steps: their cost is not finite at {coeff:g}"
        )
    path = [0]
    for choice in reversed(following):
        path.append(int(choice[path[-1]]))
    return np.array([*path, len(cost) - 1])
