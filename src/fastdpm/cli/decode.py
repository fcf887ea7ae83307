"""``fastdpm decode``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder, Overwrite, results_folder
from fastdpm.cli.terminal import console, counted
from fastdpm.data.record import label_facts


def decode(
    *,
    model: choices.ModelName,
    latents: Annotated[
        Path, typer.Argument(help="File written by `fastdpm encode`.", metavar="LATENTS")
    ],
    out: OutFolder,
    overwrite: Overwrite = False,
    checkpoint: choices.Checkpoint = None,
    batch_size: choices.BatchSize = None,
    machine: Machine,
) -> None:
    """Decode latents into images or sounds, with the model that encoded them.

    Writes PNG files, or WAV files at the level of the originals, a picture of them, and
    samples.json.
    """
    from fastdpm.inverse.encoding import decode as decode_latents
    from fastdpm.inverse.latents_file import read_latents
    from fastdpm.models.find import find_model
    from fastdpm.output.folder import made_by, write_samples

    filled = results_folder(out, overwrite)
    saved = read_latents(latents)
    plan = saved.latents.plan
    loaded = machine.open(find_model(model, checkpoint), len(saved.latents.x), batch_size)
    data = loaded.finished(decode_latents(loaded, saved.latents, batch_size))
    evaluations = saved.latents.decoding_evaluations
    facts = {
        **made_by(loaded.config, plan),
        "encoded": saved.latents.method,
        "network_evaluations": evaluations,
        "n": len(data),
        "inputs": list(saved.inputs),
        "guidance": saved.latents.guidance.record,
    }
    if loaded.config.data.classes is not None and saved.latents.condition is not None:
        facts |= label_facts(saved.latents.condition.tolist(), range(len(data)))
    with filled as folder:
        picture = write_samples(folder, loaded.config.data, data, saved.gain, facts)
    each = counted(evaluations, "network evaluation")
    console.print(f"{len(data)} decoded in {each} each: {out}")
    console.print(f"picture: {out / picture}")
