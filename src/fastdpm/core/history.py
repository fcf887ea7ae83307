"""Plans whose rows combine past predictions of clean data or of noise, and their weights.

With sigma = sqrt(1 - r^2), a state x holds the implied clean data D = (x - sigma eps) / r. In
lambda = log(r / sigma), with h = lambda' - lambda, the probability-flow equation has the solutions

    x' = (sigma' / sigma) x + r' h (integral over [0, 1] of exp((u - 1) h) D(u) du),
    x' = (r' / r) x + r' (integral of eps d(sigma / r)),

where u is 0 at the start of a row and 1 at its end. A multistep method replaces D or eps by the
polynomial through its past values. The integral is then a weighted sum of these values, exact for
every power of u below their number.
Source: Hochbruck & Ostermann 2010, Acta Numerica 19, sections 2.1 and 2.3; Lu et al. 2022,
arXiv:2206.00927, proposition 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import variance
from fastdpm.core.schedule import Array


def sigmas(level: Array) -> Array:
    """Standard deviation sqrt(1 - r^2) of the noise at each level."""
    return np.sqrt(variance(level))


def scales(level: Array) -> Array:
    """The noise scale sqrt(1 - r^2) / r of each level."""
    return np.asarray(sigmas(level) / level)


def log_snrs(level: Array) -> Array:
    """The lambda = log(r / sqrt(1 - r^2)) of each level; infinite for clean data."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(level / sigmas(level)))


def check_order(order: int, highest: int) -> None:
    """Raise InvalidArgumentError unless 1 <= order <= highest."""
    if not 1 <= order <= highest:
        raise InvalidArgumentError(f"`order` must be in [1, {highest}], got {order}")


def usable_order(order: int, row: int, rows: int) -> int:
    """The order of a row: at most the number of predictions so far, and of the rows left.

    Lambda is infinite at clean data, and high orders lose there; as in diffusers, a chain that
    ends before it has the same rows.
    """
    return min(order, row + 1, rows - row)


def phi(k: int, h: float) -> float:
    """phi_k(-h), k >= 1, h >= 0: the integral over [0, 1] of exp((s - 1) h) s^(k-1) / (k-1)!.

    Uses the series for h <= 1 and the recurrence above; the relative error is about 1e-15.
    """
    if h <= 1:
        return math.fsum((-h) ** n / math.factorial(n + k) for n in range(20))
    value = -math.expm1(-h) / h
    for order in range(1, k):
        value = (1 / math.factorial(order) - value) / h
    return value


def interpolated(places: Array, moments: Sequence[float]) -> Array:
    """Weights of values at some places that integrate every polynomial through them.

    Args:
        places: Where the values are, shape (k,), distinct.
        moments: The integrals of 1, u, ..., u^(k-1).

    Returns:
        Shape (k,).
    """
    powers = np.vander(places, increasing=True).T
    return np.linalg.solve(powers, np.array(moments))


def past(table: Array, row: int, count: int) -> Array:
    """The last ``count`` entries of a table up to a row, newest first."""
    return table[row - count + 1 : row + 1][::-1]


def plan_of_data(
    levels: NoiseLevels,
    weights: Sequence[Array],
    name: str,
    carried: Array | None = None,
    c: Array | None = None,
) -> Plan:
    """Compile rows x' = carried x + sum_j weights[s][j] D_(s-j) + c z.

    Args:
        levels: The levels of S rows.
        weights: The weights of each row, newest first.
        name: The method, for the label.
        carried: Weight of the state of each row, shape (S,); sigma' / sigma by default.
        c: Standard deviation of each row's noise, shape (S,); 0 by default.
    """
    r, sigma = levels.level, sigmas(levels.level)
    rows, columns = levels.num_steps, max(map(len, weights))
    a, b = np.zeros((rows, columns)), np.zeros((rows, columns))
    for s, row in enumerate(weights):
        count = len(row)
        a[s, :count] = row / past(r, s, count)
        b[s, :count] = -a[s, :count] * past(sigma, s, count)
    a[:, 0] += sigma[1:] / sigma[:-1] if carried is None else carried
    c = np.zeros(rows) if c is None else c
    return Plan(r, levels.t, a, b, c, f"{name} over {levels.label}", levels.notes)


def plan_of_noise(levels: NoiseLevels, weights: Sequence[Array], name: str) -> Plan:
    """Compile rows x' / r' = x / r + sum_j weights[s][j] eps_(s-j), newest first."""
    r = levels.level
    rows, columns = levels.num_steps, max(map(len, weights))
    b = np.zeros((rows, columns))
    for s, row in enumerate(weights):
        b[s, : len(row)] = r[s + 1] * row
    a = (r[1:] / r[:-1])[:, None]
    label = f"{name} over {levels.label}"
    return Plan(r, levels.t, a, b, np.zeros(rows), label, levels.notes)
