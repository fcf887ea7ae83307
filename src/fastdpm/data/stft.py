"""The short-time Fourier transform of mel spectrograms, metrics and pictures."""

from __future__ import annotations

import torch
from torch import Tensor


def magnitudes(sound: Tensor, window: Tensor, hop: int, n_fft: int | None = None) -> Tensor:
    """Magnitudes of spectra every ``hop`` samples from the first on; nothing is padded.

    Args:
        sound: Shape (samples,) or (batch, samples).
        window: Shape (at most n_fft,); placed amid zeros where it is shorter.
        hop: In samples.
        n_fft: Samples of each transform, by default those of the window; even.

    Returns:
        Shape (..., n_fft / 2 + 1, 1 + (samples - n_fft) // hop).
    """
    n_fft, size = n_fft or len(window), len(window)
    return torch.stft(sound, n_fft, hop, size, window, center=False, return_complex=True).abs()
