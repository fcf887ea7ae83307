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
        typer.Option(help="Parquet file, folder or zip of images or sounds, or sklearn:digits."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run; the model ends up in its model/.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from its checkpoint.")] = False,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.001, help="Stop after this time; the model is written then."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="In place of the configuration's, say for a rehearsal.", min=1),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="In place of the configuration's.", min=1)
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(help="Held-out data, with which a classifier's accuracy is measured."),
    ] = None,
    machine: Machine,
) -> None:
    """Train a model, or a classifier whose features measure samples, on a CPU or a GPU.

    Writes checkpoint.pt, loss.csv, loss.png and samples.png as it goes, and model/ at the end.
    """
    from fastdpm.core.errors import InterruptedRunError
    from fastdpm.models.load import find_device
    from fastdpm.training.config import TrainConfig, read_train_config
    from fastdpm.training.data import load_training_data
    from fastdpm.training.loop import Trainer, check_folder

    settings = read_train_config(config).replace(steps=steps, batch_size=batch_size)
    where = find_device(machine.device)
    options = settings.training
    machine.use_stated_threads()
    check_folder(out, resume=resume)
    rows = load_training_data(data, settings.data, horizontal_flip=options.horizontal_flip)
    held_out = None if test is None else load_training_data(test, settings.data).to(where)
    console.print(f"{len(rows):,} samples from {data}, {options.steps:,} steps on {where}")
    command = choices.told_command()
    trainer = Trainer(settings, rows.to(where), out, where, command, console.print, held_out)
    if resume:
        trainer.resume()
        console.print(f"going on at step {trainer.step:,}")
    with _stop_at_signal() as asked:
        finished = trainer.train(
            seconds=math.inf if minutes is None else 60 * minutes,
            report=_Reporter(options.steps),
            should_stop=asked.is_set,
        )
    if finished:
        console.print(f"step {trainer.step:,}: model written to {out / 'model'}")
        if isinstance(settings, TrainConfig):
            console.print(f"try it: fastdpm sample {out / 'model'}")
    else:
        raise InterruptedRunError(f"stopped at step {trainer.step:,}: go on with --resume")


@contextmanager
def _stop_at_signal() -> Iterator[Event]:
    """Note Ctrl-C or a termination, so that the step in hand is finished first."""
    asked = Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: asked.set()) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class _Reporter:
    """Prints where a run stands, at most every ten seconds."""

    def __init__(self, steps: int) -> None:
        self.steps, self.told = steps, -math.inf

    def __call__(self, progress: Progress) -> None:
        if progress.seconds - self.told < 10 and progress.step < self.steps:
            return
        self.told = progress.seconds
        console.print(
            f"step {progress.step:,} of {self.steps:,}  loss {progress.loss:.4f}"
            f"  {progress.seconds / 60:.1f} min spent, at most {progress.left / 60:.0f} min left"
        )
