"""``fastdpm interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdpm.cli import choices
from fastdpm.cli.expand import changes
from fastdpm.cli.inputs import (
    ENCODING_HELP,
    Encoding,
    Given,
    Source,
    note_deviation,
    tell_lost,
)
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, check_folder
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.data.spec import DataSpec
    from fastdpm.inverse.encode import Latents

_PAUSE_SECONDS = 0.2
_CLOSE = 1e-4

End = Annotated[Path, typer.Argument(help="An image or a mono sound.")]


@changes(choices.Stated, without=("method",), **ENCODING_HELP)
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

    from fastdpm.data.files import new_folder
    from fastdpm.inverse.encode import decode
    from fastdpm.inverse.interpolate import between

    replaced = check_folder(out, overwrite)
    given = source.read([a, b], machine, n=3)
    _check_two(given.names)
    ends = encoding.encode(given, stated, source.batch_size)
    _check_found(ends, given.names)
    fractions = torch.linspace(0, 1, n, dtype=torch.float64)
    samples = given.model.finished(
        decode(given.model, between(ends, fractions), source.batch_size)
    )
    error = _worst_error(given.x, samples[[0, -1]])
    gain = torch.lerp(given.gain[0], given.gain[1], fractions)
    with new_folder(out, replaced) as folder:
        facts = _facts(given, ends, error)
        picture = _write(folder, samples, gain, given.model.config.data, facts)
    console.print(f"{n} samples from {given.names[0]} to {given.names[1]}: {out}")
    console.print(f"they can be seen in {out / picture}; its ends are off by {error:.1g}")
    if error > _CLOSE:
        console.print("note: encode --by invertible or implicit to end at A and B themselves")
    note_deviation(ends)


def _check_two(names: list[str]) -> None:
    from fastdpm.core.errors import InvalidArgumentError

    if len(names) != 2:
        raise InvalidArgumentError(
            f"an interpolation has two ends, but A and B hold {len(names)} or more samples: give"
            " one file each"
        )


def _check_found(ends: Latents, names: list[str]) -> None:
    from fastdpm.core.errors import SamplingError
    from fastdpm.inverse.latents_file import usable

    advice = tell_lost(ends, names)
    if not usable(ends).all():
        raise SamplingError(f"an end did not converge: {advice}")


def _worst_error(wanted: Tensor, found: Tensor) -> float:
    """Relative, of the ends."""
    apart = (found.cpu() - wanted).flatten(1).norm(dim=1)
    return float((apart / wanted.flatten(1).norm(dim=1).clamp_min(1e-12)).max())


def _facts(given: Given, ends: Latents, error: float) -> dict[str, Any]:
    return {
        "model": given.model.config.name,
        "weights_sha256": given.model.config.weights_sha256,
        "plan": {"label": ends.plan.label, "fingerprint": ends.plan.fingerprint},
        "encoded": ends.method,
        "ends": given.inputs,
        "error_of_ends": error,
        "latents_standard_deviation": float(ends.noise.std()),
    }


def _write(
    folder: Path, samples: Tensor, gain: Tensor, data: DataSpec, facts: dict[str, Any]
) -> str:
    """Write the samples, their picture and the record; returns the picture's name."""
    import numpy as np

    from fastdpm.data.pixels import to_pixels, write_png
    from fastdpm.data.record import SampleRecord
    from fastdpm.data.sound import at_level, write_wav
    from fastdpm.output.figures_inverse import write_animation, write_sound_strip, write_strip

    picture, gains = folder / "strip.png", None
    if data.modality == "image":
        names = [f"{i:06d}.png" for i in range(len(samples))]
        pixels = to_pixels(samples)
        for name, image in zip(names, pixels, strict=True):
            write_png(folder / name, image)
        write_strip(picture, pixels)
        write_animation(folder / "animation.png", pixels)
    else:
        names = [f"{i:06d}.wav" for i in range(len(samples))]
        sounds, rate = at_level(samples[:, 0].cpu(), gain).numpy(), data.sample_rate or 0
        gains = gain.tolist()
        for name, sound in zip(names, sounds, strict=True):
            write_wav(folder / name, sound, rate)
        pause = np.zeros((len(sounds), round(_PAUSE_SECONDS * rate)), dtype=np.float32)
        write_wav(folder / "joined.wav", np.hstack([sounds, pause]).reshape(-1), rate)
        write_sound_strip(picture, sounds, rate)
    SampleRecord(names, picture.name, facts, gains).write(folder)
    return picture.name
