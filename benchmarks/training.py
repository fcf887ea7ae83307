"""Measure how many samples `fastdpm train` takes per second.

    python benchmarks/training.py [CONFIG] [--steps 20] [--repeats 5]

Trains on random values, in the precision that training chooses on this machine, and compiled where
training compiles. Prints the median and the range over the repeats; the time to compile is not
included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from fastdpm.data.run_folder import RunFolder
from fastdpm.training.config import TrainConfig, read_train_config
from fastdpm.training.data import TrainingData
from fastdpm.training.loop import Trainer


def main() -> None:
    """Train, and time every few steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", nargs="?", default="cifar10", help="of a network for images")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = read_train_config(arguments.config)
    if not isinstance(config, TrainConfig) or config.data.modality != "image":
        parser.error(f"{arguments.config} is not the configuration of a model of images")
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder.open(Path(folder) / "run", "train", {})
        with run:
            trainer = Trainer(config, _data(config), run, torch.device("cpu"), "", print)
            trainer.prepare()
            rates = [_rate(trainer, arguments.steps) for _ in range(arguments.repeats + 1)][1:]
    print(
        f"{config.name} in {trainer.precision} on {torch.get_num_threads()} threads:"
        f" {statistics.median(rates):.1f} samples/s ({min(rates):.1f} to {max(rates):.1f})"
    )


def _data(config: TrainConfig) -> TrainingData:
    """Random images, and random labels for a model with classes."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(
        0, 256, (1024, *config.data.shape), dtype=torch.uint8, generator=generator
    )
    classes = config.data.classes
    labels = None if classes is None else torch.arange(len(values)) % classes
    return TrainingData(config.data, values, labels=labels, horizontal_flip=True)


def _rate(trainer: Trainer, steps: int) -> float:
    """Samples per second over some steps."""
    began = time.perf_counter()
    for _ in range(steps):
        trainer.take_step()
    seconds = time.perf_counter() - began
    return steps * trainer.config.training.batch_size / seconds


if __name__ == "__main__":
    main()
