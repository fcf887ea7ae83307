"""``fastdpm interpolate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fastdpm.cli import choices
from fastdpm.cli.inverse import (
    By,
    Condition,
    Given,
    KeepBest,
    Overwrite,
    Resample,
    Resize,
    Tolerance,
    WithoutLastRow,
    check_by,
    check_folder,
    encode_given,
    encoding_levels,
    encoding_recipe,
    note_deviation,
    read_given,
)

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.levels import NoiseLevels
    from fastdpm.models.config import DataSpec
    from fastdpm.models.latents import Latents

console = Console(soft_wrap=True, highlight=False, markup=False)

_NUM_STEPS = 50  # fewer leave the latents of most models too far from noise
_PAUSE_SECONDS = 0.2
_NAMES = ("samples.json", "strip.png", "animation.png", "joined.wav")
_BY_HAND = ("at_steps", "at_levels", "variances")

End = Annotated[Path, typer.Argument(help="An image or a mono sound.")]


@choices.takes_recipe
def interpolate(
    *,
    model: choices.ModelName,
    a: End,
    b: End,
    n: Annotated[int, typer.Option("-n", help="How many, the two ends among them.", min=2)] = 9,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Overwrite = False,
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
    """Go from one image or sound to another, along the sphere of their latents.

    Writes PNG files, a strip and an animation, or WAV files, one after another in joined.wav and
    a picture of them. S is 50 if it is not stated, other choices of levels are the model's
    recommended recipe, whose noise and clipping do not apply.
    """
    from fastdpm.files import new_folder
    from fastdpm.models.interpolate import between
    from fastdpm.models.latents import decode
    from fastdpm.models.latents_file import check_usable

    replaced = check_folder(out, _NAMES, overwrite)
    check_by(by, tolerance, keep_best)
    given = read_given(
        model,
        [a, b],
        checkpoint=checkpoint,
        device=device,
        condition=condition,
        resize=resize,
        resample=resample,
        n=3,
    )
    _check_two(given.names)
    levels = _levels(given, stated, without_last_row)
    ends = encode_given(
        given, levels, by, tolerance=tolerance, keep_best=keep_best, batch_size=batch_size
    )
    check_usable(ends, given.names)
    way = between(ends, _fractions(n))
    data = decode(given.model, way, batch_size)
    error = _worst_error(given.x, given.model.finished(data[[0, -1]]))
    samples = given.model.finished(data)
    with new_folder(out, replaced) as folder:
        picture = _write(folder, samples, given.model.config.data, _facts(given, ends, error))
    console.print(f"{n} samples from {given.names[0]} to {given.names[1]}: {out}")
    console.print(f"they can be seen in {out / picture}; the ends are exact to {error:.1g}")
    note_deviation(ends)


def _fractions(n: int) -> Tensor:
    import torch

    return torch.linspace(0, 1, n, dtype=torch.float64)


def _check_two(names: list[str]) -> None:
    from fastdpm.core.errors import InvalidArgumentError

    if len(names) != 2:
        raise InvalidArgumentError(
            f"an interpolation has two ends, but A and B hold {len(names)} or more samples: give"
            " one file each"
        )


def _levels(given: Given, stated: choices.Stated, without_last_row: bool) -> NoiseLevels:
    recipe = encoding_recipe(stated, given.model.config.recipe)
    schedule = given.model.schedule
    if stated.steps is None and all(getattr(stated, name) is None for name in _BY_HAND):
        recipe = recipe.replace(num_steps=min(_NUM_STEPS, schedule.num_train_steps))
    return encoding_levels(recipe, schedule, without_last_row)


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
        "ends": given.names,
        "error_of_ends": error,
        "latents_standard_deviation": float(ends.noise.std()),
    }


def _write(folder: Path, samples: Tensor, data: DataSpec, facts: dict[str, Any]) -> str:
    """Write the samples, their picture and the record; returns the picture's name."""
    import numpy as np

    from fastdpm.figures import to_pixels, write_png
    from fastdpm.figures_inverse import write_animation, write_sound_strip, write_strip
    from fastdpm.files import write_text
    from fastdpm.output import RECORD, write_wav

    picture = folder / "strip.png"
    if data.modality == "image":
        names = [f"{i:06d}.png" for i in range(len(samples))]
        pixels = to_pixels(samples)
        for name, image in zip(names, pixels, strict=True):
            write_png(folder / name, image)
        write_strip(picture, pixels)
        write_animation(folder / "animation.png", pixels)
    else:
        names = [f"{i:06d}.wav" for i in range(len(samples))]
        sounds, rate = samples[:, 0].cpu().numpy(), data.sample_rate or 0
        for name, sound in zip(names, sounds, strict=True):
            write_wav(folder / name, sound, rate)
        pause = np.zeros((len(sounds), round(_PAUSE_SECONDS * rate)), dtype=np.float32)
        write_wav(folder / "joined.wav", np.hstack([sounds, pause]).reshape(-1), rate)
        write_sound_strip(picture, sounds, rate)
    record = {"format": "fastdpm-samples", "complete": True, **facts, "files": names}
    write_text(folder / RECORD, json.dumps(record | {"picture": picture.name}, indent=1) + "\n")
    return picture.name
