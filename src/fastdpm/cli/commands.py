"""The list of commands."""

from __future__ import annotations

import typer

from fastdpm.cli.models import models
from fastdpm.cli.plan import plan
from fastdpm.cli.sample import sample
from fastdpm.cli.train import train


def register(app: typer.Typer) -> None:
    """Add every command to the application."""
    for command in (sample, plan, models, train):
        app.command()(command)
