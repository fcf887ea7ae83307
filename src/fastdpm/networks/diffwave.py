"""DiffWave, unconditional or conditioned on a mel spectrogram, with its authors' parameter names.

Published weights load without renaming: ``init_conv.0.conv``,
``residual_layer.residual_blocks.0.dilated_conv_layer.conv`` and so on, with ``weight_g`` and
``weight_v`` from weight normalization. As in the authors' code, the step embedding also enters
the residual path, because their block adds it in place (``h += part_t``, where h is x). Derived
code adds it out of place (``h = h + part_t``); see ``step_in_residual``.
Source: Kong et al. 2021, arXiv:2009.09761, section 3 and appendix C;
https://github.com/philsyn/DiffWave-unconditional, in place;
https://github.com/albertfgu/diffwave-sashimi, out of place.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.networks.adm_unet import zeroed
from fastdpm.networks.embedding import step_embedding


class WaveNetwork(nn.Module):
    """Base class of networks that predict eps from a noisy waveform.

    Attributes:
        mel_bands: Bands of the mel spectrogram used as the condition; None if unconditional.
        hop_length: Samples per mel frame.
    """

    mel_bands: int | None
    hop_length: int

    def forward(self, x: Tensor, t: Tensor, mel: Tensor | None = None) -> Tensor:
        """Predict eps.

        Args:
            x: Noisy waveforms, shape (batch, 1, L).
            t: Real-valued zero-based steps, shape (batch,), float32 or float64.
            mel: Mel spectrograms, shape (batch, bands, frames) with frames * hop_length >= L.
                Required if and only if the network is conditional.

        Returns:
            Shape (batch, 1, L).

        Raises:
            InvalidArgumentError: If the condition is missing, not expected, or has the wrong
                shape.
        """
        if self.mel_bands is None and mel is not None:
            raise InvalidArgumentError("this network is unconditional: pass no condition")
        if self.mel_bands is not None:
            if mel is None:
                raise InvalidArgumentError(
                    f"this network needs a condition, got none: pass a mel spectrogram of"
                    f" {self.mel_bands} bands"
                )
            frames = math.ceil(x.shape[-1] / self.hop_length)
            if mel.ndim != 3 or mel.shape[1] != self.mel_bands or mel.shape[2] < frames:
                raise InvalidArgumentError(
                    f"{x.shape[-1]} samples need a mel spectrogram of shape (batch,"
                    f" {self.mel_bands}, {frames} or more), got {tuple(mel.shape)}"
                )
        return self.predict(x, t, mel)

    @abstractmethod
    def predict(self, x: Tensor, t: Tensor, mel: Tensor | None = None) -> Tensor:
        """Predict eps; see :meth:`forward`, which checks ``mel`` first."""


class WeightNormed(nn.Module):
    """A layer with weight normalization: weight = g v / |v|, normed over all axes but the first.

    Args:
        weight: Initial weight.
        bias: Initial bias.

    Source: Salimans & Kingma 2016, arXiv:1602.07868.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        dims = tuple(range(1, weight.ndim))
        self.weight_g = nn.Parameter(torch.linalg.vector_norm(weight, dim=dims, keepdim=True))
        self.weight_v = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    @property
    def weight(self) -> Tensor:
        """The normalized weight."""
        dims = tuple(range(1, self.weight_v.ndim))
        norm = torch.linalg.vector_norm(self.weight_v, dim=dims, keepdim=True)
        normed: Tensor = self.weight_v * (self.weight_g / norm)
        return normed


class NormedConv1d(WeightNormed):
    """A weight-normalized convolution that keeps the length."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1
    ) -> None:
        weight = nn.init.kaiming_normal_(torch.empty(out_channels, in_channels, kernel_size))
        super().__init__(weight, torch.zeros(out_channels))
        self.dilation = dilation
        self.padding = dilation * (kernel_size - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in, L) to (batch, out, L)."""
        return F.conv1d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)


class MelUpsample(WeightNormed):
    """A weight-normalized transposed convolution that upsamples frames by ``factor``.

    It is initialized to linear interpolation within each band.
    """

    def __init__(self, factor: int) -> None:
        tap = torch.arange(2 * factor) - (factor - 0.5)
        weight = torch.zeros(1, 1, 3, 2 * factor)
        weight[0, 0, 1] = 1 - tap.abs() / factor
        super().__init__(weight, torch.zeros(1))
        self.factor = factor

    def forward(self, mel: Tensor) -> Tensor:
        """Map (batch, 1, bands, frames) to (batch, 1, bands, frames * factor)."""
        return F.conv_transpose2d(
            mel,
            self.weight,
            self.bias,
            stride=(1, self.factor),
            padding=(1, self.factor // 2),
        )


def _conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1
) -> nn.Module:
    """A weight-normalized convolution under the name "conv", as in the authors' wrapper."""
    conv = NormedConv1d(in_channels, out_channels, kernel_size, dilation)
    return nn.Sequential(OrderedDict(conv=conv))


