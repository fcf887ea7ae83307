"""``fastdpm convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli.expand import OneOf
from fastdpm.cli.terminal import console, tell_notes


def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="A published checkpoint, a diffusers folder, or hf:owner/name.", metavar="FILE"
        ),
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    preset: Annotated[
        str | None,
        typer.Option(
            help="What the file holds: a published model's name, or a TOML file of your own; by"
            " default whatever its tensors fit."
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option("--format", help="By default recognized from the contents."),
        OneOf("fastdpm.models.formats.table:FORMATS"),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the model; by default the preset's.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Store 16-bit weights: half the size.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model folder that is there.")
    ] = False,
) -> None:
    """Turn a published checkpoint into a model folder; nothing in the file is executed."""
    from fastdpm.models.convert import convert as write_converted

    config, notes = write_converted(
        source, out, preset=preset, layout=layout, name=name, half=half, overwrite=overwrite
    )
    tell_notes(notes)
    steps = config.schedule.get("num_train_steps") or len(config.schedule["betas"])
    shape = " x ".join(map(str, config.data.shape))
    console.print(f"{config.name}: {config.data.modality} {shape}, T = {steps:,}, in {out}")
    console.print(f"sample it: fastdpm sample {out}")
