"""Reading a user's images or sounds as the input of a model.

Inputs are never converted silently. An input that differs from the model's data in size, length or
sample rate raises an error, which names the option that converts it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, count, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import DataError, InvalidArgumentError, positive_or_none
from fastdpm.core.limits import MAX_SAMPLES, check_limit, read_bytes
from fastdpm.data.arrays import LabeledArray, fit_array, open_array
from fastdpm.data.condition import stored_labels
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, digits_part, open_dataset
from fastdpm.data.images import read_pixels, to_channels
from fastdpm.data.listing import EncodedFile
from fastdpm.data.mel import whole_frames
from fastdpm.data.pixels import from_pixels
from fastdpm.data.record import read_record
from fastdpm.data.sound import at_peak, decode_sound, resampled
from fastdpm.data.spec import DataSpec

_ARCHIVES = (".zip", ".parquet")


class Samples(NamedTuple):
    """Inputs of a model.

    Attributes:
        names: Names of the files, or of places in an archive.
        x: Data in [-1, 1], shape (n, *data shape), float32.
        gain: Factor that restores the loudness of each file, shape (n,), float64; 1 for images
            and for sounds that were not scaled.
        labels: Labels that are stored with the samples, such as in a column ``label``, shape (n,),
            int64; None unless each has one, an integer.
    """

    names: list[str]
    x: Tensor
    gain: Tensor
    labels: Tensor | None = None


class _Sample(NamedTuple):
    """One row of :class:`Samples`, with its label as it is stored."""

    name: str
    x: Tensor
    gain: float = 1.0
    label: Any = None


@checked
def read_samples(
    path: Path | Sequence[Path],
    data: DataSpec,
    *,
    resize: bool = False,
    resample: bool = False,
    n: int | None = None,
) -> Samples:
    """Read images or sounds as the input of a model.

    Recordings are scaled to the peak that the model was trained with. Samples in a folder that
    `fastdpm sample` wrote already have the model's level and are not scaled.

    Args:
        path: An image, a mono sound, a folder, a zip archive, a Parquet file, a ``.npz`` or
            ``.npy`` file of images or sounds (see :func:`fastdpm.data.arrays.fit_array`), or
            "sklearn:digits-test"; or a sequence of these, read in order.
        data: The data of the model. Sounds for a vocoder may have any length; they are padded
            with silence to whole mel frames.
        resize: Crop images to the model's aspect ratio and scale them to its size, and convert
            RGB to gray for a model of gray images. Center sounds in the model's window: trim both
            ends, or pad them with silence.
        resample: Resample sounds to the model's sample rate.
        n: Read at most this many inputs.

    Raises:
        InvalidArgumentError: If a path does not exist, there is no input, the modality cannot be
            read from files, or ``resample`` is set for images.
        DataError: If an input cannot be read, or has the wrong size, colors, length, sample rate
            or range.
    """
    if data.modality == "series":
        raise InvalidArgumentError(
            "series cannot be read from files: pass a tensor to the Python functions"
        )
    if resample and data.modality == "image":
        raise InvalidArgumentError("`resample` is for sounds: drop it")
    n = positive_or_none("n", n)
    if n is not None:
        check_limit("`n`", n, MAX_SAMPLES)
    paths = [path] if isinstance(path, str | Path) else path
    samples = chain.from_iterable(_samples(Path(each), data, resize, resample) for each in paths)
    inputs = list(islice(samples, n))
    if not inputs:
        raise InvalidArgumentError("no input: pass images, sounds or folders of them")
    names, x, gain, labels = zip(*inputs, strict=True)
    _check_same_shape(names, x)
    gains = torch.tensor(gain, dtype=torch.float64, device="cpu")
    return Samples(list(names), torch.stack(x), gains, stored_labels(labels))


def _samples(path: Path, data: DataSpec, resize: bool, resample: bool) -> Iterator[_Sample]:
    """The samples at a path."""
    if str(path) in (DIGITS, DIGITS_TEST):
        images, labels = digits_part(str(path))
        for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            name = f"{path}:{i}"
            yield _Sample(name, from_pixels(_image(name, image, data, resize)), label=label)
        return
    if not path.exists():
        kind = "an image" if data.modality == "image" else "a sound"
        raise InvalidArgumentError(
            f"no input at {str(path)!r}: pass {kind}, a folder, a zip archive, a Parquet, .npz or"
            " .npy file"
        )
    array = open_array(path)
    if array is not None:
        yield from _of_array(path, array, data, resize, resample)
        return
    at_model_level = cache(_at_model_level)
    for file in _files(path, data):
        if data.modality == "image":
            pixels = read_pixels(file.name, file.data)
            image = from_pixels(_image(file.name, pixels, data, resize))
            yield _Sample(file.name, image, label=file.label)
        else:
            place = Path(file.name)
            sampled = place in at_model_level(place.parent)
            spec = replace(data, peak=None) if sampled else data
            decoded = decode_sound(file.name, file.data)
            sound, gain = _sound(file.name, *decoded, spec, resize, resample)
            yield _Sample(file.name, sound, gain, file.label)


def _of_array(
    path: Path, array: LabeledArray, data: DataSpec, resize: bool, resample: bool
) -> Iterator[_Sample]:
    """The samples of an array, which has the model's own level."""
    names = (f"{path}:{i}" for i in count())
    labels = repeat(None) if array.labels is None else map(int, array.labels)
    if data.modality == "image":
        pixels = array.values.dtype == np.uint8
        spec = replace(data, shape=array.image_shape) if resize and pixels else data
        images = fit_array(array, spec)
        for name, image, label in zip(names, images, labels, strict=False):
            whole = from_pixels(_image(name, image, data, resize)) if pixels else image
            yield _Sample(name, torch.as_tensor(whole), label=label)
        return
    rate = array.sample_rate or data.sample_rate or 0
    sounds = fit_array(replace(array, sample_rate=None), data, any_length=True)
    for name, values, label in zip(names, sounds, labels, strict=False):
        spec = replace(data, peak=None)
        yield _Sample(name, *_sound(name, values[0], rate, spec, resize, resample), label)


