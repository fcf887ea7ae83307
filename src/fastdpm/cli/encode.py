"""``fastdpm encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastdpm.cli import choices
from fastdpm.cli.inverse import (
    ENCODING_HELP,
    By,
    Condition,
    Inputs,
    KeepBest,
    Most,
    Resample,
    Resize,
    Tolerance,
    WithoutLastRow,
    check_by,
    check_output,
    encode_given,
    encoding_levels,
    note_deviation,
    read_given,
    tell_lost,
)

console = Console(soft_wrap=True, highlight=False, markup=False)


@choices.takes_recipe(without=("method",), **ENCODING_HELP)
def encode(
    *,
    model: choices.ModelName,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier file of latents.")
    ] = False,
    n: Most = None,
    by: By = "invertible",
    stated: choices.Stated,
    tolerance: Tolerance = None,
    keep_best: KeepBest = False,
    without_last_row: WithoutLastRow = False,
    condition: Condition = None,
    resize: Resize = False,
    resample: Resample = False,
    checkpoint: choices.Checkpoint = None,
    batch_size: choices.BatchSize = None,
    device: choices.Device = "auto",
) -> None:
    """Encode images or sounds into noise that `fastdpm decode` brings back.

    The file holds the latents, the plan that decodes them and the level of each sound, which is
    scaled to the model's. Unstated choices of levels are the model's recommended recipe, whose S,
    noise and clipping do not apply.
    """
    from fastdpm.core.errors import SamplingError
    from fastdpm.inverse.latents_file import select, usable, write_latents

    _check_out(out, inputs, overwrite)
    check_by(by, tolerance, keep_best)
    given = read_given(
        model,
        inputs,
        checkpoint=checkpoint,
        device=device,
        condition=condition,
        resize=resize,
        resample=resample,
        n=n,
    )
    levels = encoding_levels(stated, given.model, by, without_last_row)
    latents = encode_given(
        given, levels, by, tolerance=tolerance, keep_best=keep_best, batch_size=batch_size
    )
    advice = tell_lost(latents, given.names)
    kept = usable(latents)
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


def _check_out(out: Path, inputs: list[Path], overwrite: bool) -> None:
    from fastdpm.core.errors import InvalidArgumentError

    check_output(out, (".safetensors",), inputs)
    if out.exists() and not overwrite:
        raise InvalidArgumentError(f"{out} is there already: choose another --out, or --overwrite")
