"""Networks that know their data exactly, for the tests of this folder."""

import math

import torch
from torch import Tensor, nn

from fastdpm import Model, VarianceSchedule
from fastdpm.core.guidance import NO_GUIDANCE
from fastdpm.tuning.predictor import DataPredictor

SCHEDULE = VarianceSchedule.linear()
SHAPE = (1, 2, 3)
DEVIATIONS = torch.tensor([0.3, 0.3, 0.6, 0.6, 1.0, 1.0])


class Gaussian(nn.Module):
    """The exact eps of data N(0, deviations^2)."""

    def __init__(self, deviations: Tensor = DEVIATIONS) -> None:
        super().__init__()
        self.deviations = nn.Parameter(deviations.reshape(SHAPE))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = float(SCHEDULE.R(float(t[0]) + 1))
        variance = (1 - level**2) + (level * self.deviations) ** 2
        return math.sqrt(1 - level**2) * x / variance


class Mixture(nn.Module):
    """The exact eps of data in which each value is -1 or 1, as likely, give or take 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += len(x)
        level = float(SCHEDULE.R(float(t[0]) + 1))
        variance = 1 - level**2 + (0.2 * level) ** 2
        mean = level * torch.tanh(level * x / variance)
        return math.sqrt(1 - level**2) * (x - mean) / variance


def model(network: nn.Module) -> Model:
    return Model.wrap(network.eval(), SCHEDULE, SHAPE)


def predictor(network: nn.Module, n: int = 64) -> DataPredictor:
    return DataPredictor(
        model(network),
        0,
        range(n),
        condition=None,
        guidance=NO_GUIDANCE,
        clip="none",
        precision="float32",
        batch_size=None,
    )
