"""The diffusion itself: data at any noise level, in one go or level by level.

Paper -> code: q(x_s | x_0) -> :func:`diffuse`, q(x_s | x_{s-1}) with eta_s ->
:class:`DiffusionChain`. Steps count from one, as those of :class:`fastdpm.VarianceSchedule`: step
0 is clean data and step T the noisiest; a network is told the step less one.
Source: Kong & Ping 2021, arXiv:2106.00132, sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.likelihood import forward_variances
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.models.model import Model
from fastdpm.sampling.run import Noise


def diffuse(
    model: Model | VarianceSchedule,
    x0: Tensor,
    *,
    level: float | None = None,
    step: float | None = None,
    noise: Noise,
    row: int = 0,
) -> Tensor:
    """Draw from q(x_s | x_0): x_s = r x_0 + sqrt(1 - r^2) z.

    Args:
        model: Whose schedule says what a step is and how noisy data can be.
        x0: Data, shape (n, ...), float32 or float64.
        level: The level r in [R(T), 1], of which 1 is the data itself; or
        step: The real-valued step in [0, T], one-based: 0 is the data itself.
        noise: ``noise(row, x) -> z``, such as ``SampleNoise(seed, range(n))``.
        row: The row of the noise, for draws that must not depend on each other.

    Returns:
        States like ``x0``, which is not changed.

    Raises:
        InvalidArgumentError: Unless exactly one of ``level`` and ``step`` is given, in range, or
            if the data is of another type or not finite.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.1.
    """
    if not isinstance(x0, Tensor) or x0.dtype not in (torch.float32, torch.float64):
        found = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise InvalidArgumentError(f"data must be a float32 or float64 tensor, got {found}")
    if not torch.isfinite(x0).all():
        raise InvalidArgumentError("the data holds values that are not finite")
    schedule = model.schedule if isinstance(model, Model) else model
    if (level is None) == (step is None):
        raise InvalidArgumentError("give either a level or a step, not both and not neither")
    if level is None:
        return noised(x0, float(schedule.R(step or 0.0)), noise(row, x0))
    check_level(schedule, level)
    return noised(x0, level, noise(row, x0))


def check_level(schedule: VarianceSchedule, level: float) -> float:
    """The real-valued one-based step of a level.

    Raises:
        InvalidArgumentError: If the schedule does not reach it.
    """
    noisiest = float(schedule.levels[-1])
    # VAR's chain ends at R(T) to rounding, on either side of it.
    inside = max(level, noisiest) if level > noisiest * (1 - 1e-9) else level
    return float(schedule.T(inside))


def noised(x0: Tensor, level: float, z: Tensor) -> Tensor:
    """R x_0 + sqrt(1 - r^2) z for a level r in (0, 1]."""
    return level * x0 + math.sqrt((1 - level) * (1 + level)) * z


@dataclass(frozen=True, eq=False)
class DiffusionChain:
    """The chain x_s = sqrt(1 - eta_s) x_{s-1} + sqrt(eta_s) z_s, from data towards noise.

    Attributes:
        level: Levels of its states, shape (S + 1,), falling from that of x_0.
        keep: Factors sqrt(1 - eta_s) of the state, shape (S,).
        add: Factors sqrt(eta_s) of the noise, shape (S,).
    """

    level: Array
    keep: Array
    add: Array

    @property
    def num_steps(self) -> int:
        """S, the steps of the chain."""
        return self.keep.size

    def run(self, x0: Tensor, noise: Noise) -> Iterator[Tensor]:
        """Diffuse data level by level.

        Args:
            x0: States at the first level, shape (n, ...).
            noise: ``noise(row, x) -> z``, row 0 for the step from x_0 to x_1.

        Yields:
            x_1 ... x_S, each distributed as :func:`diffuse` draws it.
        """
        x = x0
        for row in range(self.num_steps):
            x = float(self.keep[row]) * x + float(self.add[row]) * noise(row, x)
            yield x


def diffusion_chain(levels: NoiseLevels) -> DiffusionChain:
    """The S-step diffusion process over levels that VAR, STEP or a hand chose.

    Args:
        levels: S + 1 levels in sampling order; the chain runs through them backwards.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.2.
    """
    eta = forward_variances(levels)[::-1]
    level = levels.level[::-1]
    return DiffusionChain(level, level[1:] / level[:-1], np.sqrt(eta))
