"""Reading and writing sound files, and scaling recordings for a model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError, first_line
from fastdpm.core.limits import MAX_SAMPLE_RATE, MAX_SOUND_VALUES
from fastdpm.data.files import write_bytes
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import float64_device

_BYTE_ORDERS = {b"RIFF": "<u4", b"RIFX": ">u4", b"FORM": ">u4"}
# Programs that stream their output write a size of at least this, meaning "unknown".
_LENGTH_UNKNOWN = 0x7FFFF000


class _Bytes(io.BytesIO):
    """Bytes in which a damaged file can seek to before the start, which libsndfile then reports.

    An exception in the callback would print a traceback.
    """

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)


def read_sound(name: str, data: bytes, spec: DataSpec) -> NDArray[np.float32]:
    """Decode a mono sound file (WAV, FLAC, Ogg, MP3, AIFF) and scale it to the model's peak.

    Args:
        name: The file's name in error messages.
        data: The encoded sound.
        spec: The data of the model, with its sample rate and peak.

    Returns:
        Shape (samples,), in [-1, 1].

    Raises:
        DataError: See :func:`decode_sound` and :func:`at_peak`; or if the sample rate differs.
    """
    sound, sample_rate = decode_sound(name, data)
    if sample_rate != spec.sample_rate:
        raise DataError(
            f"{name} has a sample rate of {sample_rate} Hz, but the model's is"
            f" {spec.sample_rate} Hz: resample it first"
        )
    return at_peak(name, sound, spec.peak)[0]


def decode_sound(name: str, data: bytes) -> tuple[NDArray[np.float32], int]:
    """Decode a mono sound file (WAV, FLAC, Ogg, MP3, AIFF).

    Args:
        name: The file's name in error messages.
        data: The encoded sound.

    Returns:
        The sound, shape (samples,), unscaled, and its sample rate in Hz.

    Raises:
        DataError: If it is not a sound file, is truncated, not mono or empty, or holds values
            that are not finite.
    """
    import soundfile

    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            frames, channels, sample_rate = file.frames, file.channels, int(file.samplerate)
            if frames * channels > MAX_SOUND_VALUES:
                raise DataError(
                    f"{name} states {frames:,} samples in {channels} channels: at most"
                    f" {MAX_SOUND_VALUES:,} values are read"
                )
            sound = np.asarray(file.read(dtype="float32"))
    except soundfile.LibsndfileError as error:
        # str(error) would show the memory address of the buffer.
        raise DataError(f"{name} is not a complete sound file: {error.error_string}") from None
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{name} is not a complete sound file: {first_line(error)}") from None
    missing = _missing_bytes(data)
    if missing or len(sound) < frames:
        raise DataError(
            f"{name} is truncated after {len(sound)} samples, fewer than its header states: copy"
            " it again"
        )
    if channels != 1:
        raise DataError(f"{name} has {channels} channels: mix it to mono")
    if not len(sound):
        raise DataError(f"{name} has no samples: remove it")
    not_finite = int((~np.isfinite(sound)).sum())
    if not_finite:
        raise DataError(
            f"{name} has {not_finite} of {len(sound)} values that are not finite (NaN or"
            " infinity): repair or remove it"
        )
    return sound, sample_rate


def resampled(sound: NDArray[np.float32], old_rate: int, new_rate: int) -> NDArray[np.float32]:
    """Resample a sound, shape (samples,), from one sample rate in Hz to another.

    A sound in [-1, 1] stays in [-1, 1].

    Raises:
        DataError: If a rate is above ``MAX_SAMPLE_RATE``, or the result would be too long.
    """
    from scipy.signal import resample_poly

    length = len(sound) * new_rate // max(old_rate, 1)
    if not 0 < old_rate <= MAX_SAMPLE_RATE >= new_rate or length > MAX_SOUND_VALUES:
        raise DataError(
            f"{len(sound):,} samples at {old_rate} Hz cannot be resampled to {new_rate} Hz: at"
            f" most {MAX_SAMPLE_RATE:,} Hz and {MAX_SOUND_VALUES:,} samples are supported"
        )
    limit = max(1.0, float(np.abs(sound).max()))
    changed = resample_poly(sound.astype(np.float64), new_rate, old_rate)
    # The wave of a loud sound can exceed 1 between its samples, where new samples may lie. Scaling
    # keeps its shape; clipping would not.
    excess = max(1.0, float(np.abs(changed).max()) / limit)
    return np.asarray(changed / excess, dtype=np.float32)


def at_peak(
    name: str, sound: NDArray[np.float32], peak: float | None
) -> tuple[NDArray[np.float32], float]:
    """Scale a sound to a peak.

    Args:
        name: The sound's name in error messages.
        sound: Shape (samples,).
        peak: Largest absolute value of the result, in (0, 1]; None leaves the sound unscaled.

    Returns:
        The sound in [-1, 1], and the factor that restores its original level.

    Raises:
        DataError: If the sound is silent and ``peak`` is set, or exceeds [-1, 1] and ``peak`` is
            None.
    """
    largest = float(np.abs(sound).max())
    if peak is None and largest > 1:
        raise DataError(f"{name} has values up to {largest:g}, outside [-1, 1]: scale it down")
    if peak is None:
        return sound, 1.0
    if largest == 0:
        raise DataError(f"{name} is silent and cannot be scaled to a peak of {peak:g}: remove it")
    return np.asarray(sound * (peak / largest)), largest / peak


def _missing_bytes(data: bytes) -> int:
    """Bytes that a truncated WAV or AIFF file lacks; libsndfile does not report them."""
    order = _BYTE_ORDERS.get(data[:4])
    offset = 12
    while order is not None and offset + 8 <= len(data):
        name, size = data[offset : offset + 4], int(np.frombuffer(data, order, 1, offset + 4)[0])
        offset += 8
        if name in (b"data", b"SSND"):
            return 0 if size >= _LENGTH_UNKNOWN else max(0, offset + size - len(data))
        offset += size + size % 2
    return 0


def at_level(samples: Tensor, gain: Tensor) -> Tensor:
    """Multiply samples (n, ...) by gains (n,), in float64; the result is float32."""
    exact = samples.to(float64_device(samples.device), torch.float64)
    factors = gain.to(exact.device).reshape(-1, *[1] * (samples.ndim - 1))
    return (exact * factors).float().to(samples.device)


def to_pcm(sound: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Map [-1, 1] to 16-bit values, any shape. Rounds to nearest; libsndfile would truncate."""
    return np.asarray(np.rint(sound * 2**15).clip(-(2**15), 2**15 - 1), dtype=np.int16)


def from_pcm(values: NDArray[np.int16] | Tensor) -> Tensor:
    """Map 16-bit values to [-1, 1), float32, any shape."""
    return (values if isinstance(values, Tensor) else torch.from_numpy(values)).float() / 2**15


def wav_bytes(sound: NDArray[np.floating[Any]], sample_rate: int) -> bytes:
    """A mono sound in [-1, 1], shape (samples,), encoded as a 16-bit PCM WAV file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm(sound), sample_rate, subtype="PCM_16", format="WAV")
    return buffer.getvalue()


def write_wav(path: Path, sound: NDArray[np.floating[Any]], sample_rate: int) -> None:
    """Write a mono sound in [-1, 1], shape (samples,), as a 16-bit PCM WAV file."""
    write_bytes(path, wav_bytes(sound, sample_rate))
