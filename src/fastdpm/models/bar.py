"""A progress bar beside a callback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastdpm.sampling.state import Callback, SamplingState


@contextmanager
def progress_bar(callback: Callback | None) -> Iterator[Callback]:
    """Show a progress bar; the yielded callback updates it and calls ``callback``."""
    from fastdpm.progress import sampling_bar

    with sampling_bar() as bar:

        def report(state: SamplingState) -> None:
            bar(state)
            if callback is not None:
                callback(state)

        yield report
