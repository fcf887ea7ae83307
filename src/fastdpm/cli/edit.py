"""``fastdpm edit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.expand import changes
from fastdpm.cli.inputs import Inputs, Most, Source
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, results_folder
from fastdpm.cli.terminal import console, tell_notes
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.data.spec import DataSpec


@changes(choices.Stated, without=("method",))
def edit(
    *,
    source: Source,
    inputs: Inputs,
    n: Most = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Share of the rows to run, in (0, 1]; by default 0.5, with a mask 1, where"
            " nothing under the mask is seen."
        ),
    ] = None,
    at_level: Annotated[
        float | None, typer.Option(help="In place of it, a level to go back to; 1 is clean.")
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White where to paint, black where to keep: an image, or 1 and 0 in a .npy file."
        ),
    ] = None,
    span: Annotated[str | None, typer.Option(help="Seconds of a sound to paint: 0.2:0.5.")] = None,
    stated: choices.Stated,
    clip: choices.Clip = None,
    seed: choices.Seed = 0,
    machine: Machine,
    out: Annotated[Path, typer.Option(help="Folder.")],
    overwrite: Overwrite = False,
) -> None:
    """Noise images or sounds to a level and sample them back, or paint what a mask marks.

    What a mask keeps is the input's to the last bit: of 8-bit images and 16-bit sounds, after
    --resize and --resample. Writes the samples, sounds at the level of the originals, a picture of
    originals and results, and samples.json.
    """
    from fastdpm.inverse.edit import edit as run_edit
    from fastdpm.inverse.edit import plan_edit
    from fastdpm.output.figures_inverse import EDITED, write_edits
    from fastdpm.output.folder import made_by, write_samples
    from fastdpm.progress import sampling_bar

    if strength is not None and at_level is not None:
        raise InvalidArgumentError("give --strength or --at-level, not both")
    filled = results_folder(out, overwrite)
    given = source.read(inputs, machine, n)
    config, x = given.model.config, given.x
    recipe = stated.recipe(config.recipe, clip)
    marked = _marked(mask, span, x, config.data)
    levels = recipe.choose_levels(given.model.schedule)
    how = plan_edit(
        given.model,
        level=at_level,
        strength=strength,
        masked=marked is not None,
        levels=levels,
        kappa=recipe.stochasticity,
    )
    tell_notes(levels.notes)
    began = time.perf_counter()
    with sampling_bar() as bar:
        found = run_edit(
            given.model,
            x,
            plan=how,
            mask=marked,
            clip=recipe.clip,
            seed=seed,
            condition=given.condition,
            batch_size=source.batch_size,
            callback=bar,
        )
    seconds = time.perf_counter() - began
    share = None if marked is None else round(float(marked.double().mean()), 6)
    facts = {
        **made_by(config, how.plan),
        "clip": recipe.clip,
        "seed": seed,
        "network_evaluations": how.plan.num_rows,
        "inputs": given.inputs,
        "painted": share,
        "n": len(found),
    }
    with filled as folder:
        write_samples(folder, config.data, found, given.gain, facts)
        write_edits(folder / EDITED, x, found, marked, config.data)
    done = "edited" if share is None else f"painted, {100 * share:.3g} % of each"
    console.print(
        f"{len(found)} {done}, from level {how.plan.level[0]:.4g} in {how.plan.num_rows} network"
        f" evaluations each; {seconds:.1f} s"
    )
    if marked is not None:
        console.print("what the mask keeps is the input's to the last bit, as it was read")
    console.print(f"written to {out}; originals and results can be seen in {out / EDITED}")


def _marked(mask: Path | None, span: str | None, x: Tensor, data: DataSpec) -> Tensor | None:
    """The mask that is asked for, checked against the data, or None."""
    from fastdpm.inverse.edit import check_mask, read_mask, span_mask

    if span is None:
        return None if mask is None else check_mask(read_mask(mask), x)
    if mask is not None:
        raise InvalidArgumentError("give --mask or --span, not both")
    if data.sample_rate is None:
        raise InvalidArgumentError("--span is of sounds: give --mask")
    try:
        first, last = (float(part) for part in span.split(":"))
    except ValueError:
        raise InvalidArgumentError(
            f"--span takes two times in seconds, such as 0.2:0.5, got {span!r}"
        ) from None
    return check_mask(span_mask((first, last), x.shape[-1], data.sample_rate), x)
