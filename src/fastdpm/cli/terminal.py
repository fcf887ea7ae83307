"""The console of all commands, and messages of the library in terms of options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rich.console import Console

console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)

# Names in Python whose options are called otherwise.
_RENAMED = {
    "num_steps": "steps",
    "level": "at_level",
    "kappas": "kappa",
    "method": "by",
    "bounded": "unbounded",
    "grey": "grey_levels",
    "held_out": "test",
}
_ARGUMENT = re.compile(r"`([a-z_][a-z0-9_]*)`")


def counted(number: int, noun: str) -> str:
    """A number and its noun, in the plural unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
