"""A progress bar for sampling, on the error stream; nothing is drawn where that is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdpm.sampling.state import Callback, SamplingState


@contextmanager
def sampling_bar() -> Iterator[Callback]:
    """Show how many samples are done.

    Yields:
        A callback for ``Model.sample`` and whatever else goes through samples batch by batch.
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
        task = bar.add_task("", total=None)

        def advance(state: SamplingState) -> None:
            rows = f"{state.evaluations} evaluations"
            bar.update(task, description=rows, completed=state.done, total=state.total)

        yield advance
