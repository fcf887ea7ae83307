"""The forward process: add noise to data, in one step or level by level.

Paper -> code: q(x_s | x_0) -> :func:`diffuse`, q(x_s | x_{s-1}) with eta_s ->
:class:`DiffusionChain`. Steps are one-based, as in :class:`fastdpm.VarianceSchedule`: step 0 is
clean data and step T the noisiest. Networks receive the step minus one.
Source: Kong & Ping 2021, arXiv:2106.00132, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, arguments_named
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.likelihood import forward_variances
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.models.model import Model
from fastdpm.sampling.noise import Noise, draw


@checked
def diffuse(
    model: Model | VarianceSchedule,
    x0: Tensor,
    *,
    level: float | None = None,
    step: float | None = None,
    noise: Noise,
    row: int = 0,
) -> Tensor:
    """Add noise to data: draw x_s = r x_0 + sqrt(1 - r^2) z from q(x_s | x_0).

    Args:
        model: A model or schedule.
        x0: Data, shape (n, ...), float32 or float64. It is not modified.
        level: Level r in [R(T), 1]; 1 is the data itself.
        step: Real-valued one-based step in [0, T]; 0 is the data itself. Pass either ``level`` or
            ``step``.
        noise: ``noise(row, x) -> z``, such as ``SampleNoise(seed, range(n))``.
        row: Row of the noise; different rows are independent.

    Returns:
        Noisy states in the shape and type of ``x0``.

    Raises:
        InvalidArgumentError: If both or neither of ``level`` and ``step`` are passed, a value is
            out of range, or the data has the wrong type or is not finite.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.1.
    """
    if not isinstance(x0, Tensor) or x0.dtype not in (torch.float32, torch.float64):
        found = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise InvalidArgumentError(f"`x0` must be a float32 or float64 tensor, got {found}")
    if x0.ndim == 0:
        raise InvalidArgumentError("`x0` must have shape (n, ...), got ()")
    if not torch.isfinite(x0).all():
        raise InvalidArgumentError("`x0` must be finite, got NaN or infinity")
    schedule = model.schedule if isinstance(model, Model) else model
    if (level is None) == (step is None):
        raise InvalidArgumentError("pass exactly one of `level` and `step`")
    if level is None:
        with arguments_named(t="`step`"):
            level = float(schedule.R(step or 0.0))
        return noised(x0, level, draw(noise, row, x0))
    check_level(schedule, level)
    return noised(x0, level, draw(noise, row, x0))


def check_level(schedule: VarianceSchedule, level: float) -> float:
    """Compute the real-valued one-based step of a level.

    Raises:
        InvalidArgumentError: If the level is out of the range of the schedule.
    """
    noisiest = float(schedule.levels[-1])
    # VAR reaches R(T) up to rounding only, so it can be slightly below.
    clamped = max(level, noisiest) if level > noisiest * (1 - 1e-9) else level
    return float(schedule.T(clamped))


def noised(x0: Tensor, level: float, z: Tensor) -> Tensor:
    """Compute r x_0 + sqrt(1 - r^2) z for a level r in (0, 1]."""
    return level * x0 + math.sqrt((1 - level) * (1 + level)) * z


@dataclass(frozen=True, eq=False)
class DiffusionChain:
    """The forward process x_s = sqrt(1 - eta_s) x_{s-1} + sqrt(eta_s) z_s.

    Attributes:
        level: Levels of the states x_0 ... x_S, shape (S + 1,), falling.
        keep: Factors sqrt(1 - eta_s) of the state, shape (S,).
        add: Factors sqrt(eta_s) of the noise, shape (S,).
    """

    level: Array
    keep: Array
    add: Array

    @property
    def num_steps(self) -> int:
        """Number of steps S."""
        return self.keep.size

    def run(self, x0: Tensor, noise: Noise) -> Iterator[Tensor]:
        """Add noise to data level by level.

        Args:
            x0: States at the first level, shape (n, ...).
            noise: ``noise(row, x) -> z``, row 0 for the step from x_0 to x_1.

        Yields:
            The states x_1 ... x_S; each has the distribution of :func:`diffuse` at its level.
        """
        x = x0
        for row in range(self.num_steps):
            x = float(self.keep[row]) * x + float(self.add[row]) * draw(noise, row, x)
            yield x


@checked
def diffusion_chain(levels: NoiseLevels) -> DiffusionChain:
    """Create the forward process over any levels.

    Args:
        levels: S + 1 levels in sampling order, which the process visits in reverse.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.2.
    """
    eta = forward_variances(levels)[::-1]
    level = levels.level[::-1]
    return DiffusionChain(level, level[1:] / level[:-1], np.sqrt(eta))
