"""Reading what a user gives to a model: images or sounds as its data, shape and rate checked.

Nothing is fitted unless it is asked for: what differs from the model's data is refused with what
was found and the option that fits it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, EncodedFile, digits_part, open_dataset
from fastdpm.data.images import in_colours, read_pixels
from fastdpm.data.mel import whole_frames
from fastdpm.data.pixels import from_pixels
from fastdpm.data.record import read_record
from fastdpm.data.sound import at_peak, decode_sound, resampled
from fastdpm.data.spec import DataSpec, check_shape

_COLLECTIONS = (".zip", ".parquet")


class Samples(NamedTuple):
    """What a user gave, as a model's data.

    Attributes:
        names: Of files, or of places in them.
        x: Data in [-1, 1], shape (n, *data shape), float32.
        gain: What each is multiplied by to be at the level of its file again, shape (n,),
            float64; 1 for images and for sounds that are taken as they are.
    """

    names: list[str]
    x: Tensor
    gain: Tensor


def read_samples(
    path: Path | Sequence[Path],
    data: DataSpec,
    *,
    resize: bool = False,
    resample: bool = False,
    n: int | None = None,
) -> Samples:
    """Read images or sounds as a model's data.

    Recordings are scaled to the peak that the model was trained with, but for samples of a model
    in a folder that `fastdpm sample` wrote, which are taken as they are.

    Args:
        path: An image, a mono sound, a folder, zip archive or Parquet file of them in its order,
            or "sklearn:digits-test"; or several of these, read one after the other.
        data: What the model was trained on. Sounds of a vocoder may have any length and are padded
            with silence to whole mel frames.
        resize: Crop images to the model's aspect and scale them to its size, colours turned to
            grey where it has none; centre sounds in its window, cutting both ends or adding
            silence.
        resample: Resample sounds to the model's rate.
        n: At most so many, the first ones.

    Raises:
        InvalidArgumentError: If there is nothing at a path, data of this kind is not read from
            files, or images are to be resampled.
        DataError: If it cannot be read or has another size, colour, length, rate or range.
    """
    if data.modality == "series":
        raise InvalidArgumentError(
            "series are not read from files: encode an array with the Python functions"
        )
    if resample and data.modality == "image":
        raise InvalidArgumentError("`resample` is for sounds: drop it")
    paths = [path] if isinstance(path, str | Path) else path
    samples = chain.from_iterable(_samples(Path(each), data, resize, resample) for each in paths)
    read = list(islice(samples, n))
    if not read:
        raise InvalidArgumentError("no input: give images, sounds or folders of them")
    names, x, gain = zip(*read, strict=True)
    _check_alike(names, x)
    return Samples(list(names), torch.stack(x), torch.tensor(gain, dtype=torch.float64))


def _samples(
    path: Path, data: DataSpec, resize: bool, resample: bool
) -> Iterator[tuple[str, Tensor, float]]:
    """The name, data and gain of each sample at a path."""
    if str(path) in (DIGITS, DIGITS_TEST):
        images, _ = digits_part(str(path))
        check_shape(str(path), images.shape[1:], data)
        for i, image in enumerate(images):
            yield f"{path}:{i}", from_pixels(image), 1.0
        return
    at_model_level = cache(_at_model_level)
    for file in _files(path, data):
        if data.modality == "image":
            yield file.name, _image(file, data, resize), 1.0
        else:
            place = Path(file.name)
            ours = place in at_model_level(place.parent)
            spec = replace(data, peak=None) if ours else data
            yield file.name, *_sound(file, spec, resize, resample)


def _files(path: Path, data: DataSpec) -> Iterator[EncodedFile]:
    if path.is_file() and path.suffix not in _COLLECTIONS:
        return iter([EncodedFile(str(path), path.read_bytes())])
    if not path.exists():
        kind = "an image" if data.modality == "image" else "a sound"
        raise InvalidArgumentError(
            f"no input at {str(path)!r}: give {kind}, or a folder, zip archive or Parquet file"
        )
    return iter(open_dataset(path, data.modality))


def _image(file: EncodedFile, data: DataSpec, resize: bool) -> Tensor:
    pixels, wanted = read_pixels(file.name, file.data), data.shape
    found = pixels.shape
    fits = found[1:] == wanted[1:] and found[0] <= wanted[0]
    if not fits and not resize:
        raise DataError(
            f"{file.name} is {_words(found)}, the model's images are {_words(wanted)}: add"
            " `resize` to crop and scale it"
        )
    pixels = in_colours(pixels, wanted[0])
    if pixels.shape != wanted:
        pixels = _fitted(pixels, wanted)
    return from_pixels(pixels)


def _fitted(pixels: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Cropped around the middle to an aspect and scaled, with an antialiasing filter."""
    grey = len(pixels) == 1
    picture = Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0))
    fitted = np.asarray(ImageOps.fit(picture, (shape[2], shape[1]), Image.Resampling.LANCZOS))
    return fitted[None] if grey else fitted.transpose(2, 0, 1)


def _words(shape: tuple[int, ...]) -> str:
    colour = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]}-channel")
    return f"{shape[2]} x {shape[1]} {colour}"


def _sound(
    file: EncodedFile, data: DataSpec, resize: bool, resample: bool
) -> tuple[Tensor, float]:
    sound, found = decode_sound(file.name, file.data)
    wanted = data.sample_rate or found
    if found != wanted and not resample:
        raise DataError(
            f"{file.name} is sampled at {found} Hz, the model's sounds at {wanted} Hz: add"
            " `resample`"
        )
    if found != wanted:
        sound = resampled(sound, found, wanted)
    sound, gain = at_peak(file.name, sound, data.peak)
    length = data.shape[-1]
    if resize:
        sound = _centred(sound, length)
    elif data.mel is not None:
        sound = whole_frames(sound, data.mel)
    elif len(sound) != length:
        raise DataError(
            f"{file.name} has {len(sound)} samples, the model's sounds have {length}: add"
            " `resize` to centre it in a window of that length"
        )
    return torch.from_numpy(sound.copy())[None], gain


def _at_model_level(folder: Path) -> Collection[Path]:
    """The sounds that a folder's record lists, unless it tells a gain from the model's level."""
    record = read_record(folder)
    return () if record is None or record.gain is not None else set(record.paths(folder))


def _centred(sound: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The middle of a longer sound, or a shorter one amid silence."""
    spare = length - len(sound)
    if spare <= 0:
        return sound[-spare // 2 :][:length]
    return np.pad(sound, (spare // 2, spare - spare // 2))


def _check_alike(names: Sequence[str], samples: Sequence[Tensor]) -> None:
    """Sounds of a vocoder have their own lengths, but one batch has one."""
    for name, sample in zip(names, samples, strict=False):
        if sample.shape != samples[0].shape:
            raise DataError(
                f"{names[0]} has {samples[0].shape[-1]} samples, {name} {sample.shape[-1]}: encode"
                " sounds of other lengths one by one, or add `resize`"
            )
