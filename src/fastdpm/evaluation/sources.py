"""Where samples come from: a model, files, or an array; as the 8- or 16-bit values of a file.

Images are uint8, shape (n, C, H, W); sounds are int16, shape (n, 1, length).
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError
from fastdpm.data.datasets import (
    DIGITS,
    DIGITS_TEST,
    Dataset,
    EncodedFile,
    digits_part,
    no_files,
    open_dataset,
)
from fastdpm.data.images import decode_image, read_pixels
from fastdpm.data.pixels import from_pixels, to_pixels
from fastdpm.data.record import ARCHIVE, read_record
from fastdpm.data.sound import from_pcm, read_sound, to_pcm
from fastdpm.data.spec import DataSpec, check_shape
from fastdpm.data.tensors import bytes_digest
from fastdpm.evaluation.cache import digest
from fastdpm.sampling.state import Callback

Values = NDArray[Any]
ALL = 10**9  # more samples than any data set has
_BATCH = 256


class Source(ABC):
    """Samples in a fixed order.

    Attributes:
        key: Digest of what decides them.
        label: Which they are, in words.
        data: Their modality, shape and sample rate.
        size: How many there are.
        rows: Network evaluations of one.
    """

    key: str
    label: str
    data: DataSpec
    size: int
    rows: int = 0

    @abstractmethod
    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The samples from ``first`` to before ``stop``.

        ``callback`` is told of those that a model draws meanwhile.
        """

    @property
    def drawn(self) -> int:
        """How many are there already."""
        return self.size

    def cost(self, count: int) -> tuple[float | None, float | None]:
        """Seconds to draw the first ``count`` samples, and network evaluations of each."""
        return None, None

    def pictures(self, count: int) -> Values:
        """The first samples: uint8 images (k, H, W, C), or float32 sounds (k, length).

        Shorter sounds are padded with silence.
        """
        batches = list(self.batches(0, min(count, self.size)))
        if self.data.modality == "image":
            return np.concatenate(batches).transpose(0, 2, 3, 1)
        sounds = [sound[0] for values in batches for sound in to_samples(values)]
        return torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True).numpy()


def bar_if(shown: bool) -> AbstractContextManager[Callback | None]:
    """A progress bar of drawing, which yields its callback; or none, which yields None."""
    if not shown:
        return nullcontext()
    from fastdpm.progress import sampling_bar

    return sampling_bar()


def to_values(samples: Tensor) -> Values:
    """Samples in [-1, 1] as a file holds them: 8-bit images, 16-bit sounds."""
    if samples.ndim == 4:
        return np.ascontiguousarray(to_pixels(samples).transpose(0, 3, 1, 2))
    return to_pcm(samples.detach().float().cpu().numpy())


def to_samples(values: Values) -> Tensor:
    """The values of a file as samples in [-1, 1], float32."""
    return from_pixels(values) if values.dtype == np.uint8 else from_pcm(values)


def choose(total: int, n: int | None, label: str) -> tuple[list[int], str]:
    """Indices of n of the samples of ``label``, and which they are, in words.

    They are drawn alike each time: the first ones may be all of one class.
    """
    if n is None or n >= total:
        return list(range(total)), f"{total:,} samples of {label}"
    chosen = np.random.default_rng(0).choice(total, n, replace=False)
    return sorted(chosen.tolist()), f"{n:,} of {total:,} samples of {label}"


class FileSource(Source):
    """A folder, zip archive or Parquet file of images or sounds.

    Sounds are placed in a window of the length of ``data``, at a place that depends on their
    number, as in training. The arguments are those of :func:`open_data`.
    """

    def __init__(
        self, dataset: Dataset, data: DataSpec, n: int | None = None, *, scale: bool
    ) -> None:
        self.dataset = dataset
        self.data = data if scale and dataset.record is None else replace(data, peak=None)
        self.chosen, self.label = choose(len(dataset), n, dataset.path.name)
        self.size = len(self.chosen)
        files = dataset.files(self.chosen)
        contents = [bytes_digest(file.data) for file in files]
        self.key = digest(self.chosen, contents)

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """See :class:`Source`."""
        chosen = self.chosen[first:stop]
        pairs = zip(chosen, self.dataset.files(chosen), strict=True)
        while batch := list(islice(pairs, _BATCH)):
            yield np.stack([self._decode(index, file) for index, file in batch])

    def _decode(self, index: int, file: EncodedFile) -> Values:
        if self.data.modality == "image":
            return decode_image(file.name, file.data, self.data, drop_colour=False)
        sound = torch.from_numpy(read_sound(file.name, file.data, self.data))
        window = _in_window(sound, self.data.shape[-1], index)
        return to_values(window[None])


class LabeledArray(NamedTuple):
    """Samples that are no files: which they are, in words, and their values."""

    label: str
    values: Values


