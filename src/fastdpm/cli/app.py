"""The command line: one command in each file, and every error as one line."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from signal import SIGTERM
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.exceptions import TyperException

from fastdpm import __version__
from fastdpm.cli.cache import cache
from fastdpm.cli.compare import compare
from fastdpm.cli.convert import convert
from fastdpm.cli.decode import decode
from fastdpm.cli.edit import edit
from fastdpm.cli.encode import encode
from fastdpm.cli.evaluate import evaluate
from fastdpm.cli.expand import expanded
from fastdpm.cli.interpolate import interpolate
from fastdpm.cli.likelihood import likelihood
from fastdpm.cli.models import models
from fastdpm.cli.plan import plan
from fastdpm.cli.push import push
from fastdpm.cli.recommend import recommend
from fastdpm.cli.reconstruct import reconstruct
from fastdpm.cli.sample import sample
from fastdpm.cli.terminal import (
    console,
    errors,
    in_options,
    replace_what_streams_lack,
    termination_interrupts,
)
from fastdpm.cli.train import train
from fastdpm.cli.tune import tune
from fastdpm.cli.usage import current_names, describe_usage, empty_option
from fastdpm.core.errors import FastDPMError

PANELS = {
    "Sample": (sample, plan, tune),
    "Measure": (evaluate, compare, recommend, cache),
    "Encode and edit": (encode, decode, reconstruct, interpolate, edit, likelihood),
    "Models": (models, train, convert, push),
}
COMMANDS = {command.__name__: command for panel in PANELS.values() for command in panel}


_FULL = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "your quota of disk space is used up; free some space",
    errno.EFBIG: "it is larger than files may be here; raise the limit (ulimit -f)",
}


class _Command(TyperCommand):
    """A command with short help: no types of flags and arguments, and no line for --help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_shortened(parameter, hide_help=True) for parameter in super().get_params(ctx)]


class _Group(TyperGroup):
    """The program itself, with the same short help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_shortened(parameter) for parameter in super().get_params(ctx)]


def _shortened(parameter: Any, *, hide_help: bool = False) -> Any:
    """A parameter of which help shows no more than users need."""
    if isinstance(parameter, TyperArgument):
        parameter.display_type_rich = lambda ctx: ""  # type: ignore[method-assign]
    elif parameter.is_flag:
        parameter.metavar = ""
        parameter.hidden = parameter.hidden or (hide_help and "--help" in parameter.opts)
    return parameter


def make_app(command: str | None = None) -> typer.Typer:
    """The application; the options of ``command`` alone, or of all, are complete."""
    app = typer.Typer(
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(cls=_Group, epilog="`fastdpm COMMAND --help` shows the options of a command.")(
        _top
    )
    for panel, functions in PANELS.items():
        for function in functions:
            shown = command in (None, function.__name__)
            app.command(cls=_Command, rich_help_panel=panel)(expanded(function, shown=shown))
    return app


def _print_version(is_set: bool) -> None:
    if is_set:
        console.print(f"fastdpm {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Sample trained diffusion models in few network evaluations."""


def main() -> None:
    """Run the command line and exit: 0 on success, 2 for a usage error, 1 for other errors."""
    replace_what_streams_lack(sys.stdout, sys.stderr)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; every failure a user can cause is one line on the error stream."""
    with termination_interrupts() as terminated:
        code = _run(arguments)
    return 128 + SIGTERM if terminated and code == 130 else code


def _run(arguments: list[str]) -> int:
    arguments = current_names(arguments)
    if empty := empty_option(arguments):
        return _fail(f"{empty} is empty: set a value, or leave it out", 2)
    command = next(iter(arguments or _words_to_complete()), "")
    app = make_app(command)
    try:
        code = app(arguments or ["--help"], prog_name="fastdpm", standalone_mode=False)
    except FastDPMError as error:
        return _fail(in_options(str(error), _options(app, command)), error.exit_code)
    except TyperException as error:
        hint = f"fastdpm {command} --help" if command in COMMANDS else "fastdpm --help"
        message = describe_usage(error, command, list(_options(app, command).values()))
        return _fail(f"{message} (see {hint})", 2)
    except OSError as error:
        return _fail(_describe(error), 1)
    except (MemoryError, RuntimeError) as error:
        message = _exhausted(error, _options(app, command), command)
        if not message:
            raise
        return _fail(message, 1)
    if code == 130:  # Typer's code of an interrupt that no command has explained
        return _fail("interrupted", 130)
    return code if isinstance(code, int) else 0


def _exhausted(error: Exception, options: Mapping[str, str], command: str) -> str:
    """What ran out, memory or the depth of calls, and what to do; empty for other errors."""
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read: pass another one"
    cause = "out of memory"
    if not isinstance(error, MemoryError):
        cause = "the device is out of memory"
        parts = ("allocate memory", "not enough memory", "size calculation overflowed")
        known = type(error).__name__ == "OutOfMemoryError"
        if not known and not any(part in str(error) for part in parts):
            return ""
    if "--batch-size" not in options.values():
        return f"{cause}: use fewer or smaller inputs"
    # A checkpoint of `train` is only continued with the same batch size.
    other = ", with another --out if the folder has a checkpoint" if command == "train" else ""
    return f"{cause}: use a smaller --batch-size{other}"


def _words_to_complete() -> list[str]:
    """The words after the program's name on a line that a shell completes; none otherwise."""
    if "_FASTDPM_COMPLETE" not in os.environ:
        return []
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def _options(app: typer.Typer, command: str) -> dict[str, str]:
    """The options of a command as they are typed, by parameter."""
    chosen = getattr(typer.main.get_command(app), "commands", {}).get(command)
    parameters = [] if chosen is None else chosen.params
    return {p.name: p.opts[0] for p in parameters if p.opts[0].startswith("-")}


def _describe(error: OSError) -> str:
    if error.errno in _FULL:
        where = f"cannot write {error.filename}: " if error.filename else ""
        return (
            f"{where}{_FULL[error.errno]} and run the command again, with --resume if samples were"
            " written, or choose another --out"
        )
    if error.filename:
        return f"cannot use {error.filename}: {error.strerror}; choose another place"
    return str(error)


def _fail(message: str, code: int) -> int:
    errors.print(f"Error: {' '.join(message.split())}", style="red")
    return code
