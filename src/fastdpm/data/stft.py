"""The short-time Fourier transform behind mel spectrograms, metrics and pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitudes(sound: Tensor, window: Tensor, hop: int, n_fft: int | None = None) -> Tensor:
    """Magnitudes of the short-time Fourier transform, without padding.

    Args:
        sound: Shape (samples,) or (batch, samples).
        window: At most ``n_fft`` values; a shorter window is centered and padded with zeros.
        hop: Samples between frames.
        n_fft: Samples per transform, even; the length of the window if None.

    Returns:
        Shape (..., n_fft / 2 + 1, 1 + (samples - n_fft) // hop).
    """
    n_fft, size = n_fft or len(window), len(window)
    return torch.stft(sound, n_fft, hop, size, window, center=False, return_complex=True).abs()
