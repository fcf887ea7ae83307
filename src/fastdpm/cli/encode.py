"""``fastdpm encode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fastdpm.cli import choices
from fastdpm.cli.inverse import (
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
    encode_given,
    encoding_levels,
    encoding_recipe,
    note_deviation,
    read_given,
)

console = Console(soft_wrap=True, highlight=False, markup=False)


@choices.takes_recipe
def encode(
    *,
    model: choices.ModelName,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The file to write, .safetensors.")],
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

    The file holds the latents and the plan that decodes them; unstated choices of levels are the
    model's recommended recipe, whose noise and clipping do not apply.
    """
    from fastdpm.core.errors import SamplingError
    from fastdpm.files import check_place
    from fastdpm.models.latents_file import select, unsolved, usable, write_latents

    check_place(out)
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
    config = given.model.config
    recipe = encoding_recipe(stated, config.recipe)
    levels = encoding_levels(recipe, given.model.schedule, without_last_row)
    latents = encode_given(
        given, levels, by, tolerance=tolerance, keep_best=keep_best, batch_size=batch_size
    )
    for line in unsolved(latents, given.names):
        console.print(f"not converged: {line}")
    kept = usable(latents)
    count, total = int(kept.sum()), len(kept)
    if count:
        names = [name for name, is_kept in zip(given.names, kept.tolist(), strict=True) if is_kept]
        write_latents(out, select(latents, kept), model_name=config.name, inputs=names)
        each = float(latents.evaluations[kept].double().mean())
        console.print(f"{count} of {total} encoded by {latents.plan.label}: {out}")
        console.print(f"{each:.4g} network evaluations each")
        note_deviation(latents)
    if count < total:
        raise SamplingError(
            f"{total - count} of {total} did not converge and are not in {out}: encode --by"
            " invertible, add --without-last-row if they fail there, take more steps, raise"
            " --tolerance or add --keep-best"
        )
