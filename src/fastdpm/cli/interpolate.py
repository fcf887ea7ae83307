"""``fastdpm interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.inputs import Encoding, Source, encodes, note_deviation, print_unconverged
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder, Overwrite, results_folder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError, SamplingError
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.data.record import label_facts


@encodes
def interpolate(
    *,
    source: Source,
    a: Annotated[Path, typer.Argument(help="First image or mono sound.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Last image or mono sound.", metavar="B")],
    n: Annotated[
        int, Panel.OUTPUT.option("-n", help="Number of samples, with both ends.", min=2)
    ] = 9,
    out: OutFolder,
    overwrite: Overwrite = False,
    encoding: Encoding,
    options: choices.RecipeOptions,
    guiding: choices.Guiding,
    machine: Machine,
) -> None:
    """Interpolate between two images or sounds, along the sphere of their latents.

    Writes PNG files, a strip and an animation; or WAV files, a picture of them, and joined.wav,
    which plays one after the other. By default, the levels are those of the model's recommended
    recipe at S = 50.
    """
    import torch

    from fastdpm.inverse.encoding import decode, recommended_recipe
    from fastdpm.inverse.interpolation import CLOSE, between, error_of_ends
    from fastdpm.output.figures_inverse import write_way
    from fastdpm.output.folder import made_by, write_samples

    check_limit("`n`", n, MAX_SAMPLES)
    filled = results_folder(out, overwrite)
    found = source.find()
    levels = encoding.choose_levels(options, found)
    recipe = guiding.recipe(options.recipe(recommended_recipe(found)))
    loaded = source.read(found, [a, b], machine, n=3)
    if len(loaded.names) != 2:
        raise InvalidArgumentError(
            f"an interpolation has two ends, but A and B hold {len(loaded.names)} or more samples:"
            " pass one file each"
        )
    model = loaded.model
    ends = encoding.encode(loaded, levels, recipe.guidance, source.batch_size)
    advice = print_unconverged(ends, loaded.names)
    if not ends.usable.all():
        raise SamplingError(f"an end did not converge: {advice}")
    fractions = torch.linspace(0, 1, n, dtype=torch.float64)
    samples = model.finished(decode(model, between(ends, fractions), source.batch_size))
    error = error_of_ends(loaded.x, samples)
    gain = torch.lerp(loaded.gain[0], loaded.gain[1], fractions)
    facts = {
        **made_by(model.config, ends.plan, recipe),
        "without_last_row": encoding.without_last_row,
        "encoded": ends.method,
        "guidance": ends.guidance.record,
        "ends": loaded.file_names,
        "error_of_ends": error,
        "latents_standard_deviation": ends.deviation,
    }
    if model.config.data.classes is not None and loaded.condition is not None:
        ends_of = loaded.condition.tolist()
        if len(set(ends_of)) == 1:
            facts |= label_facts(ends_of[:1], range(n))
    with filled as folder:
        picture = write_samples(folder, model.config.data, samples, gain, facts, write_way)
    console.print(f"{n} samples from {loaded.names[0]} to {loaded.names[1]}: {out}")
    console.print(f"picture: {out / picture}; its ends differ from A and B by {error:.1g}")
    if error > CLOSE:
        console.print("note: --by invertible or implicit ends at A and B themselves")
    note_deviation(ends)
