"""A progress bar for sampling, on the error stream; nothing is drawn where that is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

RowCallback = Callable[[int, int], None]


@contextmanager
def sampling_bar(samples: int, batch_size: int, rows: int) -> Iterator[RowCallback]:
    """Show how many of ``samples`` are drawn, each batch advancing with its plan's rows.

    Yields:
        A callback for the first sample of a batch and the row that it has finished.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    terminal = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total} samples"),
        TimeRemainingColumn(),
        console=terminal,
        disable=not terminal.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task(f"{rows} evaluations", total=samples)

        def advance(first: int, row: int) -> None:
            in_batch = min(batch_size, samples - first)
            bar.update(task, completed=first + in_batch * (row + 1) / rows)

        yield advance
