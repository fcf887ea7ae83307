"""Multistep plans over any noise levels that extrapolate the predicted clean data.

With the symbols of :mod:`fastdpm.core.history`, a row is

    x' = (sigma' / sigma) x + r' h [phi_1(-h) D + phi_2(-h) h D' + phi_3(-h) h^2 D'' + ...];

each method approximates the derivatives by divided differences of past values of D.
Source: Lu et al. 2022, arXiv:2211.01095, section 4 and appendix A; phi-functions as in
Hochbruck & Ostermann 2010, Acta Numerica 19.
"""

from __future__ import annotations

import math

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.history import (
    check_order,
    interpolated,
    log_snrs,
    past,
    phi,
    plan_of_data,
    sigmas,
    usable_order,
)
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array


@checked
def dpmpp_2m(levels: NoiseLevels) -> Plan:
    """Compile DPM-Solver++ 2M (midpoint form); the first and last rows are of order 1.

    Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2.
    """
    return _compile(levels, 2, "DPM-Solver++ 2M")


@checked
def dpmpp_3m(levels: NoiseLevels) -> Plan:
    """Compile DPM-Solver++ 3M as published; rows at both ends are of order 1 and 2.

    The published second difference approximates h^2 D'' / 2 where the expansion needs h^2 D'', so
    the method converges with order 2. :func:`multistep_3` corrects the factor.

    Source: the authors' code of Lu et al. 2022, arXiv:2211.01095.
    """
    return _compile(levels, 3, "DPM-Solver++ 3M")


@checked
def adams_bashforth(levels: NoiseLevels, order: int) -> Plan:
    """Compile an exponential Adams-Bashforth method: the polynomial in lambda through past D.

    Rows at both ends are of lower order. :func:`multistep_3` has the same rows of order 3, but
    other ones at both ends.

    Args:
        levels: The levels of S rows.
        order: From 1 to 4.

    Raises:
        InvalidArgumentError: If ``order`` is out of range.

    Source: Hochbruck & Ostermann 2010, Acta Numerica 19, section 2.3.
    """
    check_order(order, 4)
    r, log_snr, rows = levels.level, log_snrs(levels.level), levels.num_steps
    weights = []
    for s in range(rows):
        usable = usable_order(order, s, rows)
        h = log_snr[s + 1] - log_snr[s]
        if usable == 1:
            weights.append(np.array([-r[s + 1] * math.expm1(-h)]))
            continue
        places = (past(log_snr, s, usable) - log_snr[s]) / h
        moments = [h * math.factorial(k) * phi(k + 1, h) for k in range(usable)]
        weights.append(r[s + 1] * interpolated(places, moments))
    return plan_of_data(levels, weights, f"Adams-Bashforth {order}")


@checked
def sde_dpmpp_2m(levels: NoiseLevels) -> Plan:
    """Compile SDE-DPM-Solver++ 2M (midpoint form).

    Every row draws noise, except one that ends at clean data.

    Source: Lu et al. 2022, arXiv:2211.01095, appendix D.3.
    """
    r, sigma = levels.level, sigmas(levels.level)
    log_snr, rows = log_snrs(r), levels.num_steps
    h = np.diff(log_snr)
    first = -np.expm1(-2 * h)
    weights = []
    for s in range(rows):
        row = np.array([r[s + 1] * first[s]])
        if usable_order(2, s, rows) == 2:
            slope = 0.5 * row[0] * h[s] / h[s - 1]
            row = np.array([row[0] + slope, -slope])
        weights.append(row)
    carried = sigma[1:] / sigma[:-1] * np.exp(-h)
    c = sigma[1:] * np.sqrt(first)
    return plan_of_data(levels, weights, "SDE-DPM-Solver++ 2M", carried, c)


@checked
def multistep_3(levels: NoiseLevels) -> Plan:
    """Compile a third-order multistep plan: DPM-Solver++ 3M with its second difference doubled.

    Source: Hochbruck & Ostermann 2010, Acta Numerica 19, section 2.3 (exponential Adams).
    """
    return _compile(levels, 3, "third-order multistep", curvature=2.0)


def _compile(levels: NoiseLevels, order: int, name: str, curvature: float = 1.0) -> Plan:
    r, log_snr, rows = levels.level, log_snrs(levels.level), levels.num_steps
    weights = [
        r[s + 1] * _data_weights(log_snr[: s + 2], usable_order(order, s, rows), curvature)
        for s in range(rows)
    ]
    return plan_of_data(levels, weights, name)


def _data_weights(log_snr: Array, order: int, curvature: float) -> Array:
    """Weights of the last ``order`` values of D, newest first; ``log_snr`` ends at the target."""
    h = float(log_snr[-1] - log_snr[-2])
    first = -math.expm1(-h)
    if order == 1:
        return np.array([first])
    ratio = float(log_snr[-2] - log_snr[-3]) / h
    slope = np.array([1.0, -1.0]) / ratio
    if order == 2:
        return np.array([first, 0.0]) + 0.5 * first * slope
    older = float(log_snr[-3] - log_snr[-4]) / h
    bend = (np.append(slope, 0.0) - np.array([0.0, 1.0, -1.0]) / older) / (ratio + older)
    slope = np.append(slope, 0.0) + ratio * bend
    return np.array([first, 0.0, 0.0]) + h * (phi(2, h) * slope + curvature * phi(3, h) * bend)
