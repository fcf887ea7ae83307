"""Log-mel spectrograms, on the scales that the published vocoders were trained with.

The filters are triangles over the magnitude spectrum. "slaney" filters have unit area on Slaney's
mel scale, which is linear below 1 kHz and logarithmic above. "htk" filters have unit height on
HTK's scale, 2595 log10(1 + f / 700).
Sources: Slaney 1998, "Auditory Toolbox", Interval Research 1998-010; Young et al. 2002, "The HTK
Book", section 5.4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.spec import MelSpec
from fastdpm.data.stft import magnitudes

_FLOOR = 1e-5
_KNEE_HZ, _HZ_PER_MEL = 1000.0, 200 / 3
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27
_HTK_MELS, _HTK_HZ = 2595.0, 700.0


def mel_filters(spec: MelSpec) -> NDArray[np.float64]:
    """Triangular filters over the magnitude spectrum, shape (bands, n_fft / 2 + 1)."""
    htk = spec.filters == "htk"
    bins = np.linspace(0, spec.sample_rate / 2, spec.n_fft // 2 + 1)
    ends = (_to_htk if htk else _to_mel)(np.array([spec.f_min, spec.f_max]))
    edges = (_from_htk if htk else _to_hz)(np.linspace(ends[0], ends[1], spec.bands + 2))
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    if htk:
        return np.asarray(triangles)
    height = 2 / (edges[2:] - edges[:-2])
    return np.asarray(triangles * height[:, None])


def whole_frames(sound: NDArray[np.float32], spec: MelSpec) -> NDArray[np.float32]:
    """Pad a sound, shape (samples,), with silence to whole mel frames and at least ``n_fft``."""
    length = max(len(sound), spec.n_fft)
    length += -length % spec.hop_length
    return np.pad(sound, (0, length - len(sound)))


def log_mel(sound: Tensor, spec: MelSpec) -> Tensor:
    """The log-mel spectrogram of a sound.

    With m the mel magnitude, but at least 1e-5, the scales are:

    - "log10": (log10 m + 5) / 5; 0 is magnitude 1e-5 and 1 is magnitude 1.
    - "natural": ln m, as in Tacotron 2 and later vocoders.
    - "decibel": (20 log10 m + 80) / 100, clipped to [0, 1], as in LMNT's DiffWave; 0 is -80 dB
      and 1 is +20 dB.

    Sounds are extended by reflection at both ends. The last frame of a usual centered transform,
    around the end of the sound, is left out.

    Args:
        sound: Shape (batch, samples) in [-1, 1]. The number of samples is a multiple of
            ``hop_length`` and at least ``n_fft``.
        spec: Parameters of the spectrogram.

    Returns:
        Shape (batch, bands, samples / hop_length).

    Raises:
        InvalidArgumentError: If the number of samples is too small, or not a multiple of
            ``hop_length``.
    """
    samples = sound.shape[-1]
    if samples < spec.n_fft or samples % spec.hop_length:
        raise InvalidArgumentError(
            f"a mel spectrogram needs at least {spec.n_fft} samples and a multiple of"
            f" {spec.hop_length}, got {samples}: pad the sound"
        )
    overlap = spec.n_fft - spec.hop_length
    before = spec.n_fft // 2 if spec.centred else overlap // 2
    padded = F.pad(sound, (before, max(0, overlap - before)), mode="reflect")
    window = torch.hann_window(spec.n_fft, device=sound.device)
    spectrum = magnitudes(padded[:, : samples + overlap], window, spec.hop_length)
    if spec.normalised:
        spectrum = spectrum / window.square().sum().sqrt()
    filters = torch.from_numpy(mel_filters(spec)).to(sound)
    return _scaled((filters @ spectrum).clamp_min(_FLOOR), spec.scale)


def _scaled(mel: Tensor, scale: str) -> Tensor:
    """Mel magnitudes on a logarithmic scale; see :func:`log_mel`."""
    if scale == "natural":
        return mel.log()
    if scale == "decibel":
        return ((20 * mel.log10() + 80) / 100).clamp(0, 1)
    return (torch.log10(mel) + 5) / 5


def _to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_MEL + np.log(np.maximum(hz, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    return np.where(hz < _KNEE_HZ, hz / _HZ_PER_MEL, above)


def _to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp((np.maximum(mel, _KNEE_MEL) - _KNEE_MEL) * _LOG_STEP)
    return np.where(mel < _KNEE_MEL, mel * _HZ_PER_MEL, above)


def _to_htk(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return _HTK_MELS * np.log10(1 + hz / _HTK_HZ)


def _from_htk(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(_HTK_HZ * (10 ** (mel / _HTK_MELS) - 1))
