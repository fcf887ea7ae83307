"""Small classifiers whose last hidden layer serves as features for measuring samples.

A residual convolutional network (He et al. 2016, arXiv:1512.03385): a stem, then stages that halve
height and width. Sound passes through a log-mel spectrogram first, which is then an image.
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
    """Classifies images, shape (n, in_channels, H, W) in [-1, 1].

    Args:
        in_channels: Channels of an image.
        num_classes: k.
        widths: Channels of each stage; a stage halves height and width. The last one is d.
        stem_channels: Of the convolution before the stages, at full height and width.
    """

    def __init__(
        self, in_channels: int, num_classes: int, widths: Sequence[int], stem_channels: int = 16
    ) -> None:
        super().__init__()
        sizes = [stem_channels, *widths]
        self.num_features = sizes[-1]
        self.stem = _conv_norm(in_channels, stem_channels)
        self.stages = nn.ModuleList(_Stage(size, wider) for size, wider in pairwise(sizes))
        self.head = nn.Linear(self.num_features, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d), the last hidden layer averaged over the image, and logits (n, k)."""
        x = F.gelu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        for stage in self.stages:
            x = stage(x)
        features = x.float().mean((2, 3))
        return features, self.head(features)


class SoundClassifier(nn.Module):
    """Classifies sounds, shape (n, 1, samples) in [-1, 1], by their log-mel spectrograms.

    Args:
        num_classes: k.
        widths: As :class:`ImageClassifier` takes them.
        mel: The fields of :class:`fastdpm.data.spec.MelSpec`.
        stem_channels: As :class:`ImageClassifier` takes them.
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
                "a sound classifier needs a mel scale of values in [0, 1], log10 or decibel"
            )
        self.body = ImageClassifier(1, num_classes, widths, stem_channels)
        self.num_features = self.body.num_features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d), the last hidden layer averaged over the sound, and logits (n, k)."""
        with torch.autocast(x.device.type, enabled=False):
            mel = log_mel(x[:, 0].float(), self.mel)
        features, logits = self.body(2 * mel[:, None] - 1)
        return features, logits


class _Stage(nn.Module):
    """Halve height and width, change the channels, add a residual convolution."""

    def __init__(self, size: int, wider: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(size, wider, 3, padding=1, bias=False)
        self.norm = _BatchNorm(wider)
        self.residual = _conv_norm(wider, wider)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(F.max_pool2d(self.conv(x), 2)))
        return x + F.gelu(self.residual(x))


def _conv_norm(size: int, wider: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(size, wider, 3, padding=1, bias=False), _BatchNorm(wider))


class _BatchNorm(nn.Module):
    """Batch normalisation without PyTorch's integer counter, which fp16 weights cannot hold.

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