def _files(path: Path, data: DataSpec) -> Iterator[EncodedFile]:
    """The encoded files at a path."""
    if not path.is_dir() and path.suffix.lower() not in _ARCHIVES:
        return iter([EncodedFile(str(path), read_bytes(path))])
    return iter(open_dataset(path, data.modality))


def _image(
    name: str, pixels: NDArray[np.uint8], data: DataSpec, resize: bool
) -> NDArray[np.uint8]:
    """Pixels (C, H, W) as those of the model's data."""
    shape = data.shape
    found = pixels.shape
    fits = found[1:] == shape[1:] and found[0] <= shape[0]
    if not fits and not resize:
        raise DataError(
            f"{name} is {_describe(found)}, but the model's images are {_describe(shape)}:"
            " set `resize` to crop and scale it"
        )
    pixels = to_channels(pixels, shape[0])
    if pixels.shape != shape:
        pixels = _crop_and_scale(pixels, shape)
    return pixels


def _crop_and_scale(pixels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Crop pixels (C, H, W) around the center to the aspect ratio of ``shape`` and scale them."""
    gray = len(pixels) == 1
    picture = Image.fromarray(pixels[0] if gray else pixels.transpose(1, 2, 0))
    fitted = np.asarray(ImageOps.fit(picture, (shape[2], shape[1]), Image.Resampling.LANCZOS))
    return fitted[None] if gray else fitted.transpose(2, 0, 1)


def _describe(shape: tuple[int, ...]) -> str:
    """An image shape in words, such as "32 x 32 RGB"."""
    colors = {1: "gray", 3: "RGB"}.get(shape[0], f"{shape[0]}-channel")
    return f"{shape[2]} x {shape[1]} {colors}"


def _sound(
    name: str,
    sound: NDArray[np.float32],
    found_rate: int,
    data: DataSpec,
    resize: bool,
    resample: bool,
) -> tuple[Tensor, float]:
    """A sound as the model's data, shape (1, samples) in [-1, 1], and its gain."""
    sample_rate = data.sample_rate or found_rate
    if found_rate != sample_rate and not resample:
        raise DataError(
            f"{name} has a sample rate of {found_rate} Hz, but the model's is"
            f" {sample_rate} Hz: set `resample` to resample it"
        )
    if found_rate != sample_rate:
        sound = resampled(sound, found_rate, sample_rate)
    sound, gain = at_peak(name, sound, data.peak)
    length = data.shape[-1]
    if resize:
        sound = _center(sound, length)
    elif data.mel is not None:
        sound = whole_frames(sound, data.mel)
    elif len(sound) != length:
        raise DataError(
            f"{name} has {len(sound)} samples, but the model's sounds have {length}: set"
            " `resize` to center it in a window of that length"
        )
    return torch.from_numpy(sound.copy())[None], gain


def _at_model_level(folder: Path) -> Collection[Path]:
    """The sounds that a folder's record lists, unless they were scaled to the level of inputs."""
    record = read_record(folder)
    return () if record is None or record.gain is not None else set(record.paths(folder))


def _center(sound: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """Trim or pad a sound at both ends to ``length`` samples."""
    spare = length - len(sound)
    if spare <= 0:
        return sound[-spare // 2 :][:length]
    return np.pad(sound, (spare // 2, spare - spare // 2))


def _check_same_shape(names: Sequence[str], samples: Sequence[Tensor]) -> None:
    """Check that all samples of a batch have one length; sounds for a vocoder may differ."""
    for name, sample in zip(names, samples, strict=False):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"{names[0]} has {samples[0].shape[-1]} samples, but {name} has"
                f" {sample.shape[-1]}: process sounds of different lengths separately, or set"
                " `resize`"
            )
