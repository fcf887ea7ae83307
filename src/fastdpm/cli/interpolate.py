"""``fastdpm interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdpm.cli import recipes
from fastdpm.cli.inputs import (
    Encoding,
    LoadedInputs,
    Source,
    choose_guidance,
    encodes,
    note_deviation,
    print_unconverged,
)
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError, SamplingError
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.data.record import label_facts

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.inverse.encoding import Latents
    from fastdpm.output.folder import SampleFolder


@encodes
def interpolate(
    *,
    source: Source,
    a: Annotated[Path, typer.Argument(help="First image or mono sound.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Last image or mono sound.", metavar="B")],
    n: Annotated[
        int, Panel.OUTPUT.option("-n", help="Number of samples, with both ends.", min=2)
    ] = 9,
    folder: OutFolder,
    encoding: Encoding,
    options: recipes.RecipeOptions,
    guiding: recipes.Guiding,
    machine: Machine,
) -> None:
    """Interpolate between two images or sounds, along the sphere of their latents.

    Writes PNG files, a strip and an animation; or WAV files, a picture of them, and joined.wav,
    which plays one after the other. By default, the levels are those of the model's recommended
    recipe at S = 50, and there is no guidance.
    """
    import torch

    from fastdpm.core.inverse import find_encoding
    from fastdpm.inverse.encoding import recommended_recipe
    from fastdpm.inverse.interpolation import CLOSE, between
    from fastdpm.output.figures_inverse import write_way
    from fastdpm.output.folder import SampleFolder, made_by

    check_limit("`n`", n, MAX_SAMPLES)
    folder.check()
    found = source.find()
    levels = encoding.choose_levels(options, found)
    recipe = options.recipe(recommended_recipe(found))
    recipe = recipe.replace(guidance_scale=choose_guidance(guiding, found))
    loaded = source.read(found, [a, b], machine, n=3)
    if len(loaded.names) != 2:
        raise InvalidArgumentError(
            f"an interpolation has two ends, but A and B hold {len(loaded.names)} or more samples:"
            " pass one file each"
        )
    model, plan = loaded.model, find_encoding(encoding.by).decoding(levels)
    guidance = model.check_guidance(recipe.guidance, loaded.condition)
    fractions = torch.linspace(0, 1, n, dtype=torch.float64)
    identity = {
        **made_by(model.config, plan, recipe),
        **loaded.identity,
        "without_last_row": encoding.without_last_row,
        "encoded": encoding.by,
        "solver": str(encoding.solver),
        "guidance": guidance.record,
        "n": n,
    }
    identity |= _shared_label(loaded, n)
    with folder.claim("interpolate", identity, loaded.read) as run:
        ends = encoding.encode(loaded, levels, guidance, source.batch_size)
        advice = print_unconverged(ends, loaded.names)
        if not ends.usable.all():
            raise SamplingError(f"an end did not converge: {advice}")
        gain = torch.lerp(loaded.gain[0], loaded.gain[1], fractions)
        written = SampleFolder(run, model.config.data, gain=gain)
        error = _write_missing(written, loaded, between(ends, fractions), source.batch_size)
        facts = {
            "ends": loaded.file_names,
            "error_of_ends": error,
            "latents_standard_deviation": ends.deviation,
        }
        rate = model.config.data.sample_rate or 0
        picture = written.finish(facts, lambda place, values: write_way(place, values, rate))
    console.print(f"{n} samples from {loaded.names[0]} to {loaded.names[1]}: {run.path}")
    console.print(f"picture: {picture}; its ends differ from A and B by {error:.1g}")
    if error > CLOSE:
        console.print("note: --by invertible or implicit ends at A and B themselves")
    note_deviation(ends)


def _shared_label(loaded: LoadedInputs, n: int) -> dict[str, Any]:
    """What a record says about the class of the samples, if both ends have the same."""
    if loaded.model.config.data.classes is None or loaded.condition is None:
        return {}
    labels = loaded.condition.tolist()
    return label_facts(labels[:1], range(n)) if len(set(labels)) == 1 else {}


def _write_missing(
    folder: SampleFolder, loaded: LoadedInputs, way: Latents, batch_size: int | None
) -> float:
    """Write the samples that the folder lacks, both ends first; returns the error of the ends.

    The ends are always decoded, because their error cannot be read from rounded files.
    """
    import torch

    from fastdpm.inverse.encoding import decode_batches
    from fastdpm.inverse.interpolation import error_of_ends

    model, last = loaded.model, len(way.x) - 1
    ends: list[Tensor] = []
    for part in ([0, last], [i for i in folder.todo(last) if i > 0]):
        for indices, data in decode_batches(model, way, batch_size, part):
            samples = model.finished(data)
            if part[0] == 0:
                ends.append(samples)
            if missing := [i for i in indices if i not in folder.done]:
                folder.write(missing, samples[[indices.index(i) for i in missing]])
    return error_of_ends(loaded.x, torch.cat(ends))
