"""The console of all commands, and messages of the library in terms of options."""

from __future__ import annotations

import codecs
import io
import re
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.segment import Segment

from fastdpm.core.text import replace_unknown, visible

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderResult

_REPLACE = "fastdpm.replace"


class SafeConsole(Console):
    """A console that shows control characters of its text, as in file names, as escapes.

    All commands print through it. Text takes one line.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print lines of text, or anything that Rich renders."""
        shown = (visible(each) if isinstance(each, str) else _Visible(each) for each in objects)
        super().print(*shown, **options)


class _Visible:
    """A table whose cells show control characters as escapes."""

    def __init__(self, renderable: Any) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.renderable, options):
            parts = segment.text.split("\n")
            yield Segment("\n".join(map(visible, parts)), segment.style, segment.control)


console = SafeConsole()
errors = SafeConsole(stderr=True)

# Names in Python whose options are called otherwise.
_RENAMED = {
    "num_steps": "steps",
    "level": "at_level",
    "kappas": "kappa",
    "method": "by",
    "bounded": "unbounded",
    "grey": "grey_levels",
    "held_out": "test",
    "file_format": "format",
}
_ARGUMENT = re.compile(r"`([a-z_][a-z0-9_]*)`")


def replace_what_streams_lack(*streams: IO[str] | None) -> None:
    """Let streams replace characters that their encoding lacks by ASCII, in place of an error."""
    codecs.register_error(_REPLACE, replace_unknown)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)


@contextmanager
def termination_interrupts() -> Iterator[list[int]]:
    """Let a termination (SIGTERM) end a command as Ctrl-C does.

    Yields:
        A list that holds the signal once it came.
    """
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def print_notes(notes: Iterable[str]) -> None:
    """Print what users should know about their choices."""
    for note in notes:
        console.print(f"note: {note}")


def in_options(message: str, options: Mapping[str, str]) -> str:
    """A message of the library, with options in place of the arguments that it names.

    Args:
        message: Names arguments in backticks.
        options: The option of each parameter of the command, such as "--batch-size".
    """

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return options.get(name) or options.get(_RENAMED.get(name, "")) or name

    return _ARGUMENT.sub(replaced, message)
