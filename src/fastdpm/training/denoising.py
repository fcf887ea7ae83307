"""Training of diffusion models with the simple loss: predict the noise in noisy data.

Source: Ho et al. 2020, arXiv:2006.11239, algorithm 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.schedule import VarianceSchedule
from fastdpm.models.config import ModelConfig
from fastdpm.models.folder import write_folder
from fastdpm.models.model import Model
from fastdpm.networks.build import build_network, check_fits
from fastdpm.output.figures import MAX_SOUNDS
from fastdpm.sampling.network import call_network
from fastdpm.training.config import TrainConfig
from fastdpm.training.data import TrainingData, checked_labels
from fastdpm.training.task import Log, Predict, draw

_NUM_EXAMPLES = 6


class Denoising:
    """Train a diffusion model; see :class:`fastdpm.training.task.Task`.

    Args:
        config: The training configuration.
        data: Training data, on the training device.

    Raises:
        InvalidArgumentError: If the network does not fit the data, or the recipe does not fit the
            schedule.
        DataError: If the model has classes, and the data has no labels or other ones.
    """

    loss_name = "mean squared error of eps"

    def __init__(self, config: TrainConfig, data: TrainingData) -> None:
        if config.data.classes is not None:
            checked_labels(data, config.data.classes)
        check_fits(config.network, config.data, learned_variance=False)
        schedule = VarianceSchedule.from_config(config.schedule)
        config.recipe.compile(schedule)  # raises now, not after the training, if it does not fit
        self.config, self.data = config, data
        self.device = data.values.device
        self.levels = torch.tensor(schedule.levels[1:], dtype=torch.float32, device=self.device)

    def build(self) -> nn.Module:
        """See :class:`fastdpm.training.task.Task`."""
        return build_network(self.config.network)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam, with a decay of squared gradients that suits short runs."""
        rate = self.config.training.learning_rate
        return torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """The mean squared error of eps, at steps uniform over the schedule."""
        x0, condition = self.data.batch(self.config.training.batch_size, generator)
        condition = self._dropped(condition, generator)
        # Stratified steps over the batch: the same expected loss with less variance.
        offset = torch.rand(1, generator=generator, device=self.device)
        spread = torch.arange(len(x0), device=self.device) / len(x0)
        t = ((offset + spread) % 1 * len(self.levels)).long().clamp_max(len(self.levels) - 1)
        noise = torch.randn(x0.shape, generator=generator, device=self.device)
        level = self.levels[t].reshape(-1, *[1] * (x0.ndim - 1))
        x = level * x0 + (1 - level**2).sqrt() * noise
        return F.mse_loss(call_network(predict, x, t.float(), condition).float(), noise)

    def _dropped(self, labels: Tensor | None, generator: torch.Generator) -> Tensor | None:
        """The labels with some of them replaced by the null class."""
        share, null = self.config.training.label_dropout, self.config.data.classes
        if labels is None or null is None or not share:
            return labels
        kept = torch.rand(labels.shape, generator=generator, device=labels.device) >= share
        return labels.where(kept, null)

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """See :class:`fastdpm.training.task.Task`."""
        x, condition = self.data.batch(self.config.training.batch_size, generator)
        t = torch.zeros(len(x), device=self.device)
        return (x, t) if condition is None else (x, t, condition)

    def show(self, network: nn.Module, out: Path, log: Log) -> None:
        """Write a picture of 16 images or 8 sounds, sampled with the model's recipe."""
        model = Model(ModelConfig.of(self.config), network)
        count = 16 if self.config.data.modality == "image" else MAX_SOUNDS
        samples = model.sample(count, condition=self._examples(count))
        draw(out, samples, self.config.data)

    def export(self, network: nn.Module, folder: Path, provenance: dict[str, Any]) -> None:
        """Write a model folder."""
        config = ModelConfig.of(self.config, provenance=provenance)
        examples = self._examples(_NUM_EXAMPLES)
        write_folder(folder, config, network.state_dict(), examples)

    def _examples(self, count: int) -> Tensor | None:
        """Mel spectrograms of ``count`` training windows, always the same; None without mel."""
        if self.config.data.mel is None:
            return None
        generator = torch.Generator(self.device).manual_seed(self.config.training.seed)
        return self.data.batch(count, generator)[1]
