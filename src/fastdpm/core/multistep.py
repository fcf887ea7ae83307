"""Multistep plans over any noise levels: DPM-Solver++ 2M and 3M, and a third-order method.

With lambda = log(r / sqrt(1 - r^2)), h = lambda' - lambda and the implied clean data
D(lambda) = (x - sqrt(1 - r^2) eps) / r, the exact solution of the probability-flow equation is

    x' = (sigma' / sigma) x + r' h [phi_1(-h) D + phi_2(-h) h D' + phi_3(-h) h^2 D'' + ...];

each method approximates the derivatives by divided differences of past values of D.
Source: Lu et al. 2022, arXiv:2211.01095, section 4 and appendix A; phi-functions as in
Hochbruck & Ostermann 2010, Acta Numerica 19.
"""

from __future__ import annotations

import math

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import variance
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
def multistep_3(levels: NoiseLevels) -> Plan:
    """Compile a third-order multistep plan: DPM-Solver++ 3M with its second difference doubled.

    Source: Hochbruck & Ostermann 2010, Acta Numerica 19, section 2.3 (exponential Adams).
    """
    return _compile(levels, 3, "third-order multistep", curvature=2.0)


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


def _compile(levels: NoiseLevels, order: int, name: str, curvature: float = 1.0) -> Plan:
    r, sigma = levels.level, np.sqrt(variance(levels.level))
    with np.errstate(divide="ignore"):
        log_snr = np.log(r / sigma)
    rows = levels.num_steps
    a, b = np.zeros((rows, order)), np.zeros((rows, order))
    for s in range(rows):
        usable = min(order, s + 1, rows - s)
        weights = _data_weights(log_snr[: s + 2], usable, curvature)
        past = slice(s, s - usable if s >= usable else None, -1)  # newest first
        a[s, :usable] = r[s + 1] * weights / r[past]
        b[s, :usable] = -a[s, :usable] * sigma[past]
        a[s, 0] += sigma[s + 1] / sigma[s]
    label = f"{name} over {levels.label}"
    return Plan(levels.level, levels.t, a, b, np.zeros(rows), label, levels.notes)


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
