"""Training of diffusion models: predict noise, clean data or velocity from noisy data.

Sources: Ho et al. 2020, arXiv:2006.11239, algorithm 1; Salimans & Ho 2022, arXiv:2202.00512.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import DataError
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.models.config import ModelConfig
from fastdpm.models.folder import write_folder
from fastdpm.models.model import Model
from fastdpm.networks.build import build_network, check_fits
from fastdpm.output.figures import MAX_SOUNDS
from fastdpm.sampling.network import call_network
from fastdpm.training.config import TrainConfig
from fastdpm.training.data import TrainingData, checked_labels
from fastdpm.training.optimizers import Optimizers, adam, muon
from fastdpm.training.precision import autocast_on
from fastdpm.training.steps import TrainingSteps
from fastdpm.training.task import Log, Predict, as_saved, draw

_NUM_EXAMPLES = 6
_TEST_BATCH = 250
_NAMES = {"epsilon": "eps", "sample": "clean data", "v_prediction": "v"}


class Denoising:
    """Train a diffusion model; see :class:`fastdpm.training.task.Task`.

    Args:
        config: The training configuration.
        data: Training data, on the training device.
        held_out: Data to measure the loss of the averaged weights on, or None.

    Raises:
        InvalidArgumentError: If the network does not fit the data, or the recipe does not fit the
            schedule.
        DataError: If the model has classes, and the data has no labels or other ones; or if there
            is only one held-out sample.
    """

    def __init__(
        self, config: TrainConfig, data: TrainingData, held_out: TrainingData | None = None
    ) -> None:
        if config.data.classes is not None:
            for rows in (data,) if held_out is None else (data, held_out):
                checked_labels(rows, config.data.classes)
        if held_out is not None and len(held_out) < 2:
            raise DataError("one held-out sample has no standard error: pass more")
        check_fits(config.network, config.data, learned_variance=False)
        schedule = VarianceSchedule.from_config(config.schedule)
        config.recipe.compile(schedule)  # raises now, not after the training, if it does not fit
        self.config, self.data, self.held_out = config, data, held_out
        self.device = data.values.device
        options = config.training
        self.steps = TrainingSteps(
            schedule,
            self.device,
            real=options.real_steps,
            uniform_share=options.uniform_share,
            log_sigma=(options.log_sigma_mean, options.log_sigma_std),
        )
        weighted = "" if options.loss_weight == "simple" else f" ({options.loss_weight})"
        self.loss_name = f"mean squared error of {_NAMES[config.prediction]}{weighted}"

    def build(self) -> nn.Module:
        """See :class:`fastdpm.training.task.Task`."""
        return build_network(self.config.network)

    def optimizer(self, network: nn.Module) -> Optimizers:
        """Adam, or Muon with Adam."""
        options = self.config.training
        if options.optimizer == "muon":
            return muon(network, options.learning_rate, options.muon_learning_rate)
        return adam(network, options.learning_rate)

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """The weighted mean squared error of the prediction."""
        x0, condition = self.data.batch(self.config.training.batch_size, generator)
        condition = self._dropped(condition, generator)
        return self._losses(predict, x0, condition, generator).mean()

    def _losses(
        self, predict: Predict, x0: Tensor, condition: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """The loss of each sample of a batch, shape (n,)."""
        t, r = self.steps.draw(len(x0), generator)
        noise = torch.randn(x0.shape, generator=generator, device=self.device)
        level = r.reshape(-1, *[1] * (x0.ndim - 1))
        sigma = (1 - level**2).sqrt()
        prediction = self.config.prediction
        target = {"epsilon": noise, "sample": x0}.get(prediction)
        if target is None:
            target = level * noise - sigma * x0
        out = call_network(predict, level * x0 + sigma * noise, t, condition).float()
        losses = (out - target).square().flatten(1).mean(1)
        if self.config.training.loss_weight == "min-snr":
            snr = r**2 / (1 - r**2)
            scale = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
            losses = losses * snr.clamp_max(self.config.training.min_snr) / scale[prediction]
        return losses

    def measure(self, network: nn.Module, held_out: TrainingData) -> tuple[float, float]:
        """The mean loss on held-out data and its standard error, in the precision of the training.

        Noise and levels are the same in every call.
        """
        generator = torch.Generator(self.device).manual_seed(0)
        autocast = autocast_on(self.device, self.config.training.precision)
        losses = []
        for index in torch.split(torch.arange(len(held_out), device=self.device), _TEST_BATCH):
            x0, condition = held_out.conditioned(held_out.middle(index), index)
            with torch.no_grad(), autocast:
                losses.append(self._losses(network, x0, condition, generator))
        found = torch.cat(losses).double()
        return float(found.mean()), float(found.std() / len(found) ** 0.5)

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

    def show(self, network: nn.Module, out: Path) -> None:
        """Write a picture of 16 images or 8 sounds, sampled with the model's recipe."""
        model = Model(ModelConfig.of(self.config), network)
        count = 16 if self.config.data.modality == "image" else MAX_SOUNDS
        samples = model.sample(count, condition=self._examples(count))
        draw(out, samples, self.config.data)

    def report(self, network: nn.Module, log: Log) -> dict[str, Any]:
        """Log the held-out loss."""
        if self.held_out is None:
            return {}
        loss, error = self.measure(as_saved(network, self.build()), self.held_out)
        log(f"held-out loss {loss:.5f} ± {error:.5f} of {len(self.held_out):,} samples")
        return {
            "held_out_loss": round(loss, 6),
            "held_out_loss_error": round(error, 6),
            "held_out_count": len(self.held_out),
        }

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
