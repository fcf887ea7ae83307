"""Progress of sampling on the error stream: a bar, or a line every 10 seconds."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from fastdpm.sampling.state import Callback, SamplingState

_SECONDS_PER_LINE = 10.0


@contextmanager
def sampling_bar() -> Iterator[Callback]:
    """Show how many samples are done.

    A terminal shows a bar, and a notebook with ipywidgets too. Anything else, such as a log file,
    gets a line with the time left every 10 seconds.

    Yields:
        A callback for ``Model.sample`` and whatever else goes through samples batch by batch.
    """
    from rich.console import Console

    console = Console(stderr=True)
    widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if console.is_terminal or widgets:
        with _bar(console) as advance:
            yield advance
    else:
        yield _lines(console)


@contextmanager
def _bar(console: Console) -> Iterator[Callback]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total} samples"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def advance(state: SamplingState) -> None:
            rows = f"{state.evaluations} evaluations"
            bar.update(task, description=rows, completed=state.done, total=state.total)

        yield advance


def _lines(console: Console) -> Callback:
    """A callback that prints a line every 10 seconds."""
    started = printed = time.monotonic()

    def advance(state: SamplingState) -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed < _SECONDS_PER_LINE:
            return
        printed = now
        left = (now - started) * (state.total / state.done - 1)
        console.print(
            f"{state.done:.0f}/{state.total} samples, {state.evaluations} evaluations each,"
            f" about {clock_time(left)} left",
            soft_wrap=True,
            highlight=False,
        )

    return advance


def clock_time(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