class ArraySource(Source):
    """Arrays in memory or in an ``.npz`` file: uint8 images or float sounds.

    Args:
        array: Images, uint8 of shape (n, H, W, C) or (n, C, H, W), or float in [-1, 1] of shape
            (n, C, H, W); or sounds, float in [-1, 1] of shape (n, length) or (n, 1, length).
        data: What they must be.
        n: How many to take; all by default.

    Raises:
        DataError: If they are something else.
    """

    def __init__(self, array: LabeledArray, data: DataSpec, n: int | None = None) -> None:
        label, values = array
        self.data = data
        if data.modality == "audio" and values.ndim == 2:
            values = values[:, None]
        if values.dtype.kind == "f" and values.ndim == len(data.shape) + 1:
            if not np.isfinite(values).all() or np.abs(values).max(initial=0) > 1:
                raise DataError(f"{label} holds values that are not finite or outside [-1, 1]")
            values = to_values(torch.from_numpy(values))
        elif data.modality == "audio" or values.dtype != np.uint8 or values.ndim != 4:
            kind = "uint8 images of shape (n, H, W, C)" if data.modality == "image" else "sounds"
            raise DataError(
                f"{label} must hold {kind}, or floats in [-1, 1] of shape (n,"
                f" {', '.join(map(str, data.shape))}), got {values.dtype} of shape {values.shape}"
            )
        elif values.shape[1:] != data.shape and values.shape[-1] in (1, 3):
            values = values.transpose(0, 3, 1, 2)
        if len(values) == 0:
            raise no_files(label, data.modality)
        check_shape(label, values.shape[1:], data)
        chosen, self.label = choose(len(values), n, label)
        self.size = len(chosen)
        self.values = np.ascontiguousarray(values[chosen])
        self.key = bytes_digest(repr(values.shape).encode(), self.values.tobytes())

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """See :class:`Source`."""
        for start in range(first, stop, _BATCH):
            yield self.values[start : min(start + _BATCH, stop)]


def open_samples(path: str, modality: str | None = None) -> Dataset | LabeledArray:
    """Open a path that is no model: files, ``.npz``, or scikit-learn's digits.

    Args:
        path: Where.
        modality: "image" or "audio"; of files by default the one that is there.

    Raises:
        DataError: See :func:`fastdpm.data.datasets.open_dataset`, or if a ``.npz`` file is damaged
            or holds several arrays.
    """
    if path in (DIGITS, DIGITS_TEST):
        label = "training digits" if path == DIGITS else "held-out digits"
        return LabeledArray(label, digits_part(path)[0])
    archive = Path(path) / ARCHIVE
    if archive.is_file() and (record := read_record(Path(path))) and record.files == [ARCHIVE]:
        path = str(archive)
    if path.endswith(".npz") and Path(path).is_file():
        return LabeledArray(Path(path).name, _read_npz(Path(path)))
    return open_dataset(path, modality, alone=True)


def open_data(
    samples: str | Dataset | LabeledArray, data: DataSpec, n: int | None = None, *, scale: bool
) -> Source:
    """Samples of a path that is no model, to measure.

    Args:
        samples: A path, or what :func:`open_samples` made of it.
        data: What the samples must be.
        n: How many to take; all by default.
        scale: Scale sounds to the peak of ``data``, as recordings are for training. A folder that
            `fastdpm sample` wrote is taken at its own level all the same.
    """
    if isinstance(samples, str):
        samples = open_samples(samples, data.modality)
    if isinstance(samples, LabeledArray):
        return ArraySource(samples, data, n)
    return FileSource(samples, data, n, scale=scale)


def image_data(samples: Dataset | LabeledArray) -> DataSpec:
    """Modality and shape of images whose size nobody has said: those of the first one."""
    if isinstance(samples, Dataset):
        file = next(iter(samples))
        return DataSpec("image", read_pixels(file.name, file.data).shape)
    shape = samples.values.shape
    if len(shape) != 4:
        raise DataError(f"{samples.label} must hold images (n, H, W, C), got shape {shape}")
    return DataSpec("image", (shape[3], *shape[1:3]) if shape[3] in (1, 3) else shape[1:])


def _read_npz(path: Path) -> Values:
    try:
        with np.load(path, allow_pickle=False) as file:
            if len(file.files) != 1 and "samples" not in file.files:
                raise DataError(
                    f"{path} holds {', '.join(file.files)}: it must hold one array, or one named"
                    " 'samples'"
                )
            return np.asarray(file["samples" if "samples" in file.files else file.files[0]])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path} is not a whole .npz file of numbers") from None


def _in_window(sound: Tensor, length: int, index: int) -> Tensor:
    """A window of a longer sound, or a shorter one within silence, at a place drawn by number."""
    spare = len(sound) - length
    place = int(np.random.Generator(np.random.Philox(key=index)).integers(abs(spare) + 1))
    if spare >= 0:
        return sound[place : place + length]
    window = torch.zeros(length)
    window[place : place + len(sound)] = sound
    return window


def describe(data: DataSpec) -> str:
    """Modality, shape and rate in a few words."""
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    return f"{data.modality} {' x '.join(map(str, data.shape))}{rate}"
