"""The command line: one command per file, and every error as one line."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated

import typer
from rich.console import Console
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
from fastdpm.cli.reconstruct import reconstruct
from fastdpm.cli.sample import sample
from fastdpm.cli.terminal import in_options
from fastdpm.cli.train import train
from fastdpm.core.errors import FastDPMError

COMMANDS = {
    command.__name__: command
    for command in (
        sample,
        plan,
        evaluate,
        compare,
        encode,
        decode,
        reconstruct,
        interpolate,
        edit,
        likelihood,
        convert,
        push,
        models,
        train,
        cache,
    )
}


def make_app(command: str | None = None) -> typer.Typer:
    """The application; the options of ``command`` alone, or of all, are complete."""
    app = typer.Typer(
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    for name, function in COMMANDS.items():
        app.command()(expanded(function, shown=command in (None, name)))
    return app


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"fastdpm {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_tell_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Sample trained diffusion models in few network evaluations."""


def main() -> None:
    """Run the command line and exit: 0 if all went well, 2 for a usage error, 1 otherwise."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; every failure a user can cause is one line on the error stream."""
    command = next(iter(arguments or _words_to_complete()), "")
    app = make_app(command)
    try:
        code = app(arguments or ["--help"], prog_name="fastdpm", standalone_mode=False)
    except FastDPMError as error:
        return _fail(in_options(str(error), _options(app, command)), error.exit_code)
    except TyperException as error:
        return _fail(f"{error.format_message()} (see fastdpm --help)", 2)
    except OSError as error:
        return _fail(_describe(error), 1)
    except MemoryError:
        return _fail("out of memory: use a smaller --batch-size", 1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError" and "allocate memory" not in str(error):
            raise
        return _fail("the device is out of memory: use a smaller --batch-size", 1)
    if code == 130:  # how Typer tells of an interrupt that no command has explained
        return _fail("interrupted", 130)
    return code if isinstance(code, int) else 0


def _words_to_complete() -> list[str]:
    """What stands behind the program's name on a line that a shell completes, if one does."""
    if "_FASTDPM_COMPLETE" not in os.environ:
        return []
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return line.split()[1:]


def _options(app: typer.Typer, command: str) -> dict[str, str]:
    """What is typed for each option of a command, by its parameter."""
    chosen = getattr(typer.main.get_command(app), "commands", {}).get(command)
    parameters = [] if chosen is None else chosen.params
    return {p.name: p.opts[0] for p in parameters if p.opts[0].startswith("-")}


def _describe(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            "the disk is full: free some space and run the command again, with --resume if samples"
            " were written, or choose another --out"
        )
    if error.filename:
        return f"cannot use {error.filename}: {error.strerror}; choose another place"
    return str(error)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"Error: {line}", style="red", markup=False
    )
    return code
