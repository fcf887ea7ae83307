"""The data form of a plan: each state as a sum of the start and of the predictions of clean data.

With the start x_0 and the predictions D_j = (x_j - sigma_j eps_j) / r_j of clean data, where
sigma_j is that of the level the network receives,

    x_s = C[s, 0] x_0 + sum over j < s of C[s, 1 + j] D_j.

Where the network receives the level of the state, D_j predicts clean data, and else that times the
ratio of both levels. If all D_j are the data, x_s has the signal r_s, so
C[s, 0] r_0 + sum_j C[s, 1 + j] = r_s. All
numbers stay of order 1, while coefficients of states and of eps grow as 1 / r towards noise.
"""

from __future__ import annotations

import numpy as np

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.history import sigmas
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array


def data_form(plan: Plan) -> Array:
    """Coefficients of the states of a plan without noise, shape (S + 1, S + 1).

    Raises:
        InvalidArgumentError: If the plan draws noise, or needs states before its first one.
    """
    if plan.draws_noise or plan.num_past:
        raise InvalidArgumentError(f"{plan.label} has no data form: it draws noise or has a past")
    rows, r, sigma = plan.num_rows, plan.level, sigmas(plan.network_level)
    states = np.zeros((rows + 1, rows + 1))
    states[0, 0] = 1.0
    eps = np.zeros((rows, rows + 1))
    for s in range(rows):
        eps[s] = states[s] / sigma[s]
        eps[s, 1 + s] -= r[s] / sigma[s]
        old, last = (min(s + 1, table.shape[1]) for table in (plan.a, plan.b))
        states[s + 1] = (
            plan.a[s, :old] @ states[s::-1][:old] + plan.b[s, :last] @ eps[s::-1][:last]
        )
    return states


def plan_of_data_form(
    levels: NoiseLevels,
    table: Array,
    label: str,
    network: tuple[Array, Array] | None = None,
) -> Plan:
    """The plan whose states have these coefficients over S levels; see :func:`data_form`.

    Each D_j keeps its state and its eps side by side, which nearly cancel where r_j is small, so
    that float32 is as exact as it can be there.

    Args:
        levels: The levels of S rows.
        table: Coefficients, shape (S + 1, S + 1). The last coefficient of each state is replaced
            by what its signal leaves for it.
        label: A description of the plan.
        network: The levels that the network receives, and their zero-based steps, both of shape
            (S,); by default those of the rows.
    """
    r, rows = levels.level, levels.num_steps
    network_level, t = network or (r[:-1], levels.t)
    table, sigma = with_signal(table, r), sigmas(network_level)
    a, b = np.zeros((rows, rows)), np.zeros((rows, rows))
    for s in range(rows):
        weights = (table[s + 1, 1 : s + 2] / r[: s + 1])[::-1]  # of D_j r_j, newest first
        a[s, : s + 1] = weights
        a[s, s] += table[s + 1, 0]
        b[s, : s + 1] = -weights * sigma[s::-1]
    plan = Plan(*(r, t, a, b, np.zeros(rows), label, levels.notes), network_level=network_level)
    return plan.trimmed


def with_signal(table: Array, level: Array) -> Array:
    """The table with the last coefficient of each state replaced by what its signal leaves."""
    table = np.array(table, dtype=np.float64)
    for s in range(1, len(table)):
        table[s, s] = level[s] - table[s, 0] * level[0] - table[s, 1:s].sum()
        table[s, s + 1 :] = 0.0
    return table
