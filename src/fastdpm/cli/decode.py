"""``fastdpm decode``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fastdpm.cli import choices

if TYPE_CHECKING:
    from fastdpm.models.latents_file import SavedLatents
    from fastdpm.models.model import Model

console = Console(soft_wrap=True, highlight=False, markup=False)


def decode(
    *,
    model: choices.ModelName,
    latents: Annotated[Path, typer.Argument(help="A file that `fastdpm encode` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    checkpoint: choices.Checkpoint = None,
    batch_size: choices.BatchSize = None,
    device: choices.Device = "auto",
) -> None:
    """Bring encoded data back, by the plan that lies beside it and the model that encoded it.

    Writes PNG files and a grid, or WAV files and a picture of them, and samples.json. Nothing is
    clipped before the data is written.
    """
    from fastdpm.models.latents import decode as decode_latents
    from fastdpm.models.latents_file import read_latents
    from fastdpm.models.load import load_model
    from fastdpm.output import SampleFolder

    saved = read_latents(latents)
    loaded = load_model(model, device, checkpoint=checkpoint)
    folder = SampleFolder.open(
        out, loaded.config.data, _identity(loaded, saved), overwrite=overwrite
    )
    data = loaded.finished(decode_latents(loaded, saved.latents, batch_size))
    folder.write(range(len(data)), data)
    rows = saved.latents.plan.num_rows
    picture = folder.finish(
        {"n": len(data), "network_evaluations": rows, "inputs": list(saved.inputs)}
    )
    console.print(f"{len(data)} decoded in {rows} network evaluations each: {out}")
    console.print(f"they can be seen in {picture}")


def _identity(model: Model, saved: SavedLatents) -> dict[str, Any]:
    plan = saved.latents.plan
    return {
        "model": model.config.name,
        "weights_sha256": model.config.weights_sha256,
        "plan": {"label": plan.label, "fingerprint": plan.fingerprint},
        "encoded": saved.latents.method,
    }
