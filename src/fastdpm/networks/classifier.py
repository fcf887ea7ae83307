"""Small classifiers whose last hidden layer provides the features for metrics.

Each is a residual convolutional network: a stem, then stages that halve height and width. Sounds
are first converted to log-mel spectrograms, which are then treated as images.
Source: He et al. 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.structure import build
from fastdpm.data.mel import log_mel
from fastdpm.data.spec import MelSpec


class ImageClassifier(nn.Module):
    """An image classifier for inputs in [-1, 1].

    Args:
        in_channels: Number of image channels.
        num_classes: k, the number of classes.
        widths: Channels of each stage, each of which halves height and width. The last width is
            d, the size of a feature vector.
        stem_channels: Channels of the first convolution, which runs at full resolution.
    """

    def __init__(
        self, in_channels: int, num_classes: int, widths: Sequence[int], stem_channels: int = 16
    ) -> None:
        super().__init__()
        channels = [stem_channels, *widths]
        self.num_features = channels[-1]
        self.stem = _conv_norm(in_channels, stem_channels)
        self.stages = nn.ModuleList(_Stage(*pair) for pair in pairwise(channels))
        self.head = nn.Linear(self.num_features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (n, in_channels, H, W) to features (n, d) and logits (n, k).

        The features are the last hidden layer, averaged over the image.
        """
        x = F.gelu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for stage in self.stages:
            x = stage(x)
        features = x.float().mean((2, 3))
        return features, self.head(features)


class SoundClassifier(nn.Module):
    """A classifier of the log-mel spectrograms of sounds in [-1, 1].

    Args:
        num_classes: k, the number of classes.
        widths: See :class:`ImageClassifier`.
        mel: The fields of :class:`fastdpm.data.spec.MelSpec`.
        stem_channels: See :class:`ImageClassifier`.

    Raises:
        InvalidArgumentError: If ``mel`` is invalid, or its scale is "natural".
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int],
        mel: Mapping[str, Any],
        stem_channels: int = 16,
    ) -> None:
        super().__init__()
        self.mel = build(MelSpec, mel, "mel")
        if self.mel.scale == "natural":
            raise InvalidArgumentError(
                "`scale` of a sound classifier's mel must be log10 or decibel, got natural"
            )
        self.body = ImageClassifier(1, num_classes, widths, stem_channels)
        self.num_features = self.body.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map sounds (n, 1, samples) to features (n, d) and logits (n, k).

        The features are the last hidden layer, averaged over the sound.
        """
        with torch.autocast(x.device.type, enabled=False):
            mel = log_mel(x[:, 0].float(), self.mel)
        features, logits = self.body(2 * mel[:, None] - 1)
        return features, logits


class _Stage(nn.Module):
    """Halve height and width, change the channels and add a residual convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = _BatchNorm(out_channels)
        self.residual = _conv_norm(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(F.max_pool2d(self.conv(x), 2)))
        return x + F.gelu(self.residual(x))


def _conv_norm(in_channels: int, out_channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, _BatchNorm(out_channels))


class _BatchNorm(nn.Module):
    """Batch normalization without PyTorch's integer batch counter, which fp16 files cannot hold.

    Source: Ioffe & Szegedy 2015, arXiv:1502.03167.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.mean, self.variance, self.weight, self.bias, self.training, 0.1, 1e-5
        )
