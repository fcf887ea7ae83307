"""``fastdpm sample``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.terminal import console, tell_notes
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError

if TYPE_CHECKING:
    from fastdpm.core.plan import Plan
    from fastdpm.models.model import Model
    from fastdpm.output.folder import SampleFolder


def sample(
    *,
    model: choices.ModelName = "digits",
    checkpoint: choices.Checkpoint = None,
    n: Annotated[
        int | None, typer.Option("-n", help="How many; 16, or one for each condition.", min=1)
    ] = None,
    sampling: choices.Sampling,
    condition: Annotated[
        str | None,
        typer.Option(
            help="For a vocoder: a sound file, or a mel spectrogram (.npy, .safetensors). For a"
            " model with classes: labels, 0,3,7."
        ),
    ] = None,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    out: Annotated[
        Path | None, typer.Option(help="Folder; by default a new one under samples/.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Draw what an interrupted run still lacks.")
    ] = False,
) -> None:
    """Sample a trained model; unstated choices are its recommended recipe.

    Writes PNG files and a grid, or WAV files and a picture of them, and samples.json.
    """
    from fastdpm.data.condition import read_condition
    from fastdpm.data.tensors import values_digest
    from fastdpm.models.find import find_model
    from fastdpm.models.identity import config_digest
    from fastdpm.output.folder import SampleFolder, free_folder, made_by

    if resume and out is None:
        raise InvalidArgumentError("--resume needs the --out of the run to go on with")
    loaded = machine.open(find_model(model, checkpoint), n, batch_size)
    config = loaded.config
    recipe, saved = sampling.choose(config.recipe)
    if saved is not None:
        loaded.check_plan(saved)
    plan = saved or recipe.compile(loaded.schedule)
    given = None if condition is None else read_condition(condition, config.data)
    chosen_for = loaded.check_condition(given)
    count = n if n is not None else 16 if chosen_for is None else len(chosen_for)
    identity: dict[str, Any] = {
        **made_by(config, plan),
        "network": config_digest(config),
        "clip": recipe.clip,
        "condition": None if chosen_for is None else values_digest(chosen_for),
        "seed": seed,
        "precision": precision,
    }
    path = out if out is not None else free_folder(Path("samples"), config.name)
    folder = SampleFolder.open(path, config.data, identity, overwrite=overwrite, resume=resume)
    if saved is not None or recipe != config.recipe:
        tell_notes(plan.notes)
    todo = [i for i in range(count) if i not in folder.done]
    began = time.perf_counter()
    if todo:
        options = {
            "clip": recipe.clip,
            "seed": seed,
            "batch_size": batch_size,
            "condition": chosen_for,
            "precision": precision,
        }
        _draw(loaded, plan, folder, todo, options)
    seconds = time.perf_counter() - began
    total = loaded.schedule.num_train_steps
    picture = folder.finish(
        {"n": len(folder.done), "network_evaluations": plan.num_rows, "T": total}
        | {"seconds": round(seconds, 3)}
    )
    kind = {"image": "image", "audio": "sound"}.get(config.data.modality, "sample")
    shown = "they" if len(folder.done) <= folder.most_shown else f"the first {folder.most_shown}"
    console.print(f"{_count(len(todo), kind)} drawn, {len(folder.done)} in {path}")
    console.print(f"{shown} can be seen in {picture}")
    console.print(
        f"{_count(plan.num_rows, 'network evaluation')} each instead of {total}:"
        f" {total / plan.num_rows:,.1f} times fewer; sampling took {seconds:.1f} s"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _draw(
    model: Model, plan: Plan, folder: SampleFolder, todo: list[int], options: dict[str, Any]
) -> None:
    """Draw samples batch by batch under a progress bar; an interrupt keeps what is written."""
    from fastdpm.progress import sampling_bar

    try:
        with sampling_bar() as bar:
            for indices, samples in model.sample_batches(todo, plan, callback=bar, **options):
                folder.write(indices, samples)
    except KeyboardInterrupt:
        kept = f"{len(folder.done)} samples are in {folder.path}: " if folder.done else ""
        again = f"add --out {folder.path} --resume to the same command to draw the rest"
        raise InterruptedRunError(
            f"interrupted: {kept}{again if folder.done else 'nothing was written'}"
        ) from None
