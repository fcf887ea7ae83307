"""``fastdpm encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastdpm.cli import recipes
from fastdpm.cli.inputs import (
    Encoding,
    InputPaths,
    Limit,
    Source,
    choose_guidance,
    encodes,
    note_deviation,
    print_unconverged,
)
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import check_output
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError, SamplingError


@encodes
def encode(
    *,
    source: Source,
    inputs: InputPaths,
    out: Annotated[Path, Panel.OUTPUT.option(help=".safetensors file to write.")],
    overwrite: Annotated[
        bool, Panel.OUTPUT.option("--overwrite", help="Replace an earlier file of latents.")
    ] = False,
    n: Limit = None,
    encoding: Encoding,
    options: recipes.RecipeOptions,
    guiding: recipes.Guiding,
    machine: Machine,
) -> None:
    """Encode images or sounds into noise that `fastdpm decode` turns back into them.

    By default, the levels are those of the model's recommended recipe at S = 50, and there is no
    guidance.
    """
    from fastdpm.inverse.latents_file import read_latents, select, write_latents

    check_output(out, (".safetensors",), inputs)
    if out.exists():
        if not overwrite:
            raise InvalidArgumentError(
                f"{out} already exists: choose another --out, or --overwrite"
            )
        read_latents(out)  # replaces latents alone
    model = source.find()
    check_output(out, inputs=model.files)
    levels = encoding.choose_levels(options, model)
    guidance = choose_guidance(guiding, model)
    loaded = source.read(model, inputs, machine, n)
    latents = encoding.encode(loaded, levels, guidance, source.batch_size)
    recipes.noted(guiding, latents.guidance)
    kept = latents.usable
    count, total = int(kept.sum()), len(kept)
    if count:
        write_latents(
            out,
            select(latents, kept),
            inputs=[
                name for name, keep in zip(loaded.file_names, kept.tolist(), strict=True) if keep
            ],
            gain=loaded.gain[kept],
        )
    advice = print_unconverged(latents, loaded.names)
    if count:
        each = float(latents.evaluations[kept].double().mean())
        guided = f", {text}" if (text := latents.guidance.describe()) else ""
        console.print(
            f"{count} of {total} encoded by {latents.method}, {latents.plan.label}{guided}: {out}"
        )
        console.print(f"network evaluations per input: {each:.4g}")
        note_deviation(latents)
    if count < total:
        left = f"are not in {out}" if count else "no file was written"
        raise SamplingError(f"{total - count} of {total} did not converge and {left}: {advice}")
