"""Restart sampling: DDIM that goes back to noise once and repeats a part of the way.

The new noise takes the place of errors that have added up.
"""

from __future__ import annotations

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev


@checked
def restart(levels: NoiseLevels, num_evaluations: int | None = None) -> Plan:
    """Compile restart sampling over levels: the last rows but one are taken twice.

    The row that ends at the last level before clean data draws noise that leads back to an earlier
    level, so a plan of n levels and k repeated rows takes n + k evaluations.

    Args:
        levels: The n levels.
        num_evaluations: n + k, from n to 2 n - 2; by default, k is a third of n.

    Raises:
        InvalidArgumentError: If ``num_evaluations`` is out of range.

    Source: Xu et al. 2023, arXiv:2306.14878, algorithm 2, with one iteration.
    """
    steps = levels.num_steps
    longest = max(2 * steps - 2, steps)
    count = min(steps + steps // 3, longest) if num_evaluations is None else num_evaluations
    if not steps <= count <= longest:
        raise InvalidArgumentError(
            f"`num_evaluations` of {steps} levels must be in [{steps}, {longest}], got"
            f" {num_evaluations}"
        )
    repeated = count - steps
    plan = ddim_rev(levels)
    label = f"restart over {levels.label}"
    if not repeated:
        return Plan(plan.level, plan.t, plan.a, plan.b, plan.c, label, levels.notes)
    last = steps - 1  # rows before it lead up to the level before clean data
    first = last - repeated
    rows = np.r_[:last, first:steps]
    a, b, c = plan.a[rows], plan.b[rows], np.zeros(len(rows))
    back = levels.level[first] / levels.level[last]
    a[last - 1] *= back
    b[last - 1] *= back
    c[last - 1] = np.sqrt(1 - back**2)
    level = np.r_[levels.level[:last], levels.level[first:]]
    return Plan(level, levels.t[rows], a, b, c, label, levels.notes)
