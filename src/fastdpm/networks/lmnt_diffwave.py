"""LMNT's implementation of DiffWave, unconditional or conditioned on a mel spectrogram.

Parameters have LMNT's names. It differs from the authors' network (``networks/diffwave.py``):
convolutions have no weight normalization, gate and filter are in the opposite order, the step
embedding does not enter the residual path, all layers share one upsampler, and the step embedding
is a table for integer steps with linear interpolation in between.
Sources: https://github.com/lmnt-com/diffwave, version 0.1.2 and later; Kong et al. 2021,
arXiv:2009.09761.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.networks.diffwave import WaveNetwork
from fastdpm.networks.embedding import activated

_EMBEDDING, _HIDDEN = 128, 512
_STRIDE = 16
_SLOPE = 0.4


def interpolated_embedding(t: Tensor) -> Tensor:
    """The step embedding of LMNT's DiffWave: a table of integer steps, linearly interpolated.

    Row k of the table holds the sines and then the cosines of k f, for 64 frequencies f from 1 to
    10^4. A fractional step interpolates between two rows; the sine of the fractional step itself
    would give very different values. Steps in (-1, 0), which belong to levels cleaner than that of
    the first training step, use row 0. It predicts best there. A computed row -1 makes the
    predictions useless, and so does the last row, which the published code reads at index -1.

    Args:
        t: Real-valued zero-based steps, shape (batch,), float32 or float64.

    Returns:
        Shape (batch, 128), with the dtype of ``t``.

    Source: https://github.com/lmnt-com/diffwave, src/diffwave/model.py.
    """
    # float32 wherever the published code uses it: at f = 10^4, rounding changes the angles of
    # row 49 by 0.02.
    exponents = np.arange(_EMBEDDING // 2, dtype=np.float32) * np.float32(4) / np.float32(63)
    rounded = (10.0 ** exponents.astype(np.float64)).astype(np.float32)
    frequencies = torch.tensor(rounded, device=t.device)
    t = t.clamp_min(0)
    before, after = (_row(k, frequencies).to(t) for k in (t.floor(), t.ceil()))
    return before + (after - before) * (t - t.floor())[:, None]


def _row(step: Tensor, frequencies: Tensor) -> Tensor:
    angle = step.float()[:, None] * frequencies
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


class ResidualBlock(nn.Module):
    """A gated dilated convolution with a residual and a skip output."""

    def __init__(self, channels: int, dilation: int, mel_bands: int | None) -> None:
        super().__init__()
        self.dilated_conv = _conv(channels, 2 * channels, 3, dilation)
        self.diffusion_projection = nn.Linear(_HIDDEN, channels)
        if mel_bands is not None:
            self.conditioner_projection = _conv(mel_bands, 2 * channels)
        self.output_projection = _conv(channels, 2 * channels)

    def forward(
        self, x: Tensor, embedding: Tensor, condition: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map (batch, channels, L) to the residual and skip outputs, both (batch, channels, L)."""
        h = self.dilated_conv(x + self.diffusion_projection(embedding)[:, :, None])
        if condition is not None:
            h = h + self.conditioner_projection(condition)
        gate, filtered = h.chunk(2, dim=1)
        out = self.output_projection(torch.sigmoid(gate) * torch.tanh(filtered))
        residual, skip = out.chunk(2, dim=1)
        return (x + residual) / math.sqrt(2), skip


class LMNTDiffWave(WaveNetwork):
    """LMNT's DiffWave: predicts eps from a noisy waveform.

    Args:
        residual_channels: Channels of the residual and skip paths.
        residual_layers: Number of residual blocks.
        dilation_cycle_length: Block n has dilation 2^(n mod ``dilation_cycle_length``), n from 0.
        mel_bands: Bands of the mel spectrogram used as the condition, with 256 samples per frame;
            None if unconditional.
        num_train_steps: Rows of the table of the step embedding, which has one row per training
            step.

    Raises:
        InvalidArgumentError: If ``residual_layers`` or ``num_train_steps`` is below 1.
    """

    def __init__(
        self,
        residual_channels: int = 64,
        residual_layers: int = 30,
        dilation_cycle_length: int = 10,
        mel_bands: int | None = None,
        num_train_steps: int = 50,
    ) -> None:
        super().__init__()
        if residual_layers < 1 or num_train_steps < 1:
            raise InvalidArgumentError(
                "`residual_layers` and `num_train_steps` must be at least 1, got"
                f" {residual_layers} and {num_train_steps}"
            )
        self.mel_bands = mel_bands
        self.hop_length = _STRIDE**2
        self.num_train_steps = num_train_steps
        self.input_projection = _conv(1, residual_channels)
        dense = {"projection1": nn.Linear(_EMBEDDING, _HIDDEN)}
        dense["projection2"] = nn.Linear(_HIDDEN, _HIDDEN)
        self.diffusion_embedding = activated(dense, nn.SiLU())
        if mel_bands is not None:
            sizes = ((3, 2 * _STRIDE), (1, _STRIDE), (1, _STRIDE // 2))
            layers = {f"conv{i}": nn.ConvTranspose2d(1, 1, *sizes) for i in (1, 2)}
            self.spectrogram_upsampler = activated(layers, nn.LeakyReLU(_SLOPE))
        self.residual_layers = nn.ModuleList(
            ResidualBlock(residual_channels, 2 ** (n % dilation_cycle_length), mel_bands)
            for n in range(residual_layers)
        )
        self.skip_projection = _conv(residual_channels, residual_channels)
        self.output_projection = _conv(residual_channels, 1)
        nn.init.zeros_(self.output_projection.weight)

    def predict(self, x: Tensor, t: Tensor, mel: Tensor | None = None) -> Tensor:
        """Predict eps; see :meth:`forward`, which checks ``mel`` first.

        Raises:
            InvalidArgumentError: If a step is outside (-1, num_train_steps - 1], the range of the
                table.
        """
        last = self.num_train_steps - 1
        if not t.is_meta and not ((t > -1) & (t <= last)).all():
            raise InvalidArgumentError(
                f"the network's step table ends at {last}, got steps from {float(t.min()):g} to"
                f" {float(t.max()):g}: set its num_train_steps to that of the schedule"
            )
        condition = None
        if mel is not None:
            condition = self.spectrogram_upsampler(mel[:, None])[:, 0, :, : x.shape[-1]]
        steps = interpolated_embedding(t).to(self.input_projection.weight.dtype)
        embedding = self.diffusion_embedding(steps)
        h = F.relu(self.input_projection(x))
        total = torch.zeros_like(h)
        for layer in self.residual_layers:
            h, skip = layer(h, embedding, condition)
            total = total + skip
        total = total / math.sqrt(len(self.residual_layers))
        out: Tensor = self.output_projection(F.relu(self.skip_projection(total)))
        return out


def _conv(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1
) -> nn.Conv1d:
    padding = dilation * (kernel_size - 1) // 2
    conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)
    nn.init.kaiming_normal_(conv.weight)
    return conv
