"""``fastdpm interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.inputs import Encoding, Source, encodes, note_deviation, tell_lost
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, results_folder
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError, SamplingError

End = Annotated[Path, typer.Argument(help="An image or a mono sound.")]


@encodes
def interpolate(
    *,
    source: Source,
    a: End,
    b: End,
    n: Annotated[int, typer.Option("-n", help="How many, the two ends among them.", min=2)] = 9,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Overwrite = False,
    encoding: Encoding,
    stated: choices.Stated,
    machine: Machine,
) -> None:
    """Go from one image or sound to another, along the sphere of their latents.

    Writes PNG files, a strip and an animation, or WAV files, one after another in joined.wav and
    a picture of them, at a level that goes from that of A to that of B. Unstated choices of
    levels are the model's recommended recipe, whose S, noise and clipping do not apply.
    """
    import torch

    from fastdpm.inverse.encode import decode
    from fastdpm.inverse.interpolate import CLOSE, between, error_of_ends
    from fastdpm.output.figures_inverse import write_way
    from fastdpm.output.folder import made_by, write_samples

    filled = results_folder(out, overwrite)
    given = source.read([a, b], machine, n=3)
    if len(given.names) != 2:
        raise InvalidArgumentError(
            f"an interpolation has two ends, but A and B hold {len(given.names)} or more samples:"
            " give one file each"
        )
    model = given.model
    ends = encoding.encode(given, stated, source.batch_size)
    advice = tell_lost(ends, given.names)
    if not ends.usable.all():
        raise SamplingError(f"an end did not converge: {advice}")
    fractions = torch.linspace(0, 1, n, dtype=torch.float64)
    samples = model.finished(decode(model, between(ends, fractions), source.batch_size))
    error = error_of_ends(given.x, samples)
    gain = torch.lerp(given.gain[0], given.gain[1], fractions)
    facts = {
        **made_by(model.config, ends.plan),
        "encoded": ends.method,
        "ends": given.inputs,
        "error_of_ends": error,
        "latents_standard_deviation": ends.deviation,
    }
    with filled as folder:
        picture = write_samples(folder, model.config.data, samples, gain, facts, write_way)
    console.print(f"{n} samples from {given.names[0]} to {given.names[1]}: {out}")
    console.print(f"they can be seen in {out / picture}; its ends are off by {error:.1g}")
    if error > CLOSE:
        console.print("note: encode --by invertible or implicit to end at A and B themselves")
    note_deviation(ends)
