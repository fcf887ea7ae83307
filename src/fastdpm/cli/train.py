"""``fastdpm train``."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.expand import changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.training.config import ClassifierConfig, TrainConfig
    from fastdpm.training.loop import Progress


@changes(OutFolder, out="Folder of the run; the model is written to its model/.")
def train(
    *,
    config: Annotated[
        str,
        typer.Argument(
            help="TOML file, or the name of a built-in model or feature network.", metavar="CONFIG"
        ),
    ],
    data: Annotated[
        str,
        Panel.INPUT.option(
            help="Parquet file, folder, zip or .npz of images or sounds, or sklearn:digits.",
            metavar="PATH",
        ),
    ],
    test: Annotated[
        str | None,
        Panel.INPUT.option(
            help="Held-out data to measure the loss of a model, or the accuracy of a feature"
            " network, on.",
            metavar="PATH",
        ),
    ] = None,
    start: Annotated[
        str | None,
        Panel.INPUT.option(
            "--from",
            help="Model whose weights to start from, with a new optimizer.",
            metavar="MODEL",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        Panel.TRAINING.option(min=0.001, help="Stop after this time and write the model."),
    ] = None,
    steps: Annotated[
        int | None,
        Panel.TRAINING.option(help="Number of steps; by default the configuration's.", min=1),
    ] = None,
    batch_size: Annotated[
        int | None,
        Panel.TRAINING.option(help="Samples in one step; by default the configuration's.", min=1),
    ] = None,
    machine: Machine,
    folder: OutFolder,
) -> None:
    """Train a model, or a feature network that measures samples, on a CPU or a GPU.

    Writes checkpoint.pt, loss.csv, loss.png and samples.png as it runs, and model/ at the end.
    """
    from fastdpm.core.errors import InterruptedRunError
    from fastdpm.data.tensors import values_digest
    from fastdpm.models.load import find_device
    from fastdpm.training.config import read_train_config
    from fastdpm.training.data import load_training_data
    from fastdpm.training.loop import Trainer, check_start
    from fastdpm.training.precision import precision_on

    settings = read_train_config(config).replace(steps=steps, batch_size=batch_size)
    earlier = None if start is None else choices.find(start, None)
    if earlier is not None:
        check_start(earlier, settings)
    where = find_device(machine.device)
    options = settings.training
    machine.use_stated_threads()
    folder.check()
    read = partial(load_training_data, spec=settings.data, labeled=settings.labeled)
    rows = read(data, horizontal_flip=options.horizontal_flip).to(where)
    held_out = None if test is None else read(test).to(where)
    command = choices.command_line("--resume", "--overwrite")
    identity = settings.decisive | {
        "samples": len(rows),
        "data": values_digest(rows.values),
        "labels": None if rows.labels is None else values_digest(rows.labels),
        "precision": precision_on(where, options.precision),
        "from": None if earlier is None else earlier.config.weights_sha256,
    }
    inputs = [Path(data), *([Path(test)] if test else []), *(earlier.files if earlier else [])]
    with folder.claim("train", identity, inputs) as run:
        trainer = Trainer(settings, rows, run, where, command, console.print, held_out, earlier)
        console.print(
            f"{len(rows):,} samples from {data}, {options.steps:,} steps on {where} in"
            f" {trainer.precision}"
        )
        trainer.resume()
        if trainer.step:
            console.print(f"continuing at step {trainer.step:,}")
        elif earlier is not None:
            console.print(f"starting from the weights of {start}, with a new optimizer")
        with _stop_at_signal() as stop:
            finished = trainer.train(
                seconds=math.inf if minutes is None else 60 * minutes,
                report=partial(_print, options.steps),
                should_stop=lambda: bool(stop),
            )
        if not finished:
            error = InterruptedRunError(
                f"stopped at step {trainer.step:,}: add --resume to the same command to continue"
            )
            error.exit_code = 128 + stop[0]
            raise error
    _print_end(trainer.step, options.steps, run.path / "model", settings)


@contextmanager
def _stop_at_signal() -> Iterator[list[int]]:
    """Note Ctrl-C or a termination by its number, so that the current step is finished first."""
    stop: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda n, _: stop.append(n)) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _print_end(
    step: int, steps: int, model: Path, settings: TrainConfig | ClassifierConfig
) -> None:
    """Print how a run ended, and where the model is."""
    from fastdpm.training.config import TrainConfig

    if step < steps:
        console.print(
            f"the time is over after step {step:,} of {steps:,}, before the learning rate fell to"
            " 0: choose --steps for a run that ends with small steps"
        )
    console.print(f"step {step:,}: model written to {model}")
    if isinstance(settings, TrainConfig):
        console.print(f"try it: fastdpm sample {model}")


def _print(steps: int, progress: Progress) -> None:
    """Print the progress of a run of so many steps."""
    left = f", about {progress.left / 60:.0f} min left" if progress.left >= 30 else ""
    console.print(
        f"step {progress.step:,} of {steps:,}  loss {progress.loss:.4f}"
        f"  {progress.seconds / 60:.1f} min spent{left}"
    )
