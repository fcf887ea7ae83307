"""``fastdpm decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices, recipes
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.text import counted

if TYPE_CHECKING:
    from fastdpm.data.spec import DataSpec
    from fastdpm.inverse.encoding import Latents


def decode(
    *,
    model: choices.ModelName,
    latents: Annotated[
        Path, typer.Argument(help="File written by `fastdpm encode`.", metavar="LATENTS")
    ],
    folder: OutFolder,
    checkpoint: choices.Checkpoint = None,
    class_labels: Annotated[
        str | None,
        Panel.MODEL.option(
            "--class",
            help="For models with classes: one name or label for all latents, or one for each;"
            " none is no class, for models with a null class. By default, the class that each was"
            " encoded with.",
            metavar="NAME,...",
        ),
    ] = None,
    guiding: recipes.Guiding,
    batch_size: choices.BatchSize = None,
    machine: Machine,
) -> None:
    """Decode latents into images or sounds, with the model that encoded them.

    Decoded with another class, an image keeps its composition and changes its class.

    Writes PNG files, or WAV files at the level of the originals, a picture of them, and
    samples.json.
    """
    from fastdpm.data.files import sha256
    from fastdpm.inverse.encoding import decode_batches, to_decode
    from fastdpm.inverse.latents_file import read_latents
    from fastdpm.models.identity import config_digest
    from fastdpm.output.folder import SampleFolder, made_by

    folder.check()
    saved = read_latents(latents)
    encoded, plan, count = saved.latents, saved.latents.plan, len(saved.latents.x)
    found = choices.find(model, checkpoint)
    config = found.config
    classes = choices.parse_classes(class_labels)
    if classes is not None and len(classes) not in (1, count):
        raise InvalidArgumentError(
            f"pass one of `class_labels` for all of {counted(count, 'latent')}, or one for each,"
            f" got {len(classes)}"
        )
    guidance = guiding.guidance(encoded.guidance) if guiding.names() else None
    loaded = machine.open(found, count, batch_size)
    decoded = to_decode(loaded, encoded, classes, guidance_scale=guidance)
    recipes.noted(guiding, decoded.guidance)
    evaluations = decoded.decoding_evaluations
    identity = {
        **made_by(config, plan),
        "network": config_digest(config),
        "encoded": encoded.method,
        "latents": sha256(latents),
        "network_evaluations": evaluations,
        "n": count,
        "inputs": list(saved.inputs),
        "guidance": decoded.guidance.record,
        "encoded_guidance": encoded.guidance.record,
    }
    if config.data.classes is not None:
        before, after = (_labels(one, config.data) for one in (encoded, decoded))
        identity |= {"labels": after, "encoded_labels": before}
    with folder.claim("decode", identity, [latents, *found.files]) as run:
        samples = SampleFolder(run, config.data, gain=saved.gain)
        todo = samples.todo(count)
        for indices, data in decode_batches(loaded, decoded, batch_size, todo):
            samples.write(indices, loaded.finished(data))
        picture = samples.finish()
    each = counted(evaluations, "network evaluation")
    console.print(f"{len(samples.done)} decoded in {each} each: {run.path}")
    if decoded is not encoded:
        encoding, decoding = (_words(one, config.data) for one in (encoded, decoded))
        console.print(f"encoded {encoding}; decoded {decoding}")
    console.print(f"picture: {picture}")


def _labels(latents: Latents, data: DataSpec) -> list[int]:
    """The class label of each sample, if the model has classes."""
    labels = latents.condition if data.classes is not None else None
    return [] if labels is None else labels.tolist()


def _words(latents: Latents, data: DataSpec) -> str:
    """The classes and the guidance of latents."""
    from fastdpm.data.condition import describe_labels

    classes = describe_labels(_labels(latents, data), data)
    guidance = latents.guidance.describe()
    as_classes = f"as {classes}, " if classes else ""
    return as_classes + (f"with {guidance}" if guidance else "without guidance")
