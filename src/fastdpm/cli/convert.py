"""``fastdpm convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli.expand import OneOf
from fastdpm.cli.outputs import Overwrite, Resume
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Published checkpoint, diffusers folder, or hf:owner/name.", metavar="SOURCE"
        ),
    ],
    out: Annotated[Path, Panel.OUTPUT.option(help="Model folder to write.")],
    preset: Annotated[
        str | None,
        Panel.INPUT.option(
            help="Model that a checkpoint holds: a preset's name, or a TOML file of your own; by"
            " default recognized from the tensors.",
            metavar="NAME",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        Panel.INPUT.option("--format", help="File format; by default recognized."),
        OneOf("fastdpm.models.formats.table:FORMATS"),
    ] = None,
    variant: Annotated[
        str | None,
        Panel.INPUT.option(
            help="Variant of a diffusers folder's weights, such as fp16.", metavar="NAME"
        ),
    ] = None,
    name: Annotated[
        str | None,
        Panel.OUTPUT.option(help="Name of the model; by default the preset's.", metavar="NAME"),
    ] = None,
    half: Annotated[
        bool, Panel.OUTPUT.option("--half", help="Store 16-bit weights, half the size.")
    ] = False,
    recipes: Annotated[
        Path | None,
        Panel.INPUT.option(help="TOML file of recipes to add to the model, one table for each."),
    ] = None,
    recipe: Annotated[
        str | None,
        Panel.INPUT.option(
            help="Recipe to recommend: one of the model's or of --recipes, or a method as"
            " `compare` names it.",
            metavar="NAME",
        ),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
) -> None:
    """Turn a published checkpoint into a model folder; no code in the file is run."""
    from fastdpm.models.conversion import convert as write_converted

    config, notes = write_converted(
        source,
        out,
        preset=preset,
        layout=layout,
        variant=variant,
        name=name,
        half=half,
        recipes=recipes,
        recipe=recipe,
        overwrite=overwrite,
        resume=resume,
    )
    print_notes(notes)
    steps = config.schedule.get("num_train_steps") or len(config.schedule["betas"])
    shape = " x ".join(map(str, config.data.shape))
    console.print(f"{config.name}: {config.data.modality} {shape}, T = {steps:,}, in {out}")
    console.print(f"sample it: fastdpm sample {out}")
