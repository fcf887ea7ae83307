"""Coefficients for some levels in closed form, row by row.

Each state is fitted to the teacher's at the same level, by least squares over the start and this
run's own predictions, so that a row corrects the errors of those before it. The signal of the
level is kept, a ridge holds the coefficients near those of theory, and the variance over samples
is the teacher's: least squares alone would shrink it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.optimize import brentq
from torch import Tensor

from fastdpm.core.schedule import Array
from fastdpm.tuning.paths import Paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.rollout import Learned, Rollout, state_of

_RIDGE = 1e-4  # of the diagonal
_AT_ONCE = 2**18  # values of each state


def fit(
    predict: DataPredictor,
    paths: Paths,
    log_snr: Array,
    *,
    match: bool = True,
    before: tuple[Learned, Rollout, int] | None = None,
) -> tuple[Learned, Rollout]:
    """Fit coefficients for these levels.

    Args:
        predict: The network, and the starts.
        paths: The teacher's trajectories from the same starts.
        log_snr: Lambda of each row.
        match: Match the variance.
        before: A fit whose first levels are the same, its run, and the number of these levels.
    """
    learned = Learned.untrained(predict.schedule, log_snr)
    level, table = learned.levels.level, learned.table.copy()
    data, shared = list[Tensor](), 0
    if before is not None:
        other, rollout, shared = before
        data = list(rollout.data[:shared])
        table[:shared, :shared] = other.table[:shared, :shared]
    for s in range(learned.num_rows):
        if s >= shared:
            x = predict.clipped(state_of(table[s], predict.start, data))
            data.append(predict(x, level[s]))
        if s + 1 >= max(shared, 1):
            table[s + 1, : s + 2] = _row(
                predict.start,
                data,
                paths.at(level[s + 1]),
                level[0],
                level[s + 1],
                table[s + 1, : s + 1],
                match=match,
            )
    final = predict.clipped(state_of(table[-1], predict.start, data))
    return replace(learned, table=table), Rollout(tuple(data), final)


def _row(
    start: Tensor,
    data: list[Tensor],
    target: Tensor,
    first: float,
    level: float,
    prior: Array,
    *,
    match: bool,
) -> Array:
    """Coefficients of one state; ``prior`` are those of theory but for the last.

    The state is ``fixed + sum_i x_i column_i`` for any x: by the signal, the columns are the start
    less its signal in the newest prediction, and the older predictions less the newest one.
    """
    count = len(data)
    products, centered = _products([start, *data, target])
    columns = np.zeros((count, count + 2))  # over the start, the predictions and the target
    columns[:, :count] = np.eye(count)
    columns[:, count] = [-first, *(-1.0,) * (count - 1)]
    fixed, wanted = np.zeros(count + 2), np.zeros(count + 2)
    fixed[count] = level
    wanted[[count, count + 1]] = -level, 1.0
    gram, known = columns @ products @ columns.T, columns @ products @ wanted
    ridge = np.diag(_RIDGE * (np.diag(gram) + 1e-6 * np.trace(gram) / len(gram)))
    gram, known = gram + ridge, known + ridge @ prior
    found = np.linalg.solve(gram, known)
    if match and len(start) > 1:
        v2, v1 = columns @ centered @ columns.T, columns @ centered @ fixed
        missing = float(centered[-1, -1] - fixed @ centered @ fixed)
        found = _with_variance(gram, known, v2, v1, missing)
    return np.append(found, level - found[0] * first - found[1:].sum())


def _with_variance(gram: Array, known: Array, v2: Array, v1: Array, missing: float) -> Array:
    """Least squares among the solutions x whose variance is right: x v2 x + 2 v1 x = missing.

    With a multiplier m, these are (gram - m v2) x = known + m v1. The variance rises with m up to
    the smallest eigenvalue of the pencil (gram, v2).
    """

    def solution(m: float) -> Array:
        return np.asarray(np.linalg.solve(gram - m * v2, known + m * v1))

    def excess(m: float) -> float:
        x = solution(m)
        return float(x @ v2 @ x + 2 * v1 @ x - missing)

    steady = v2 + 1e-12 * np.trace(v2) * np.eye(len(v2))
    top = float(eigh(gram, steady, eigvals_only=True)[0])
    low, high = (0.0, top * (1 - 1e-9)) if excess(0.0) < 0 else (-top, 0.0)
    for _ in range(20):
        if excess(low) < 0:
            break
        low *= 4
    if not excess(low) <= 0 <= excess(high):
        return solution(0.0)  # no solution has this variance
    return solution(float(brentq(excess, low, high)))


def _products(states: list[Tensor]) -> tuple[Array, Array]:
    """Inner products of sets of states, and those of their deviations from the mean sample."""
    count, size = len(states), max(1, _AT_ONCE // states[0][0].numel())
    products, total = np.zeros((count, count)), torch.zeros(())
    for first in range(0, len(states[0]), size):
        part = torch.stack([x[first : first + size].flatten(1) for x in states]).double()
        total = total + part.sum(1)
        flat = part.flatten(1)
        products += (flat @ flat.T).numpy()
    return products, products - (total @ total.T).numpy() / len(states[0])
