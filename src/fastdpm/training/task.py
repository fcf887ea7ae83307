"""The interface of a training task: the part of a run that depends on what is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastdpm.data.pixels import to_pixels
from fastdpm.data.spec import DataSpec
from fastdpm.output.figures import write_picture
from fastdpm.training.optimizers import Optimizers

Predict = Callable[..., Any]
Log = Callable[[str], None]


class Task(Protocol):
    """A training task: configuration and data, without any state that a step changes.

    Attributes:
        loss_name: Name of the loss, for the axis of the loss curve.
    """

    loss_name: str

    def build(self) -> nn.Module:
        """Build the network on the CPU, initialized from PyTorch's global generator."""

    def optimizer(self, network: nn.Module) -> Optimizers:
        """The optimizers, with the configured learning rates; the trainer schedules them."""

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """The loss of the batch of a step, from 0; all random numbers come from ``generator``."""

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Example inputs of the network, for a trial of torch.compile."""

    def show(self, network: nn.Module, out: Path) -> None:
        """Write ``out/samples.png`` with the averaged network."""

    def report(self, network: nn.Module, log: Log) -> dict[str, Any]:
        """Log the quality of a network on the held-out data, and return it for the model card.

        It is measured with the weights as they are saved.
        """

    def export(self, network: nn.Module, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the folder of the averaged network."""


def as_saved(network: nn.Module, empty: nn.Module) -> nn.Module:
    """A copy of a network in ``empty``, with its weights as a folder holds them, in float16."""
    state = network.state_dict()
    device = next(iter(state.values())).device
    rounded = {n: v.half().float() if v.is_floating_point() else v for n, v in state.items()}
    empty.load_state_dict(rounded)
    return empty.to(device).eval()


def draw(out: Path, samples: Tensor, data: DataSpec) -> None:
    """Write the picture ``out/samples.png`` of samples, shape (n, ...), in [-1, 1]."""
    image = data.modality == "image"
    values = to_pixels(samples) if image else samples[:, 0].cpu().numpy()
    write_picture(out / "samples.png", values, data.sample_rate)
