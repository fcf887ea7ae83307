"""The record of the training loss: one mean for every span of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.errors import DataError

EVERY = 50
_LAST = 1000


class LossRecord:
    """Mean losses of every 50 steps; a run that is stopped and resumed has the same ones.

    Attributes:
        rows: The last step of each span, from 1, and its mean loss.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[int, float]] = []
        self._pending: list[Tensor] = []

    def add(self, step: int, loss: Tensor) -> None:
        """Add the loss of a step, from 1; the mean is recorded when a span is complete.

        Raises:
            DataError: If the mean is not finite.
        """
        self._pending.append(loss)
        if step % EVERY == 0:
            self.rows.append((step, self.check(step)))
            self._pending.clear()

    def rows_at(self, step: int) -> list[tuple[int, float]]:
        """The rows, and one more for the span that is not complete at a step."""
        return [*self.rows, (step, self.check(step))] if self._pending else self.rows

    def check(self, step: int) -> float:
        """The mean loss since the last row, or that of the last row; NaN if there is none.

        Raises:
            DataError: If it is not finite.
        """
        if not self._pending:
            return self.rows[-1][1] if self.rows else math.nan
        loss = float(torch.stack(self._pending).mean())
        if not math.isfinite(loss):
            raise DataError(
                f"the loss is {loss} at step {step}: lower the learning rate or use float32"
            )
        return loss

    @property
    def state(self) -> dict[str, Any]:
        """The record for a checkpoint."""
        return {
            "losses": self.rows,
            "pending_losses": torch.tensor(list(map(float, self._pending)), device="cpu"),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Read :attr:`state`."""
        self.rows = [(int(step), float(loss)) for step, loss in state["losses"]]
        self._pending = list(state.get("pending_losses", ()))

    def last(self, step: int) -> float:
        """The mean loss of the last 1,000 steps up to a step; NaN if there is none."""
        rows = self.rows_at(step)
        ends = [0, *(end for end, _ in rows)]
        spans = [
            (ends[i + 1] - ends[i], loss)
            for i, (end, loss) in enumerate(rows)
            if end > ends[-1] - _LAST
        ]
        count = sum(size for size, _ in spans)
        return sum(size * loss for size, loss in spans) / count if count else math.nan
