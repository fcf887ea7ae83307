"""What a network is trained for: the part of a run that :class:`Trainer` leaves open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fastdpm.data.pixels import to_pixels
from fastdpm.data.spec import DataSpec
from fastdpm.output.figures import write_picture

Predict = Callable[..., Any]
Tell = Callable[[str], None]


class Task(Protocol):
    """A task holds its configuration and its data, and no state that a step changes.

    Attributes:
        loss_name: What the loss is, for the loss curve.
    """

    loss_name: str

    def build(self) -> nn.Module:
        """The network with fresh weights, from PyTorch's global generator, on the CPU."""

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimizer at the configured learning rate, a share of which every step takes."""

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """Loss of the batch that belongs to a step, drawn from the step's own generator."""

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A batch as the network takes it, to try whether it compiles."""

    def show(self, network: nn.Module, out: Path, tell: Tell) -> None:
        """Write ``out/samples.png`` and tell how good the averaged network is."""

    def export(self, network: nn.Module, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the averaged network as a folder."""


def draw(out: Path, samples: Tensor, data: DataSpec) -> None:
    """Write ``out/samples.png`` of samples, shape (n, ...) in [-1, 1]; of sounds, the first."""
    image = data.modality == "image"
    shown = to_pixels(samples) if image else samples[:, 0].cpu().numpy()
    write_picture(out / "samples.png", shown, data.sample_rate)
