"""Standard errors from random halves of the samples.

If samples are split in two, the values of a metric on both halves are independent, so
(value of one - value of the other) / 2 has the variance of the value on all samples. Its square is
averaged over random splits. Each half gets equally many samples of every class, because the
classes of samples are chosen, not drawn at random.

Methods that draw samples from the same seeds keep their differences between halves, which gives
the error of the difference of two scores; see :meth:`fastdpm.evaluation.scores.Score.minus`.
Source: McCarthy 1969, "Pseudo-replication: half samples", Review of the International Statistical
Institute 37(3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastdpm.evaluation.scores import Score

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Strata = NDArray[np.int64]

SPLITS = 20


def half_splits(count: int, strata: Strata | None = None) -> NDArray[np.bool_]:
    """Split samples into halves at random, always in the same way.

    Args:
        count: Number of samples.
        strata: Class or condition of each sample, shape (count,), if it was chosen and not drawn
            at random. Each half gets as many samples of every stratum, or one more.

    Returns:
        Masks of one half of each split, shape (splits, count).
    """
    generator = np.random.default_rng(0)
    strata = np.zeros(count, dtype=np.int64) if strata is None else strata
    masks = np.empty((SPLITS, count), dtype=bool)
    for mask in masks:
        # Neighbors in this order are of one stratum; one of each pair goes to each half.
        order = np.lexsort((generator.random(count), strata))
        first = generator.integers(0, 2, (count + 1) // 2, dtype=np.int64)
        mask[order] = (np.arange(count) + first.repeat(2)[:count]) % 2 == 0
    return masks


def half_differences(value: Callable[[Mask], float], masks: NDArray[np.bool_]) -> Array:
    """Half the difference between the values of both halves of each split, shape (splits,)."""
    return np.array([(value(mask) - value(~mask)) / 2 for mask in masks])


def score_of(value: float, halves: Array) -> Score:
    """A value with the standard error that :func:`half_differences` imply."""
    error = math.sqrt(np.square(halves).mean())
    if error <= 1e-12 * abs(value):  # only rounding errors
        return Score(value, 0.0, (0.0,) * len(halves))
    return Score(value, error, _rounded(halves))


def half_score(value: Callable[[Mask], float], count: int, strata: Strata | None = None) -> Score:
    """The value of all samples, and its standard error from random halves.

    Args:
        value: Computes the metric of the samples in a mask, shape (count,).
        count: Number of samples.
        strata: See :func:`half_splits`.
    """
    halves = half_differences(value, half_splits(count, strata))
    return score_of(value(np.ones(count, dtype=bool)), halves)


def mean_score(values: Array) -> Score:
    """Mean of the finite values, shape (n,), and its standard error.

    Both are NaN if no value is finite; the error is NaN if only one is.
    """
    kept = np.isfinite(values)
    count = int(kept.sum())
    if count < 2:
        return Score(float(values[kept][0]) if count else math.nan)
    error = float(values[kept].std(ddof=1) / math.sqrt(count))

    def mean(keep: Mask) -> float:
        return float(values[keep & kept].mean()) if (keep & kept).any() else math.nan

    halves = half_differences(mean, half_splits(len(values)))
    return Score(float(values[kept].mean()), error, _rounded(halves))


def _rounded(halves: Array) -> tuple[float, ...]:
    """Six digits: enough for an error, and short in files. Nothing if a half has no value."""
    if not np.isfinite(halves).all():
        return ()
    return tuple(float(f"{half:.6g}") for half in halves)
