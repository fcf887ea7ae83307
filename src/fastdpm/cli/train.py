"""``fastdpm train``."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.training.loop import Progress


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
            help="Parquet file, folder or zip of images or sounds, or sklearn:digits.",
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
    out: Annotated[
        Path, Panel.OUTPUT.option(help="Folder of the run; the model is written to its model/.")
    ],
    resume: Annotated[
        bool, Panel.OUTPUT.option("--resume", help="Continue from the folder's checkpoint.")
    ] = False,
) -> None:
    """Train a model, or a feature network that measures samples, on a CPU or a GPU.

    Writes checkpoint.pt, loss.csv, loss.png and samples.png as it runs, and model/ at the end.
    """
    from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError
    from fastdpm.models.find import find_model
    from fastdpm.models.load import find_device
    from fastdpm.training.config import TrainConfig, read_train_config
    from fastdpm.training.data import load_training_data
    from fastdpm.training.loop import Trainer, check_folder

    settings = read_train_config(config).replace(steps=steps, batch_size=batch_size)
    if start is not None and not isinstance(settings, TrainConfig):
        raise InvalidArgumentError(f"`from` is for models, and {config} is a feature network")
    if start is not None and resume:
        raise InvalidArgumentError("pass `from` to start a run, or `resume` to continue one")
    where = find_device(machine.device)
    options = settings.training
    machine.use_stated_threads()
    check_folder(out, resume=resume)
    rows = load_training_data(data, settings.data, horizontal_flip=options.horizontal_flip)
    held_out = None if test is None else load_training_data(test, settings.data).to(where)
    command = choices.command_line()
    trainer = Trainer(settings, rows.to(where), out, where, command, console.print, held_out)
    console.print(
        f"{len(rows):,} samples from {data}, {options.steps:,} steps on {where} in"
        f" {trainer.precision}"
    )
    if start is not None:
        trainer.start_from(find_model(start))
        console.print(f"starting from the weights of {start}, with a new optimizer")
    if resume:
        trainer.resume()
        console.print(f"continuing at step {trainer.step:,}")
    with _stop_at_signal() as stop:
        finished = trainer.train(
            seconds=math.inf if minutes is None else 60 * minutes,
            report=_Reporter(options.steps),
            should_stop=stop.is_set,
        )
    if finished:
        console.print(f"step {trainer.step:,}: model written to {out / 'model'}")
        if isinstance(settings, TrainConfig):
            console.print(f"try it: fastdpm sample {out / 'model'}")
    else:
        raise InterruptedRunError(f"stopped at step {trainer.step:,}: add --resume to continue")


@contextmanager
def _stop_at_signal() -> Iterator[Event]:
    """Note Ctrl-C or a termination, so that the current step is finished first."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Reporter:
    """Prints the progress of a run, at most every ten seconds."""

    def __init__(self, steps: int) -> None:
        self.steps, self.printed = steps, -math.inf

    def __call__(self, progress: Progress) -> None:
        if progress.seconds - self.printed < 10 and progress.step < self.steps:
            return
        self.printed = progress.seconds
        console.print(
            f"step {progress.step:,} of {self.steps:,}  loss {progress.loss:.4f}"
            f"  {progress.seconds / 60:.1f} min spent, at most {progress.left / 60:.0f} min left"
        )
