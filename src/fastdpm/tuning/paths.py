"""Trajectories of the teacher: many steps of the network, from which states at any level follow.

The teacher is the third-order multistep method over levels that are even in lambda. It ends a
little above clean data, at a noise scale that is far below what can be seen, and takes the
prediction of clean data there as its sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fastdpm.core.history import log_snrs, sigmas
from fastdpm.core.levels import levels_custom
from fastdpm.core.multistep import multistep_3
from fastdpm.core.schedule import Array
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.rollout import level_of, lowest


@dataclass(frozen=True, eq=False)
class Paths:
    """Trajectories of some samples.

    Attributes:
        level: Levels of the states, shape (M + 1,); the last one is 1.
        states: The M + 1 states, each (n, ...).
        data: The predictions of clean data at the first M states.
    """

    level: Array
    states: tuple[Tensor, ...]
    data: tuple[Tensor, ...]

    @property
    def samples(self) -> Tensor:
        """The last states, shape (n, ...)."""
        return self.states[-1]

    @property
    def end(self) -> float:
        """Lambda of the last row."""
        return float(log_snrs(self.level[-2:-1])[0])

    def first(self, count: int) -> Paths:
        """The trajectories of the first samples."""
        states, data = (tuple(x[:count] for x in table) for table in (self.states, self.data))
        return Paths(self.level, states, data)

    def at(self, level: float) -> Tensor:
        """The states at any level from the first one on.

        From the state before, this is the exact solution for predictions of clean data that are
        linear in lambda up to the next one.
        """
        if level >= 1:
            return self.samples
        log_snr = log_snrs(self.level[:-1])
        here = float(log_snrs(np.array([level]))[0])
        i = int(np.clip(np.searchsorted(log_snr, here, side="right") - 1, 0, len(log_snr) - 1))
        h = here - float(log_snr[i])
        before, after = sigmas(np.array([self.level[i], level]))
        first = -math.expm1(-h)
        x = self.states[i] * float(after / before)
        x.add_(self.data[i], alpha=level * first)
        if i + 1 < len(log_snr):
            slope = level * (h - first) / float(log_snr[i + 1] - log_snr[i])
            x.add_(self.data[i + 1] - self.data[i], alpha=slope)
        return x


def draw_paths(
    predict: DataPredictor,
    rows: int,
    end: float,
    after_row: Callable[[int], object] = lambda row: None,
) -> Paths:
    """Draw the trajectories of all samples.

    Args:
        predict: The network, and the starts.
        rows: Network evaluations M.
        end: Noise scale sqrt(1 - r^2) / r of the last row.
        after_row: Called with each row that is done, from 0.
    """
    schedule = predict.schedule
    level = level_of(np.linspace(lowest(schedule), -math.log(end), rows))
    level[0] = schedule.levels[-1]
    plan = multistep_3(levels_custom(schedule, level=level))
    r, sigma = plan.level, sigmas(plan.level)
    x, states, data = predict.start, [predict.start], list[Tensor]()
    for s in range(rows):
        data.append(predict(x, float(r[s])))
        x = x * float(sigma[s + 1] / sigma[s])
        for j in range(min(s + 1, plan.b.shape[1])):
            weight = -plan.b[s, j] * r[s - j] / sigma[s - j]
            x.add_(data[s - j], alpha=float(weight))
        x = predict.clipped(x)
        states.append(x)
        after_row(s)
    return Paths(r, tuple(states), tuple(data))


def distance(samples: Tensor, wanted: Tensor) -> float:
    """Mean squared distance of samples, by the variance of the wanted ones over samples."""
    spread = (wanted - wanted.mean(0)).double().square().mean()
    return float((samples - wanted).double().square().mean() / spread)
