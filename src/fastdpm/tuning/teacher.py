"""The teacher of a tuning: how many steps it needs, and whether the network is steady."""

from __future__ import annotations

from typing import Any

import torch

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.tuning.paths import distance, draw_paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.stages import Log

ROWS = 24
"""Steps of the teacher by default, at first."""
_MOST_ROWS = 192
_CONVERGED = 1e-3


def check_steady(predict: DataPredictor) -> None:
    """Check that the network answers the same question twice in the same way.

    Raises:
        InvalidArgumentError: If it does not.
    """
    level = float(predict.schedule.levels[predict.schedule.num_train_steps // 2])
    one, two = (predict(predict.start, level) for _ in range(2))
    if not torch.allclose(one, two, rtol=1e-3, atol=1e-3):
        raise InvalidArgumentError(
            "the network answers the same question differently each time: call network.eval(), or"
            " remove its randomness"
        )


def converged(predict: DataPredictor, steps: int | None, end: float, log: Log) -> dict[str, Any]:
    """Steps of the teacher, its end, and how far it is from one of twice the steps.

    Args:
        predict: The network, and a few starts.
        steps: The steps, if they were chosen; else they are doubled until more make no difference.
        end: Noise scale where it ends.
        log: Called with a line of text.

    Raises:
        InvalidArgumentError: If the teacher has not converged.
    """
    rows = steps or ROWS
    samples = draw_paths(predict, rows, end).samples
    while True:
        better = draw_paths(predict, 2 * rows, end).samples
        error = distance(samples, better)
        if error <= _CONVERGED or steps or 2 * rows > _MOST_ROWS:
            break
        rows, samples = 2 * rows, better
    share = f"{100 * error**0.5:.2g}% (rms)"
    log(f"teacher: {rows} steps; twice as many change its samples by {share}")
    if not error <= 10 * _CONVERGED:
        raise InvalidArgumentError(
            f"the teacher has not converged: {2 * rows} steps change the samples of {rows} by"
            f" {share}: set more `teacher_steps`, or check the network"
        )
    return {"steps": rows, "end": end, "error": float(f"{error:.3g}")}
