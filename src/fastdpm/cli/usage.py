"""Errors in how a command is typed, as one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import pairwise

from typer.exceptions import TyperException

# Former names of options, which still work.
OLD_NAMES = {"--grey-levels": "--gray-levels"}

_CLOSE = 0.75
_CUSTOM = ("--at-steps", "--at-levels", "--variances")


def current_names(arguments: Sequence[str]) -> list[str]:
    """The arguments, with former names of options replaced by the current ones."""
    parts = [argument.partition("=") for argument in arguments]
    return [OLD_NAMES.get(name, name) + equals + value for name, equals, value in parts]


def empty_option(arguments: Sequence[str]) -> str:
    """The first option with an empty value, which could pass for the current folder; or ""."""
    for argument, following in pairwise([*arguments, "end"]):
        if argument == "--":
            break
        name, equals, value = argument.partition("=")
        if name.startswith("-") and (not value if equals else following == ""):
            return name
    return ""


def describe_usage(error: TyperException, command: str, options: Sequence[str]) -> str:
    """Describe an error of Typer's parser.

    Args:
        error: The error.
        command: The command.
        options: The options of the command, such as "--steps".
    """
    unknown = getattr(error, "option_name", None)
    if unknown is not None and hasattr(error, "possibilities"):
        if command == "compare" and unknown in _CUSTOM:
            other = f"measure custom levels with `fastdpm evaluate {unknown}`"
            return f"compare has no {unknown}: {other}"
        close = get_close_matches(unknown, options, cutoff=_CLOSE)
        hint = f": did you mean {' or '.join(close)}?" if close else ""
        return f"no such option {unknown}{hint}"
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    extra = re.search(r"unexpected extra argument(?:s|\(s\))? \((.*)\)", message)
    if extra is not None and re.fullmatch(r"[-+.\de ]+", extra[1]):
        return f"{message}: separate the values of an option by commas, as in 0.1,0.5"
    return message
