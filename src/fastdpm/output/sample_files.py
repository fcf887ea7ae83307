"""Samples as files: one file for each, or one NumPy archive of all.

A sample is uint8 (H, W, C) for images, float32 (samples,) for sounds and float32 (C, L) for
series. Files hold 8-bit images and 16-bit sounds without further loss; arrays hold uint8 images,
and sounds and series as float32.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastdpm.core.errors import DataError
from fastdpm.data.arrays import read_array, read_arrays
from fastdpm.data.files import write_bytes
from fastdpm.data.images import read_pixels
from fastdpm.data.pixels import from_pixels, to_pixels, write_png
from fastdpm.data.sound import decode_sound, to_pcm, write_wav
from fastdpm.data.spec import DataSpec

Values = NDArray[Any]


def to_values(samples: Tensor, data: DataSpec) -> Values:
    """Samples in [-1, 1], shape (n, *data shape), as the values of their files."""
    if data.modality == "image":
        return to_pixels(samples)
    values = samples.float().cpu().numpy()
    return values[:, 0] if data.modality == "audio" else values


def from_values(values: Values, data: DataSpec) -> Tensor:
    """The values of files as samples in [-1, 1], shape (n, *data shape)."""
    if data.modality == "image":
        return from_pixels(values).movedim(-1, 1)
    samples = torch.from_numpy(values)
    return samples[:, None] if data.modality == "audio" else samples


def write_sample(path: Path, values: Values, data: DataSpec) -> None:
    """Write one sample, in the format of the file's suffix."""
    match path.suffix:
        case ".png":
            write_png(path, values)
        case ".webp":
            write_webp(path, values)
        case ".wav":
            write_wav(path, values, data.sample_rate or 0)
        case ".flac":
            write_flac(path, values, data.sample_rate or 0)
        case _:
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            write_bytes(path, buffer.getbuffer())


def read_sample(path: Path, data: DataSpec) -> Values:
    """Read one sample as it was written.

    Raises:
        DataError: If the file is damaged or missing.
    """
    try:
        if path.suffix == ".npy":
            return read_array(path)
        if data.modality == "image":
            pixels = read_pixels(str(path), path.read_bytes())
            every = pixels.repeat(data.shape[0] // len(pixels), axis=0)  # of an RGB image in grays
            return every.transpose(1, 2, 0)
        return decode_sound(str(path), path.read_bytes())[0]
    except (DataError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is damaged: delete it and add `resume` ({error})") from None


def write_webp(path: Path, pixels: Values) -> None:
    """Write one image, shape (H, W, C), as lossless WebP, which stores gray as RGB."""
    buffer = io.BytesIO()
    color = pixels.repeat(3, axis=-1) if pixels.shape[-1] == 1 else pixels
    Image.fromarray(color).save(buffer, "WEBP", lossless=True)
    write_bytes(path, buffer.getbuffer())


def write_flac(path: Path, sound: Values, sample_rate: int) -> None:
    """Write a mono sound in [-1, 1], shape (samples,), as FLAC with 16 bits like WAV files."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, to_pcm(sound), sample_rate, subtype="PCM_16", format="FLAC")
    write_bytes(path, buffer.getbuffer())


def write_archive(path: Path, values: Values) -> None:
    """Write all samples, shape (n, ...), as the array "samples" of a .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, samples=values)
    write_bytes(path, buffer.getbuffer())


def read_archive(path: Path) -> Values:
    """Read the samples of a .npz file.

    Raises:
        DataError: If it is damaged.
    """
    try:
        return read_arrays(path, ["samples"])["samples"]
    except (OSError, DataError) as error:
        raise DataError(
            f"{path} is damaged: delete the folder and sample again ({error})"
        ) from None
