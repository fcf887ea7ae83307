"""``fastdpm encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.inputs import Encoding, Inputs, Most, Source, encodes, note_deviation, tell_lost
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import check_output
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError, SamplingError


@encodes
def encode(
    *,
    source: Source,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier file of latents.")
    ] = False,
    n: Most = None,
    encoding: Encoding,
    stated: choices.Stated,
    machine: Machine,
) -> None:
    """Encode images or sounds into noise that `fastdpm decode` brings back.

    The file holds the latents, the plan that decodes them and the level of each sound, which is
    scaled to the model's. Unstated choices of levels are the model's recommended recipe, whose S,
    noise and clipping do not apply.
    """
    from fastdpm.inverse.latents_file import select, write_latents

    check_output(out, (".safetensors",), inputs)
    if out.exists() and not overwrite:
        raise InvalidArgumentError(f"{out} is there already: choose another --out, or --overwrite")
    given = source.read(inputs, machine, n)
    latents = encoding.encode(given, stated, source.batch_size)
    advice = tell_lost(latents, given.names)
    kept = latents.usable
    count, total = int(kept.sum()), len(kept)
    if count:
        write_latents(
            out,
            select(latents, kept),
            inputs=[name for name, has in zip(given.inputs, kept.tolist(), strict=True) if has],
            gain=given.gain[kept],
        )
        each = float(latents.evaluations[kept].double().mean())
        console.print(f"{count} of {total} encoded by {latents.plan.label}: {out}")
        console.print(f"network evaluations of each: {each:.4g}")
        note_deviation(latents)
    if count < total:
        left = f"are not in {out}" if count else "no file was written"
        raise SamplingError(f"{total - count} of {total} did not converge and {left}: {advice}")
