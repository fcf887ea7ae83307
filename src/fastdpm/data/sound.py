"""Sound files, 16-bit values, and recordings as a model expects them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError
from fastdpm.data.files import write_bytes
from fastdpm.data.spec import DataSpec

_ORDERS = {b"RIFF": "<u4", b"RIFX": ">u4", b"FORM": ">u4"}
_LENGTH_UNKNOWN = 0x7FFFF000  # from here on, what programs write that cannot go back to the header


def read_sound(name: str, data: bytes, spec: DataSpec) -> NDArray[np.float32]:
    """Decode a mono sound file (WAV, FLAC, Ogg) and scale it to the model's peak.

    Returns:
        Shape (samples,), in [-1, 1].

    Raises:
        DataError: See :func:`decode_sound` and :func:`at_peak`, or if it has another sample rate.
    """
    sound, sample_rate = decode_sound(name, data)
    if sample_rate != spec.sample_rate:
        raise DataError(
            f"{name} is sampled at {sample_rate} Hz, the model needs {spec.sample_rate} Hz:"
            " resample it first"
        )
    return at_peak(name, sound, spec.peak)[0]


def decode_sound(name: str, data: bytes) -> tuple[NDArray[np.float32], int]:
    """Decode a mono sound file (WAV, FLAC, Ogg).

    Returns:
        Shape (samples,), as it is in the file, and its sample rate in Hz.

    Raises:
        DataError: If it is no sound, cut off, not mono, empty, or not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            promised, channels, sample_rate = file.frames, file.channels, int(file.samplerate)
            sound = np.asarray(file.read(dtype="float32"))
    except soundfile.LibsndfileError as error:
        # Its full text tells the address of the buffer in memory.
        raise DataError(f"{name} is not a whole sound file: {error.error_string}") from None
    missing = _missing_bytes(data)
    if missing or len(sound) < promised:
        raise DataError(
            f"{name} is cut off after {len(sound)} samples, its header promises more: copy it anew"
        )
    if channels != 1:
        raise DataError(f"{name} has {channels} channels: mix it to mono")
    if not len(sound):
        raise DataError(f"{name} has no samples: leave it out")
    broken = int((~np.isfinite(sound)).sum())
    if broken:
        raise DataError(
            f"{name} has {broken} of {len(sound)} values that are not finite (NaN or infinity):"
            " repair it or leave it out"
        )
    return sound, sample_rate


def resampled(sound: NDArray[np.float32], found: int, wanted: int) -> NDArray[np.float32]:
    """A sound at another sample rate, in Hz; it stays within [-1, 1] if it was."""
    from scipy.signal import resample_poly

    limit = max(1.0, float(np.abs(sound).max()))
    changed = resample_poly(sound.astype(np.float64), wanted, found)
    # Between the samples of a loud sound the wave rises above all of them, and the new samples may
    # lie there: that is no fault of the file, and its shape is kept where cutting would not.
    over = max(1.0, float(np.abs(changed).max()) / limit)
    return np.asarray(changed / over, dtype=np.float32)


def at_peak(
    name: str, sound: NDArray[np.float32], peak: float | None
) -> tuple[NDArray[np.float32], float]:
    """Scale a sound to a model's peak; without one it is taken as it is.

    Returns:
        The sound in [-1, 1], and what brings it back to its own level.

    Raises:
        DataError: If it is silent, or has no peak to go to and leaves [-1, 1].
    """
    found = float(np.abs(sound).max())
    if peak is None and found > 1:
        raise DataError(f"{name} has values up to {found:g}, outside [-1, 1]: scale it down")
    if peak is None:
        return sound, 1.0
    if found == 0:
        raise DataError(f"{name} is silent, so it has no peak to scale to {peak:g}: leave it out")
    return np.asarray(sound * (peak / found)), found / peak


def _missing_bytes(data: bytes) -> int:
    """Of the sound that the header of a WAV or AIFF file promises; libsndfile reads on without."""
    order = _ORDERS.get(data[:4])
    place = 12
    while order is not None and place + 8 <= len(data):
        name, size = data[place : place + 4], int(np.frombuffer(data, order, 1, place + 4)[0])
        place += 8
        if name in (b"data", b"SSND"):
            return 0 if size >= _LENGTH_UNKNOWN else max(0, place + size - len(data))
        place += size + size % 2
    return 0


def at_level(samples: Tensor, gain: Tensor) -> Tensor:
    """Samples, shape (n, ...), each times its gain, shape (n,), and as exact as float32 is."""
    each = gain.to(samples.device).reshape(-1, *[1] * (samples.ndim - 1))
    return (samples.double() * each).float()


def to_pcm(sound: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Map [-1, 1] to 16-bit values, any shape: rounded where libsndfile would cut."""
    return np.asarray(np.rint(sound * 2**15).clip(-(2**15), 2**15 - 1), dtype=np.int16)


def from_pcm(values: NDArray[np.int16] | Tensor) -> Tensor:
    """Map 16-bit values to [-1, 1), float32, any shape."""
    return torch.as_tensor(values).float() / 2**15


def wav_bytes(sound: NDArray[np.floating[Any]], sample_rate: int) -> bytes:
    """A mono sound in [-1, 1], shape (samples,), as a WAV file of 16-bit PCM."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm(sound), sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def write_wav(path: Path, sound: NDArray[np.floating[Any]], sample_rate: int) -> None:
    """Write a mono sound; see :func:`wav_bytes`."""
    write_bytes(path, wav_bytes(sound, sample_rate))
