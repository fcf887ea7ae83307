"""Compare audio models, for example with two schedules, by mel statistics of their samples.

    python benchmarks/sound_schedule.py MODEL [MODEL ...] --data spoken-digits-test.parquet

Prints the Frechet distance between recordings and samples for each model and kappa. The 80
features are the mean and the standard deviation over time of 40 log-mel bands. The standard error
comes from 200 bootstrap resamples of the samples. Lower is better. This is not a published metric:
with few samples it is biased upward, by the same amount for all models.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm import load_model
from fastdpm.data.mel import log_mel
from fastdpm.data.spec import MelSpec
from fastdpm.evaluation.metrics import Moments, frechet_distance
from fastdpm.training.data import load_training_data

Features = NDArray[np.float64]
REAL, RESAMPLES = 600, 200


def features(sound: Tensor, sample_rate: int) -> Features:
    """Return the mean and standard deviation over time of each mel band, shape (n, 80)."""
    spec = MelSpec(sample_rate, 256, 64, 40, 50.0, sample_rate / 2)
    mel = log_mel(sound, spec)
    return torch.cat([mel.mean(2), mel.std(2)], 1).double().numpy()


def main() -> None:
    """Sample from every model and print its distances."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", required=True, help="held-out recordings")
    parser.add_argument("-n", type=int, default=64, help="samples per model")
    parser.add_argument("-S", "--steps", type=int, default=20)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    for name in arguments.models:
        model = load_model(name)
        data = load_training_data(arguments.data, model.config.data)
        rate = model.config.data.sample_rate or 1
        sound, _ = data.batch(REAL, torch.Generator().manual_seed(0))
        real = Moments.of(features(sound[:, 0], rate))
        for kappa in (0.0, 1.0):
            drawn = features(
                model.sample(arguments.n, num_steps=arguments.steps, kappa=kappa)[:, 0], rate
            )
            again = [
                frechet_distance(
                    real, Moments.of(drawn[generator.integers(0, arguments.n, arguments.n)])
                )
                for _ in range(RESAMPLES)
            ]
            print(
                f"{name}: R(T) = {model.schedule.levels[-1]:.4f}, S = {arguments.steps},"
                f" kappa = {kappa:g}: {frechet_distance(real, Moments.of(drawn)):.3f}"
                f" +- {np.std(again):.3f} (n = {arguments.n})",
                flush=True,
            )


if __name__ == "__main__":
    main()
