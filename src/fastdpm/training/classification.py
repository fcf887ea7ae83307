"""Learning to classify, for networks whose features measure samples.

Every epoch passes through the data in an order of its own, drawn from (seed, epoch).
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
from fastdpm.training.data import TrainingData
from fastdpm.training.task import Predict, Tell, draw

_TEST_BATCH = 250


@dataclass(frozen=True)
class Accuracy:
    """Share of held-out samples that were told right, with its standard error and count."""

    value: float
    error: float
    count: int

    def __str__(self) -> str:
        return f"{100 * self.value:.2f} ± {100 * self.error:.2f} % of {self.count:,}"


class Classification:
    """Train a feature network; see :class:`fastdpm.training.task.Task`.

    Args:
        config: What to train, and how.
        data: What on, with labels, on the device of the training.
        held_out: What to measure the accuracy on, or None.

    Raises:
        InvalidArgumentError: If the network does not fit the data or the classes.
        DataError: If data has no labels, or a label that is no class.
    """

    loss_name = "cross-entropy (nats)"

    def __init__(
        self, config: ClassifierConfig, data: TrainingData, held_out: TrainingData | None = None
    ) -> None:
        check_classifies(FeaturesConfig.of(config))
        self.config, self.data, self.held_out = config, data, held_out
        self.labels = _checked_labels(data, len(config.classes))
        if held_out is not None:
            _checked_labels(held_out, len(config.classes))

    def build(self) -> nn.Module:
        """See :class:`fastdpm.training.task.Task`."""
        return build_network(self.config.network, CLASSIFIERS)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum."""
        options = self.config.training
        return torch.optim.SGD(
            network.parameters(),
            lr=options.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=options.weight_decay,
            fused=True,
        )

    def loss(self, predict: Predict, step: int, generator: torch.Generator) -> Tensor:
        """The cross-entropy of a batch, augmented anew."""
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

    def show(self, network: nn.Module, out: Path, tell: Tell) -> None:
        """Draw a few samples as the network sees them, and tell the held-out accuracy."""
        generator = torch.Generator(self.labels.device).manual_seed(self.config.training.seed)
        draw(out, self._augmented(self._rows(0)[:64], generator), self.config.data)
        if self.held_out is not None:
            tell(f"held-out accuracy {self._accuracy(network)}")

    def export(self, network: nn.Module, folder: Path, provenance: dict[str, Any]) -> None:
        """Write the folder of a feature network, its accuracy measured as it is written."""
        weights = network.state_dict()
        if self.held_out is not None:
            rounded = self.build().to(self.labels.device).eval()
            rounded.load_state_dict({n: v.half().float() for n, v in weights.items()})
            found = self._accuracy(rounded)
            provenance = provenance | {
                "held_out_accuracy": round(found.value, 5),
                "held_out_error": round(found.error, 5),
                "held_out_count": found.count,
            }
        config = FeaturesConfig.of(self.config, provenance=provenance)
        write_folder(folder, config, weights)

    def _rows(self, step: int) -> Tensor:
        """The rows of a step's batch: without repetition in an epoch, if the data suffices."""
        count, size = len(self.data), self.config.training.batch_size
        epoch, batch = divmod(step, max(1, count // size))
        seed = (self.config.training.seed * 1_000_003 + epoch) % 2**63
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        return order[torch.arange(batch * size, (batch + 1) * size) % count].to(self.labels.device)

    def _augmented(self, index: Tensor, generator: torch.Generator) -> Tensor:
        options = self.config.training
        samples = self.data.pick(index, generator)
        if options.shift:
            samples = _shifted(samples, options.shift, generator)
        each = (len(samples), 1, 1)
        if options.gain_db:
            softer = torch.rand(each, generator=generator, device=samples.device)
            samples = samples * 10 ** (-options.gain_db / 20 * softer)
        if options.noise:
            scale = torch.rand(each, generator=generator, device=samples.device) * options.noise
            noise = torch.randn(samples.shape, generator=generator, device=samples.device)
            samples = (samples + scale * noise).clamp(-1, 1)
        return samples

    @torch.no_grad()
    def _accuracy(self, network: nn.Module) -> Accuracy:
        if self.held_out is None or self.held_out.labels is None:
            raise DataError("there is no held-out data with labels to measure the accuracy on")
        measure = FeatureNetwork(FeaturesConfig.of(self.config), network)
        labels, right = self.held_out.labels, 0
        for rows in torch.split(torch.arange(len(labels), device=labels.device), _TEST_BATCH):
            guess = measure(self.held_out.middle(rows))[1].argmax(1)
            right += int((guess == labels[rows]).sum())
        share = right / len(labels)
        return Accuracy(share, math.sqrt(share * (1 - share) / len(labels)), len(labels))


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images (n, C, H, W), each moved by up to ``most`` pixels, their edges repeated."""
    count, channels, height, width = images.shape
    device = images.device
    moved = torch.randint(-most, most + 1, (2, count, 1), generator=generator, device=device)
    rows = (torch.arange(height, device=device) + moved[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + moved[1]).clamp(0, width - 1)
    return images[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def _checked_labels(data: TrainingData, num_classes: int) -> Tensor:
    if data.labels is None:
        raise DataError(
            "a classifier learns from labels, and this data has none: give a Parquet file with a"
            " column 'label', or sklearn:digits"
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"labels must lie in 0 ... {num_classes - 1}, one for each of the configuration's"
            f" classes, got {low if low < 0 else high}"
        )
    return data.labels.long()
