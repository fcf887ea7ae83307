"""``fastdpm plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices


def plan(
    *,
    model: choices.ModelName = "digits",
    checkpoint: choices.Checkpoint = None,
    stated: choices.Stated,
    plot: Annotated[Path | None, typer.Option(help="Draw it to this .png, .pdf or .svg.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Save it as JSON, for `sample --plan`.")
    ] = None,
) -> None:
    """Print, draw or save the table of coefficients that `sample` runs; no network is loaded."""
    from fastdpm.core.schedule import VarianceSchedule
    from fastdpm.data.files import write_text
    from fastdpm.models.find import find_model

    config = find_model(model, checkpoint).config
    recipe = stated.recipe(config.recipe)
    compiled = recipe.compile(VarianceSchedule.from_config(config.schedule))
    typer.echo(str(compiled))
    if plot is not None:
        from fastdpm.output.figures import write_plan

        write_plan(plot, compiled)
        typer.echo(f"drawn to {plot}")
    if save is not None:
        write_text(save, compiled.to_json() + "\n")
        typer.echo(f"saved to {save}")
