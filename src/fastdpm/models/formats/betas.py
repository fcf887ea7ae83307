"""Variance schedules that a checkpoint states as a table of betas."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastdpm.core.schedule import VarianceSchedule

_SAME = 1e-4  # relative difference up to which betas are equal; buffers are float32 at best


def schedule_of_betas(betas: ArrayLike) -> dict[str, Any]:
    """The shortest configuration of a schedule: linear, cosine or scaled linear if it is one.

    Args:
        betas: Variances, shape (T,).

    Raises:
        InvalidArgumentError: If they are not numbers in (0, 1), or too many.
    """
    table = VarianceSchedule.from_betas(betas)
    steps, ends = table.num_train_steps, (_rounded(table.betas[0]), _rounded(table.betas[-1]))
    known = [VarianceSchedule.cosine(steps)]
    if ends[0] <= ends[1]:
        known += [VarianceSchedule.linear(steps, *ends)]
        known += [VarianceSchedule.scaled_linear(steps, *ends)]
    return next((each.config for each in known if _close(each, table)), table.config)


def same_schedule(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two configurations have the same betas, up to rounding."""
    return _close(VarianceSchedule.from_config(one), VarianceSchedule.from_config(other))


def describe_schedule(config: dict[str, Any]) -> str:
    """A schedule in a few words, such as "T = 1,000, linear betas from 0.0001 to 0.02"."""
    schedule = VarianceSchedule.from_config(config)
    ends = f"{schedule.betas[0]:.4g} to {schedule.betas[-1]:.4g}"
    kind = {"betas": "own", "scaled_linear": "scaled-linear"}.get(config["type"], config["type"])
    return f"T = {schedule.num_train_steps:,}, {kind} betas from {ends}"


def _close(one: VarianceSchedule, other: VarianceSchedule) -> bool:
    same = one.num_train_steps == other.num_train_steps
    return same and bool(np.allclose(one.betas, other.betas, rtol=_SAME, atol=0))


def _rounded(beta: float) -> float:
    """A beta without the rounding of float32."""
    return float(f"{beta:.6g}")
