"""Finished stages of a tuning, as they are kept, and the time of the others."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastdpm.models.model import Model
from fastdpm.tuning.rollout import Learned

_SECONDS_PER_LINE = 10.0


@dataclass
class Clock:
    """The time of the stages of one S: when to end, and when to print."""

    began: float
    deadline: float = math.inf
    printed: float = 0.0

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() >= self.deadline

    @property
    def due(self) -> bool:
        """Whether it is time for another line."""
        now = time.monotonic()
        if now - self.printed < _SECONDS_PER_LINE:
            return False
        self.printed = now
        return True


@dataclass(frozen=True, eq=False)
class Done:
    """A finished stage, as it is kept."""

    stage: str
    log_snr: list[float]
    table: list[list[float]]
    evaluations: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)

    def learned(self, model: Model) -> Learned:
        """Its levels and coefficients."""
        return Learned(model.schedule, np.array(self.log_snr), np.array(self.table))

    @property
    def facts(self) -> dict[str, Any]:
        """What the record says of it."""
        facts: dict[str, Any] = {"stage": self.stage, "evaluations": self.evaluations}
        return facts | {"seconds": round(self.seconds, 1), "losses": self.losses}
