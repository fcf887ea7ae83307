"""Reading a recording as a model expects it."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError
from fastdpm.models.config import DataSpec


def read_sound(name: str, data: bytes, spec: DataSpec) -> NDArray[np.float32]:
    """A mono sound file at the model's peak, as :func:`read_sound_and_gain` gives it."""
    return read_sound_and_gain(name, data, spec)[0]


def read_sound_and_gain(
    name: str, data: bytes, spec: DataSpec
) -> tuple[NDArray[np.float32], float]:
    """Decode a mono sound file (WAV, FLAC, Ogg) and scale it to the model's peak.

    Returns:
        Shape (samples,), in [-1, 1], and what brings it back to the level of its file; 1 for a
        model without a peak.

    Raises:
        DataError: If it is no sound, not mono, empty, silent, or has another sample rate.
    """
    import soundfile

    try:
        sound, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    except (soundfile.LibsndfileError, TypeError) as error:
        raise DataError(f"{name} is not a whole sound file: {error}") from None
    if sound.ndim != 1 or sound.size == 0:
        raise DataError(f"{name} must be mono and not empty, got shape {sound.shape}")
    if sample_rate != spec.sample_rate:
        raise DataError(
            f"{name} is sampled at {sample_rate} Hz, the model needs {spec.sample_rate} Hz:"
            " resample it first"
        )
    peak = float(np.abs(sound).max())
    if not np.isfinite(peak) or (spec.peak is not None and peak == 0):
        raise DataError(f"{name} is silent or not finite")
    if spec.peak is None and peak > 1:
        raise DataError(f"{name} has values up to {peak:g}, outside [-1, 1]: scale it down")
    if spec.peak is None:
        return np.asarray(sound), 1.0
    return np.asarray(sound * (spec.peak / peak)), peak / spec.peak
