"""``fastdpm decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.terminal import console, counted
from fastdpm.data.record import label_facts


def decode(
    *,
    model: choices.ModelName,
    latents: Annotated[
        Path, typer.Argument(help="File written by `fastdpm encode`.", metavar="LATENTS")
    ],
    folder: OutFolder,
    checkpoint: choices.Checkpoint = None,
    batch_size: choices.BatchSize = None,
    machine: Machine,
) -> None:
    """Decode latents into images or sounds, with the model that encoded them.

    Writes PNG files, or WAV files at the level of the originals, a picture of them, and
    samples.json.
    """
    from fastdpm.data.files import sha256
    from fastdpm.inverse.encoding import decode_batches
    from fastdpm.inverse.latents_file import read_latents
    from fastdpm.models.identity import config_digest
    from fastdpm.output.folder import SampleFolder, made_by

    folder.check()
    saved = read_latents(latents)
    plan = saved.latents.plan
    found = choices.find(model, checkpoint)
    loaded = machine.open(found, len(saved.latents.x), batch_size)
    evaluations = saved.latents.decoding_evaluations
    identity = {
        **made_by(loaded.config, plan),
        "network": config_digest(loaded.config),
        "encoded": saved.latents.method,
        "latents": sha256(latents),
        "network_evaluations": evaluations,
        "n": len(saved.latents.x),
        "inputs": list(saved.inputs),
        "guidance": saved.latents.guidance.record,
    }
    if loaded.config.data.classes is not None and saved.latents.condition is not None:
        identity |= label_facts(saved.latents.condition.tolist(), range(len(saved.latents.x)))
    with folder.claim("decode", identity, [latents, *found.files]) as run:
        samples = SampleFolder(run, loaded.config.data, gain=saved.gain)
        todo = samples.todo(len(saved.latents.x))
        for indices, data in decode_batches(loaded, saved.latents, batch_size, todo):
            samples.write(indices, loaded.finished(data))
        picture = samples.finish()
    each = counted(evaluations, "network evaluation")
    console.print(f"{len(samples.done)} decoded in {each} each: {run.path}")
    console.print(f"picture: {picture}")
