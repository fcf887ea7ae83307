"""Multistep plans that extrapolate the predicted noise: iPNDM and DEIS.

In s = sqrt(1 - r^2) / r the probability-flow equation is d(x / r) / ds = eps, with the symbols of
:mod:`fastdpm.core.history`. The methods extrapolate past values of eps by a polynomial in the
number of the row (iPNDM), in log s (DEIS log-rho) or in the network's step (DEIS tAB).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.history import (
    check_order,
    interpolated,
    log_snrs,
    past,
    phi,
    plan_of_noise,
    scales,
    usable_order,
)
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array, VarianceSchedule

# Weights of the Adams-Bashforth methods with equal steps, newest first.
_ADAMS = MappingProxyType(
    {
        1: np.array([1.0]),
        2: np.array([3.0, -1.0]) / 2,
        3: np.array([23.0, -16.0, 5.0]) / 12,
        4: np.array([55.0, -59.0, 37.0, -9.0]) / 24,
    }
)
Moments = Callable[[int, int], tuple[Array, Sequence[float]]]
"""The places of all rows, 0 at a row's start and 1 at its end, and integrals of powers of them."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@checked
def ipndm(levels: NoiseLevels, order: int = 4) -> Plan:
    """Compile iPNDM: DDIM with the noise that an Adams-Bashforth method extrapolates.

    Its weights are those of equal steps, whatever the levels are, so it converges with order 2 at
    most. The first rows are of lower order; order 1 is DDIM.

    Args:
        levels: The levels of S rows.
        order: From 1 to 4.

    Raises:
        InvalidArgumentError: If ``order`` is out of range.

    Source: Zhang & Chen 2022, arXiv:2204.13902, section 3.3; Liu et al. 2022, arXiv:2202.09778,
    eq. 12.
    """
    check_order(order, 4)
    step = np.diff(scales(levels.level))
    weights = [step[s] * _ADAMS[min(order, s + 1)] for s in range(levels.num_steps)]
    return plan_of_noise(levels, weights, f"iPNDM {order}")


@checked
def deis_log_rho(levels: NoiseLevels, order: int) -> Plan:
    """Compile DEIS with polynomials in log(sqrt(1 - r^2) / r); rows at both ends have lower order.

    Args:
        levels: The levels of S rows.
        order: From 1 to 4, one more than the degree of the polynomial. Order 1 is DDIM.

    Raises:
        InvalidArgumentError: If ``order`` is out of range.

    Source: Zhang & Chen 2022, arXiv:2204.13902, section 3.3 (rho-AB in log rho).
    """
    check_order(order, 4)
    log_snr, scale = log_snrs(levels.level), scales(levels.level)

    def moments(s: int, count: int) -> tuple[Array, Sequence[float]]:
        h = float(log_snr[s + 1] - log_snr[s])
        # of exp(-u h) u^k over [0, 1], by expanding u = 1 - (1 - u)
        found = [
            sum(
                (-1) ** i * math.comb(k, i) * math.factorial(i) * phi(i + 1, h)
                for i in range(k + 1)
            )
            for k in range(count)
        ]
        return (log_snr - log_snr[s]) / h, [-h * scale[s] * moment for moment in found]

    return _deis(levels, order, f"DEIS log-rho {order}", moments)


@checked
def deis_tab(levels: NoiseLevels, schedule: VarianceSchedule, order: int) -> Plan:
    """Compile DEIS tAB: polynomials in the network's step; rows at both ends have lower order.

    Args:
        levels: The levels of S rows.
        schedule: The schedule that the levels belong to.
        order: From 1 to 4, one more than the degree of the polynomial. Order 1 is DDIM; orders 2
            to 4 are the paper's tAB1 to tAB3.

    Raises:
        InvalidArgumentError: If ``order`` is out of range.

    Source: Zhang & Chen 2022, arXiv:2204.13902, section 3.2, eq. 15.
    """
    check_order(order, 4)
    t = np.append(levels.t, -1.0)

    def moments(s: int, count: int) -> tuple[Array, Sequence[float]]:
        h = t[s + 1] - t[s]
        # With v = sqrt(t + 1), the scale has no kink at the clean end.
        ends = np.sqrt(t[s : s + 2] + 1)
        v = ends[0] + (ends[1] - ends[0]) * (1 + _NODES) / 2
        u = (v**2 - 1 - t[s]) / h
        weights = _WEIGHTS * (ends[1] - ends[0]) * v / h
        scale = scales(schedule.R(v**2))
        first, last = scales(levels.level[s : s + 2])
        found = [float(last - first)]
        # The integral of u^k ds is the last value less that of s over d(u^k).
        found += [float(last - k * (weights * u ** (k - 1)) @ scale) for k in range(1, count)]
        return (t - t[s]) / h, found

    return _deis(levels, order, f"DEIS tAB {order}", moments)


def _deis(levels: NoiseLevels, order: int, name: str, moments: Moments) -> Plan:
    scale = scales(levels.level)
    weights = []
    for s in range(levels.num_steps):
        usable = usable_order(order, s, levels.num_steps)
        if usable == 1:
            weights.append(np.array([scale[s + 1] - scale[s]]))
            continue
        places, integrals = moments(s, usable)
        weights.append(interpolated(past(places, s, usable), integrals))
    return plan_of_noise(levels, weights, name)
