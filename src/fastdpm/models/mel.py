"""Log-mel spectrograms as a condition for DiffWave.

The filters are triangles of unit area on Slaney's mel scale, linear below 1 kHz and logarithmic
above. Source: Slaney 1998, "Auditory Toolbox", Interval Research 1998-010.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.models.config import MelSpec

_FLOOR = 1e-5
_KNEE_HZ, _HZ_PER_MEL = 1000.0, 200 / 3
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def mel_filters(spec: MelSpec) -> NDArray[np.float64]:
    """Triangular filters over the magnitude spectrum, shape (bands, n_fft / 2 + 1)."""
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)
    ends = _to_mel(np.array([spec.f_min, spec.f_max]))
    edges = _to_hz(np.linspace(ends[0], ends[1], spec.bands + 2))
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    height = 2 / (edges[2:] - edges[:-2])
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * height[:, None])


def whole_frames(sound: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """A sound, shape (samples,), with silence at its end to whole frames and at least n_fft."""
    length = max(len(sound), spec.n_fft)
    length += -length % spec.hop_length
    return np.pad(sound, (0, length - len(sound)))


def log_mel(sound: Tensor, spec: MelSpec) -> Tensor:
    """Mel spectrogram on a scale where 0 is the floor 1e-5 and 1 is magnitude 1.

    Args:
        sound: Shape (batch, samples) in [-1, 1]; samples a multiple of the hop, at least n_fft.
        spec: How to compute it.

    Returns:
        (log10(max(mel, 1e-5)) + 5) / 5, shape (batch, bands, samples / hop).

    Raises:
        InvalidArgumentError: If the sound is too short or no multiple of the hop.
    """
    samples = sound.shape[-1]
    if samples < spec.n_fft or samples % spec.hop_length:
        raise InvalidArgumentError(
            f"a mel spectrogram needs at least {spec.n_fft} samples, a multiple of"
            f" {spec.hop_length}, got {samples}"
        )
    pad = (spec.n_fft - spec.hop_length) // 2
    window = torch.hann_window(spec.n_fft, device=sound.device)
    padded = F.pad(sound, (pad, spec.n_fft - spec.hop_length - pad), mode="reflect")
    spectrum = torch.stft(
        padded, spec.n_fft, spec.hop_length, window=window, center=False, return_complex=True
    ).abs()
    filters = torch.from_numpy(mel_filters(spec)).to(sound)
    return (torch.log10((filters @ spectrum).clamp_min(_FLOOR)) + 5) / 5


def _to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def _to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp((np.maximum(mel, _KNEE_MEL) - _KNEE_MEL) * _LOG_STEP)
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)
