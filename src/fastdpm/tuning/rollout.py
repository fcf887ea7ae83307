"""What is learned, levels and coefficients, and the runs of a set of samples with it.

The coefficients are those of the data form (:mod:`fastdpm.core.data_form`), relative to those of
the third-order multistep method over the same levels, so that they follow when levels move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import Tensor

from fastdpm.core.data_form import data_form, plan_of_data_form
from fastdpm.core.history import log_snrs
from fastdpm.core.levels import NoiseLevels, levels_custom
from fastdpm.core.multistep import multistep_3
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.tuning.predictor import DataPredictor

_GAP = 0.02


def level_of(log_snr: Array) -> Array:
    """The level r of lambda = log(r / sqrt(1 - r^2))."""
    return np.asarray(1 / np.sqrt(1 + np.exp(-2 * np.asarray(log_snr, dtype=np.float64))))


@dataclass(frozen=True, eq=False)
class Learned:
    """Levels of S rows, and coefficients.

    Attributes:
        schedule: The schedule of the network.
        log_snr: Lambda of each row, shape (S,), rising by at least :func:`gap`.
        table: Coefficients of the data form, shape (S + 1, S + 1).
        shift: Lambda that the network receives, less that of the row, shape (S,).
    """

    schedule: VarianceSchedule
    log_snr: Array
    table: Array
    shift: Array

    @classmethod
    def untrained(cls, schedule: VarianceSchedule, log_snr: Array) -> Learned:
        """The coefficients of the third-order multistep method."""
        return cls(schedule, log_snr, theory(schedule, log_snr), np.zeros(len(log_snr)))

    @property
    def num_rows(self) -> int:
        """S."""
        return len(self.log_snr)

    @cached_property
    def levels(self) -> NoiseLevels:
        """The levels, and clean data."""
        return levels_of(self.schedule, self.log_snr)

    @cached_property
    def network_level(self) -> Array:
        """The levels that the network receives, shape (S,)."""
        level = level_of(self.log_snr + self.shift)
        level = np.clip(level, self.schedule.levels[-1], self.schedule.levels[1])
        return np.where(self.shift == 0, self.levels.level[:-1], level)

    def plan(self, label: str) -> Plan:
        """The plan that does the same."""
        level = self.network_level
        network = (level, self.schedule.T(level) - 1)
        plan = plan_of_data_form(self.levels, self.table, label, network)
        return replace(plan, notes=())  # where it starts was learned


def levels_of(schedule: VarianceSchedule, log_snr: Array) -> NoiseLevels:
    """Levels of S rows, and clean data."""
    level = np.maximum(level_of(log_snr), schedule.levels[-1])
    return levels_custom(schedule, level=level)


def lowest(schedule: VarianceSchedule) -> float:
    """Lambda of R(T)."""
    return float(log_snrs(schedule.levels[-1:])[0])


def highest(schedule: VarianceSchedule) -> float:
    """Lambda of R(1), the level of the first training step."""
    return float(log_snrs(schedule.levels[1:2])[0])


def gap(schedule: VarianceSchedule, num_steps: int) -> float:
    """The smallest distance of two of S levels in lambda."""
    return min(_GAP, (highest(schedule) - lowest(schedule)) / (4 * num_steps))


def theory(schedule: VarianceSchedule, log_snr: Array) -> Array:
    """Coefficients of the third-order multistep method over these levels."""
    return data_form(multistep_3(levels_of(schedule, log_snr)))


@dataclass(frozen=True, eq=False)
class Rollout:
    """A run of all samples of a predictor.

    Attributes:
        data: The predictions of clean data of each row.
        final: The last state, shape (n, ...).
    """

    data: tuple[Tensor, ...]
    final: Tensor


def state_of(row: Array, start: Tensor, data: Sequence[Tensor]) -> Tensor:
    """The state with these coefficients of the start and of the predictions so far."""
    x = start * float(row[0])
    for weight, prediction in zip(row[1:], data, strict=False):
        if weight:
            x.add_(prediction, alpha=float(weight))
    return x


def roll(predict: DataPredictor, learned: Learned, known: Sequence[Tensor] = ()) -> Rollout:
    """Run all samples.

    Args:
        predict: The network, and the starts.
        learned: Levels and coefficients.
        known: The predictions of the first rows, if they are known.
    """
    data = list(known)
    for s in range(len(known), learned.num_rows):
        x = predict.clipped(state_of(learned.table[s], predict.start, data))
        level, network_level = learned.levels.level[s], float(learned.network_level[s])
        found = predict(x, network_level)
        data.append(found if network_level == level else found * float(network_level / level))
    final = predict.clipped(state_of(learned.table[-1], predict.start, data))
    return Rollout(tuple(data), final)
