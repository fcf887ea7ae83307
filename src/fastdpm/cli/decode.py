"""``fastdpm decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, check_folder
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.inverse.latents_file import SavedLatents
    from fastdpm.models.model import Model


def decode(
    *,
    model: choices.ModelName,
    latents: Annotated[Path, typer.Argument(help="A file that `fastdpm encode` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Overwrite = False,
    checkpoint: choices.Checkpoint = None,
    batch_size: choices.BatchSize = None,
    machine: Machine,
) -> None:
    """Bring encoded data back, by the plan that lies beside it and the model that encoded it.

    Writes PNG files and a grid, or WAV files at the level of the originals and a picture of them,
    and samples.json. Data is cut to [-1, 1] and rounded to 8 or 16 bits when it is written.
    """
    from fastdpm.data.files import new_folder
    from fastdpm.inverse.encode import decode as decode_latents
    from fastdpm.inverse.latents_file import read_latents
    from fastdpm.models.find import find_model
    from fastdpm.models.load import open_model
    from fastdpm.output.folder import SampleFolder

    replaced = check_folder(out, overwrite)
    saved = read_latents(latents)
    found = find_model(model, checkpoint)
    machine.use_threads(found.config, len(saved.latents.x), batch_size)
    loaded = open_model(found, machine.device)
    data = loaded.finished(decode_latents(loaded, saved.latents, batch_size))
    rows = saved.latents.plan.num_rows
    with new_folder(out, replaced) as place:
        folder = SampleFolder(place, loaded.config.data, _identity(loaded, saved))
        folder.write(range(len(data)), data, saved.gain)
        picture = folder.finish({"n": len(data), "inputs": list(saved.inputs)})
    console.print(f"{len(data)} decoded in {rows} network evaluations each: {out}")
    console.print(f"they can be seen in {out / picture.name}")


def _identity(model: Model, saved: SavedLatents) -> dict[str, Any]:
    plan = saved.latents.plan
    return {
        "model": model.config.name,
        "weights_sha256": model.config.weights_sha256,
        "plan": {"label": plan.label, "fingerprint": plan.fingerprint},
        "encoded": saved.latents.method,
        "network_evaluations": plan.num_rows,
    }