class ResidualBlock(nn.Module):
    """A gated dilated convolution with a residual and a skip output."""

    def __init__(
        self,
        res_channels: int,
        skip_channels: int,
        dilation: int,
        embed_channels: int,
        mel_bands: int | None,
        mel_upsample: Sequence[int],
        *,
        step_in_residual: bool,
    ) -> None:
        super().__init__()
        self.step_in_residual = step_in_residual
        self.fc_t = nn.Linear(embed_channels, res_channels)
        self.dilated_conv_layer = _conv(res_channels, 2 * res_channels, 3, dilation)
        if mel_bands is not None:
            self.upsample_conv2d = nn.ModuleList(MelUpsample(factor) for factor in mel_upsample)
            self.mel_conv = _conv(mel_bands, 2 * res_channels)
        self.res_conv = NormedConv1d(res_channels, res_channels, 1)
        self.skip_conv = NormedConv1d(res_channels, skip_channels, 1)

    def forward(
        self, x: Tensor, embedding: Tensor, mel: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Map (batch, res, L) to the residual (batch, res, L) and the skip (batch, skip, L)."""
        h = x + self.fc_t(embedding)[:, :, None]
        if self.step_in_residual:
            x = h
        h = self.dilated_conv_layer(h)
        if mel is not None:
            upsampled = mel[:, None]
            for upsample in self.upsample_conv2d:
                upsampled = F.leaky_relu(upsample(upsampled), 0.4)
            h = h + self.mel_conv(upsampled[:, 0, :, : x.shape[-1]])
        filtered, gate = h.chunk(2, dim=1)
        out = torch.tanh(filtered) * torch.sigmoid(gate)
        skip: Tensor = self.skip_conv(out)
        return (x + self.res_conv(out)) * math.sqrt(0.5), skip


class ResidualLayer(nn.Module):
    """The shared step embedding and the stack of residual blocks."""

    def __init__(self, blocks: Sequence[ResidualBlock], embed_channels: Sequence[int]) -> None:
        super().__init__()
        self.embed_dim = embed_channels[0]
        self.fc_t1 = nn.Linear(embed_channels[0], embed_channels[1])
        self.fc_t2 = nn.Linear(embed_channels[1], embed_channels[2])
        self.residual_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, t: Tensor, mel: Tensor | None) -> Tensor:
        """Map (batch, res, L) to the scaled sum of the skip outputs (batch, skip, L)."""
        embedding = step_embedding(t, self.embed_dim).to(self.fc_t1.weight.dtype)
        embedding = F.silu(self.fc_t2(F.silu(self.fc_t1(embedding))))
        total: Tensor | None = None
        for block in self.residual_blocks:
            x, skip = block(x, embedding, mel)
            total = skip if total is None else total + skip
        if total is None:
            raise InvalidArgumentError("`num_res_layers` must be at least 1, got 0")
        return total * math.sqrt(1 / len(self.residual_blocks))


class DiffWave(WaveNetwork):
    """DiffWave: predicts eps from a noisy waveform.

    Args:
        res_channels: Channels of the residual path.
        skip_channels: Channels of the skip outputs.
        num_res_layers: Number of residual blocks.
        dilation_cycle: Block n has dilation 2^(n mod ``dilation_cycle``), n from 0.
        embed_channels: Sizes of the sinusoidal step embedding and of the two layers after it.
        mel_bands: Bands of the mel spectrogram used as the condition; None if unconditional.
        mel_upsample: Upsampling factors. Their product is the number of samples per mel frame.
        step_in_residual: Add the step embedding to the residual path too, as the authors' code
            does. The weights do not show which of the two a network was trained with.
    """

    def __init__(
        self,
        res_channels: int = 64,
        skip_channels: int = 64,
        num_res_layers: int = 30,
        dilation_cycle: int = 10,
        embed_channels: Sequence[int] = (128, 512, 512),
        mel_bands: int | None = None,
        mel_upsample: Sequence[int] = (16, 16),
        step_in_residual: bool = True,
    ) -> None:
        super().__init__()
        self.mel_bands = mel_bands
        self.hop_length = math.prod(mel_upsample)
        self.init_conv = nn.Sequential(_conv(1, res_channels), nn.ReLU())
        blocks = [
            ResidualBlock(
                res_channels,
                skip_channels,
                2 ** (n % dilation_cycle),
                embed_channels[-1],
                mel_bands,
                mel_upsample,
                step_in_residual=step_in_residual,
            )
            for n in range(num_res_layers)
        ]
        self.residual_layer = ResidualLayer(blocks, embed_channels)
        self.final_conv = nn.Sequential(
            _conv(skip_channels, skip_channels),
            nn.ReLU(),
            nn.Sequential(OrderedDict(conv=zeroed(nn.Conv1d(skip_channels, 1, 1)))),
        )

    def predict(self, x: Tensor, t: Tensor, mel: Tensor | None = None) -> Tensor:
        """Predict eps; see :meth:`forward`, which checks ``mel`` first."""
        out: Tensor = self.final_conv(self.residual_layer(self.init_conv(x), t, mel))
        return out
