"""Where a loop over batches of samples stands, as callbacks see it after each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SamplingState:
    """What a callback is given after each row.

    Attributes:
        first: Position of the batch's first sample, from 0.
        size: Samples in the batch.
        total: Samples in all.
        row: Rows that the batch has behind it, less one: from 0 to ``num_rows - 1``.
        num_rows: Rows that each batch takes.
        x: The states after the row, shape (size, ...); not to be changed.
    """

    first: int
    size: int
    total: int
    row: int
    num_rows: int
    x: Tensor = field(repr=False, compare=False)

    @property
    def done(self) -> float:
        """Samples that are finished, those of this batch by their share of rows."""
        return self.first + self.size * (self.row + 1) / self.num_rows


Callback = Callable[[SamplingState], object]
RowCallback = Callable[[int, "Tensor"], None]


def after_rows(
    callback: Callback | None, first: int, total: int, num_rows: int, *, backwards: bool = False
) -> RowCallback | None:
    """A callback of single rows, ``(row, x)``, that tells ``callback`` of a batch; None for none.

    Args:
        callback: What is told.
        first: Position of the batch's first sample.
        total: Samples in all.
        num_rows: Rows that each batch takes.
        backwards: Rows are run from the last to the first.
    """
    if callback is None:
        return None
    tell = callback

    def after(row: int, x: Tensor) -> None:
        behind = num_rows - 1 - row if backwards else row
        tell(SamplingState(first, len(x), total, behind, num_rows, x))

    return after
