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
from fastdpm.cli.outputs import Overwrite, check_folder
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.data.spec import DataSpec
PICTURE = "edited.png"


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
            " nothing under the mask is seen.",
            show_default=False,
        ),
    ] = None,
    at_level: Annotated[
        float | None,
        typer.Option(
            help="In place of it, a level to go back to; 1 is clean.", show_default=False
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White where to paint, black where to keep: an image, or 1 and 0 in a .npy file.",
            show_default=False,
        ),
    ] = None,
    span: Annotated[
        str | None,
        typer.Option(help="Seconds of a sound to paint: 0.2:0.5.", show_default=False),
    ] = None,
    stated: choices.Stated,
    clip: choices.Clip = None,
    seed: choices.Seed = 0,
    machine: Machine,
    out: Annotated[Path, typer.Option(help="Folder.", show_default=False)],
    overwrite: Overwrite = False,
) -> None:
    """Noise images or sounds to a level and sample them back, or paint what a mask marks.

    What a mask keeps is the input's to the last bit: of 8-bit images and 16-bit sounds, after
    --resize and --resample. Writes the samples, sounds at the level of the originals, a picture of
    originals and results, and samples.json.
    """
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.data.files import new_folder
    from fastdpm.inverse.edit import edit as run_edit
    from fastdpm.inverse.edit import plan_edit
    from fastdpm.output.folder import SampleFolder
    from fastdpm.progress import sampling_bar

    if strength is not None and at_level is not None:
        raise InvalidArgumentError("give --strength or --at-level, not both")
    replaced = check_folder(out, overwrite)
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
    plan = how.plan
    identity = {
        "model": config.name,
        "weights_sha256": config.weights_sha256,
        "plan": {"label": plan.label, "fingerprint": plan.fingerprint},
        "clip": recipe.clip,
        "seed": seed,
    }
    for note in levels.notes:
        console.print(f"note: {note}")
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
    facts = {"inputs": given.inputs, "painted": _share(marked), "n": len(found)}
    with new_folder(out, replaced) as place:
        folder = SampleFolder(place, config.data, identity)
        folder.write(range(len(found)), found, given.gain)
        folder.finish({"network_evaluations": plan.num_rows, **facts})
        _draw(place / PICTURE, [x, _masked(x, marked), found], marked, config.data)
    _tell(plan, marked, len(found), out, seconds)


def _marked(mask: Path | None, span: str | None, x: Tensor, data: DataSpec) -> Tensor | None:
    """The mask that is asked for, checked against the data, or None."""
    from fastdpm.core.errors import InvalidArgumentError
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


def _share(mask: Tensor | None) -> float | None:
    return None if mask is None else round(float(mask.double().mean()), 6)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor | None:
    """The data with nothing, grey or silence, where it is to be painted."""
    return None if mask is None else x.masked_fill(mask, 0.0)


def _draw(path: Path, rows: list[Tensor | None], mask: Tensor | None, data: DataSpec) -> None:
    """Draw originals, what is kept of them if there is a mask, and results."""
    import torch

    from fastdpm.output.figures_edit import write_edited_images, write_edited_lines

    shown = [row for row in rows if row is not None]
    painted = None
    if mask is not None:
        painted = torch.broadcast_to(mask, shown[0].shape).any(dim=1).numpy()
    if data.modality == "image":
        write_edited_images(path, shown, painted)
        return
    write_edited_lines(path, shown, painted, data.sample_rate)


def _tell(plan: Plan, mask: Tensor | None, count: int, out: Path, seconds: float) -> None:
    done = "edited" if mask is None else f"painted, {100 * (_share(mask) or 0):.3g} % of each"
    console.print(
        f"{count} {done}, from level {plan.level[0]:.4g} in {plan.num_rows} network evaluations"
        f" each; {seconds:.1f} s"
    )
    if mask is not None:
        console.print("what the mask keeps is the input's to the last bit, as it was read")
    console.print(f"written to {out}; originals and results can be seen in {out / PICTURE}")
