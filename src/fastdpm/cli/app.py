"""The command line: one command per file, and errors as one line."""

from __future__ import annotations

import errno
import sys

import typer
from rich.console import Console

from fastdpm.core.errors import FastDPMError

app = typer.Typer(
    help="Sample trained diffusion models in few network evaluations.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 99},
)
errors = Console(stderr=True, soft_wrap=True, highlight=False)


def main() -> None:
    """Run the command line; every failure a user can cause is one line and an exit code."""
    from fastdpm.cli import commands

    commands.register(app)
    try:
        app()
    except FastDPMError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        if error.errno == errno.EPIPE:
            sys.exit(1)
        full = " (the disk is full: free some space)" if error.errno == errno.ENOSPC else ""
        _fail(f"{error.filename or 'file'}: {error.strerror or error}{full}", 1)


def _fail(message: str, code: int) -> None:
    errors.print(f"Error: {message}", style="red", markup=False)
    sys.exit(code)
