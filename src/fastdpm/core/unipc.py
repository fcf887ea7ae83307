"""UniPC: a multistep predictor, corrected with the prediction at the predicted state.

The prediction that corrects a state is also that of the next row, so a row costs one evaluation.
A plan holds the predicted states: correcting state s adds a weighted sum of predictions, which its
row carries on to the next state.
Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2, in the form for clean data
(appendix A).
"""

from __future__ import annotations

import math

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.errors import check_one_of
from fastdpm.core.history import (
    check_order,
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

VARIANTS = ("bh1", "bh2")


@checked
def unipc(levels: NoiseLevels, order: int, variant: str = "bh2") -> Plan:
    """Compile UniPC; rows at both ends are of lower order, and the last state is not corrected.

    Args:
        levels: The levels of S rows.
        order: Order of the predictor, from 1 to 3; with the corrector, the method has one more.
        variant: B(h) of the method: "bh1" is h, "bh2" is exp(h) - 1.

    Raises:
        InvalidArgumentError: If ``order`` or ``variant`` is out of range.
    """
    check_order(order, 3)
    check_one_of("variant", variant, VARIANTS)
    r, log_snr, rows = levels.level, log_snrs(levels.level), levels.num_steps
    carried = sigmas(r)[1:] / sigmas(r)[:-1]
    weights: list[Array] = []
    correction = np.zeros(0)
    for s in range(rows):
        usable = usable_order(order, s, rows)
        predictor = _predictor(r, log_snr, s, usable, variant)
        row = np.zeros(max(usable, len(correction)))
        row[:usable] = predictor
        row[: len(correction)] += carried[s] * correction
        weights.append(row)
        if s + 1 < rows:
            corrector = _corrector(r, log_snr, s, usable, variant)
            correction = corrector - np.append(0.0, predictor)
    label = f"UniPC {order}" if variant == "bh2" else f"UniPC {order} ({variant})"
    return plan_of_data(levels, weights, label, carried)


def _predictor(r: Array, log_snr: Array, s: int, order: int, variant: str) -> Array:
    """Weights of the last ``order`` values of D in the predicted state s + 1, newest first."""
    h = float(log_snr[s + 1] - log_snr[s])
    if order == 1:
        return np.array([-r[s + 1] * math.expm1(-h)])
    places = (past(log_snr, s, order)[1:] - log_snr[s]) / h
    rhos = np.array([0.5]) if order == 2 else _solved(places, h, variant)
    return _of_slopes(r[s + 1], h, places, rhos, variant)


def _corrector(r: Array, log_snr: Array, s: int, order: int, variant: str) -> Array:
    """Weights of D at the predicted state s + 1 and of the last ``order`` values before it."""
    h = float(log_snr[s + 1] - log_snr[s])
    places = np.append((past(log_snr, s, order)[1:] - log_snr[s]) / h, 1.0)
    rhos = np.array([0.5]) if order == 1 else _solved(places, h, variant)
    found = _of_slopes(r[s + 1], h, places, rhos, variant)
    return np.concatenate([found[-1:], found[:-1]])  # the newest is the value at place 1


def _solved(places: Array, h: float, variant: str) -> Array:
    """The weights of slopes that integrate polynomials exactly, times h / B(h)."""
    powers = np.vander(places, increasing=True).T
    # The integral of u^k has a weight of k! phi_(k+1) h; slopes divide by u.
    integrals = [math.factorial(k) * phi(k + 1, h) for k in range(1, len(places) + 1)]
    scaled = np.array(integrals) * h / _b(h, variant)
    return np.asarray(np.linalg.solve(powers, scaled), dtype=np.float64)


def _of_slopes(target: float, h: float, places: Array, rhos: Array, variant: str) -> Array:
    """Weights of D at the start of a row and at ``places``, from weights of the slopes to them."""
    slopes = target * _b(h, variant) * rhos / places
    return np.append(-target * math.expm1(-h) - slopes.sum(), slopes)


def _b(h: float, variant: str) -> float:
    """B(h), in the form for clean data."""
    return h if variant == "bh1" else -math.expm1(-h)
