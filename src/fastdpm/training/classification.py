"""Training of the classifiers whose features are used in metrics.

Every epoch goes through the data in a random order drawn from (seed, epoch).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.errors import DataError
from fastdpm.models.config import FeaturesConfig
from fastdpm.models.features import FeatureNetwork, check_classifies
from fastdpm.models.folder import write_folder
from fastdpm.networks.build import CLASSIFIERS, build_network
from fastdpm.training.config import ClassifierConfig
from fastdpm.training.data import TrainingData, checked_labels
from fastdpm.training.optimizers import Optimizers
from fastdpm.training.task import Log, Predict, as_saved, draw

_TEST_BATCH = 250


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on held-out samples.

    Attributes:
        value: Fraction of correct predictions, in [0, 1].
        error: Its standard error.
        count: Number of samples.
    """

    value: float
    error: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} ± {100 * self.error:.2f} % of {self.count:,}"


class Classification:
    """Train a feature network; see :class:`fastdpm.training.task.Task`.

    Args:
        config: The training configuration.
        data: Labeled training data, on the training device.
        held_out: Labeled data to measure the accuracy on, or None.

    Raises:
        InvalidArgumentError: If the network does not fit the data or the classes.
        DataError: If the data has no labels, or a label is not a class.
    """

    loss_name = "cross-entropy (nats)"

    def __init__(
        self, config: ClassifierConfig, data: TrainingData, held_out: TrainingData | None = None
    ) -> None:
        check_classifies(FeaturesConfig.of(config))
        self.config, self.data, self.held_out = config, data, held_out
        self.labels = checked_labels(data, len(config.classes))
        if held_out is not None:
            checked_labels(held_out, len(config.classes))

    def build(self) -> nn.Module:
        """See :class:`fastdpm.training.task.Task`."""
        return build_network(self.config.network, CLASSIFIERS)

    def optimizer(self, network: nn.Module) -> Optimizers:
        """SGD with Nesterov momentum."""
        options = self.config.training
        sgd = torch.optim.SGD(
            network.parameters(),
            lr=options.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=options.weight_decay,
            fused=True,
        )
        return Optimizers([sgd], network.parameters())

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """The cross-entropy of a batch, with random augmentations."""
        index = self._rows(step)
        _, logits = predict(self._augmented(index, generator))
        return F.cross_entropy(
            logits.float(),
            self.labels[index],
            label_smoothing=self.config.training.label_smoothing,
        )

    def inputs(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """See :class:`fastdpm.training.task.Task`."""
        return (self._augmented(self._rows(0), generator),)

    def show(self, network: nn.Module, out: Path) -> None:
        """Write a picture of augmented samples."""
        generator = torch.Generator(self.labels.device).manual_seed(self.config.training.seed)
        draw(out, self._augmented(self._rows(0)[:64], generator), self.config.data)

    def report(self, network: nn.Module, log: Log) -> dict[str, Any]:
        """Log the held-out accuracy."""
        if self.held_out is None:
            return {}
        accuracy = self._accuracy(as_saved(network, self.build()))
        log(f"held-out accuracy {accuracy}")
        return {
            "held_out_accuracy": round(accuracy.value, 5),
            "held_out_error": round(accuracy.error, 5),
            "held_out_count": accuracy.count,
        }

    def export(self, network: nn.Module, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the folder of the feature network."""
        config = FeaturesConfig.of(self.config, provenance=provenance)
        write_folder(folder, config, network.state_dict())

    def _rows(self, step: int) -> Tensor:
        """Indices of a step's batch; no sample repeats in an epoch if the data fills a batch."""
        count, size = len(self.data), self.config.training.batch_size
        epoch, batch = divmod(step, max(1, count // size))
        seed = (self.config.training.seed * 1_000_003 + epoch) % 2**63
        order = torch.randperm(
            count, generator=torch.Generator("cpu").manual_seed(seed), device="cpu"
        )
        return order[torch.arange(batch * size, (batch + 1) * size, device="cpu") % count].to(
            self.labels.device
        )

    def _augmented(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Samples with the random augmentations of the configuration."""
        options = self.config.training
        samples = self.data.pick(index, generator)
        if options.shift:
            samples = _shifted(samples, options.shift, generator)
        shape = (len(samples), 1, 1)
        if options.gain_db:
            share = torch.rand(shape, generator=generator, device=samples.device)
            samples = samples * 10 ** (-options.gain_db / 20 * share)
        if options.noise:
            scale = torch.rand(shape, generator=generator, device=samples.device) * options.noise
            noise = torch.randn(samples.shape, generator=generator, device=samples.device)
            samples = (samples + scale * noise).clamp(-1, 1)
        return samples

    @torch.no_grad()
    def _accuracy(self, network: nn.Module) -> Accuracy:
        """The accuracy of a network on the held-out data."""
        if self.held_out is None or self.held_out.labels is None:
            raise DataError("the accuracy needs held-out data with labels: pass `held_out`")
        classifier = FeatureNetwork(FeaturesConfig.of(self.config), network)
        labels, correct = self.held_out.labels, 0
        for rows in torch.split(torch.arange(len(labels), device=labels.device), _TEST_BATCH):
            predicted = classifier(self.held_out.middle(rows))[1].argmax(1)
            correct += int((predicted == labels[rows]).sum())
        value = correct / len(labels)
        return Accuracy(value, math.sqrt(value * (1 - value) / len(labels)), len(labels))


def _shifted(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Images (n, C, H, W), each shifted by up to ``max_shift`` pixels, with repeated edges."""
    count, channels, height, width = images.shape
    device, bound = images.device, max_shift + 1
    shift = torch.randint(-max_shift, bound, (2, count, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + shift[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + shift[1]).clamp(0, width - 1)
    return images[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]
