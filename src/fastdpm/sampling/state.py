"""Progress of a loop over batches of samples, which callbacks receive after each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SamplingState:
    """Progress that a callback receives after each row.

    Attributes:
        first: Zero-based position of the batch's first sample.
        size: Number of samples in the batch.
        total: Number of samples in all batches.
        row: Zero-based index of the row that was just completed, in order of execution.
        num_rows: Number of rows per batch.
        evaluations: Network evaluations of each sample in all rows; up to two a row with guidance.
        x: States after the row, shape (size, ...). Do not modify them in place.
    """

    first: int
    size: int
    total: int
    row: int
    num_rows: int
    evaluations: int
    x: Tensor = field(repr=False, compare=False)

    @property
    def done(self) -> float:
        """Number of completed samples; those of this batch count by their share of rows."""
        return self.first + self.size * (self.row + 1) / self.num_rows


Callback = Callable[[SamplingState], object]
RowCallback = Callable[[int, "Tensor"], None]


def after_rows(
    callback: Callback | None,
    first: int,
    total: int,
    num_rows: int,
    *,
    evaluations: int | None = None,
    backwards: bool = False,
) -> RowCallback | None:
    """Adapt a callback to ``callback(row, x)`` for one batch; return None if there is none.

    Args:
        callback: Receives a :class:`SamplingState`.
        first: Zero-based position of the batch's first sample.
        total: Number of samples in all batches.
        num_rows: Number of rows per batch.
        evaluations: Network evaluations of each sample; ``num_rows`` by default.
        backwards: Whether rows are executed from the last to the first.
    """
    if callback is None:
        return None
    report, count = callback, num_rows if evaluations is None else evaluations

    def after_row(row: int, x: Tensor) -> None:
        index = num_rows - 1 - row if backwards else row
        report(SamplingState(first, len(x), total, index, num_rows, count, x))

    return after_row
