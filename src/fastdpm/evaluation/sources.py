"""Sources of samples: a model, files or an array. Samples have the integer values of a file.

Images are uint8, shape (n, C, H, W); sounds are int16, shape (n, 1, length).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import MAX_CLASSES
from fastdpm.data.arrays import LabeledArray, fit_array, open_array
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, Dataset, digits_part, open_dataset
from fastdpm.data.images import decode_image, read_pixels
from fastdpm.data.listing import EncodedFile
from fastdpm.data.pixels import from_pixels, to_pixels
from fastdpm.data.sound import decode_sound, from_pcm, read_sound, to_pcm
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import bytes_digest
from fastdpm.evaluation.cache import digest
from fastdpm.evaluation.halves import Strata
from fastdpm.models.features import builtin_features
from fastdpm.sampling.state import Callback

if TYPE_CHECKING:
    from fastdpm.evaluation.drawn import ModelSource

Values = NDArray[Any]
ALL = 10**9  # more samples than any data set has
_BATCH = 256


class Source(ABC):
    """Samples in a fixed order.

    Attributes:
        key: Digest of what decides them.
        label: Where they come from, for people; without their number.
        data: Their modality, shape and sample rate.
        size: How many there are.
        rows: Network evaluations of one sample; 0 if no model draws them.
        noise_rows: Steps of one sample that draw noise.
    """

    key: str
    label: str
    data: DataSpec
    size: int
    rows: int = 0
    noise_rows: int = 0

    @abstractmethod
    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The samples from ``first`` to before ``stop``.

        ``callback`` is called while a model draws samples.
        """

    @property
    def drawn(self) -> int:
        """How many need no more drawing."""
        return self.size

    def strata(self, count: int) -> Strata | None:
        """The condition of each of the first ``count`` samples; None if it is not chosen."""
        return None

    def labels(self, count: int) -> Strata | None:
        """The class label of each of the first ``count`` samples; None if unknown."""
        return None

    @property
    def counted(self) -> str:
        """How many samples there are, and where they come from."""
        return f"{self.size:,} samples of {self.label}"

    @property
    def probe(self) -> ModelSource | None:
        """A source of one model's samples to time the network with; None if there is no model."""
        return None

    def cost(self, count: int) -> tuple[float | None, float | None]:
        """Seconds to draw the first ``count`` samples, and network evaluations per sample."""
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
    """A progress bar, which yields its callback; without one, None."""
    if not shown:
        return nullcontext()
    from fastdpm.progress import sampling_bar

    return sampling_bar()


def to_values(samples: Tensor) -> Values:
    """Convert samples in [-1, 1] to the values of a file: 8-bit images, 16-bit sounds."""
    if samples.ndim == 4:
        return np.ascontiguousarray(to_pixels(samples).transpose(0, 3, 1, 2))
    return to_pcm(samples.detach().float().cpu().numpy())


def to_samples(values: Values) -> Tensor:
    """Convert the values of a file to samples in [-1, 1], float32."""
    return from_pixels(values) if values.dtype == np.uint8 else from_pcm(values)


class DataSource(Source):
    """Samples that exist already.

    Attributes:
        total: How many there are, of which ``size`` are used.
        chosen: The indices of those that are used.
        generated: Whether a model drew them.
    """

    generated: bool
    _labels: Strata | None

    def __init__(
        self, label: str, total: int, n: int | None = None, batch_size: int | None = None
    ) -> None:
        self.label, self.total, self.chosen = label, total, choose(total, n)
        self.size, self.batch_size = len(self.chosen), batch_size or _BATCH

    @property
    def counted(self) -> str:
        """See :class:`Source`."""
        if self.size == self.total:
            return super().counted
        return f"{self.size:,} of {self.total:,} samples of {self.label}"

    def strata(self, count: int) -> Strata | None:
        """See :class:`Source`; the labels of generated samples, which were chosen."""
        return self.labels(count) if self.generated else None

    def labels(self, count: int) -> Strata | None:
        """See :class:`Source`."""
        return None if self._labels is None else self._labels[:count]


def choose(total: int, n: int | None) -> list[int]:
    """Indices of ``n`` of ``total`` samples, drawn at random, the same ones each time.

    The first ones may all be of one class.
    """
    if n is None or n >= total:
        return list(range(total))
    return sorted(np.random.default_rng(0).choice(total, n, replace=False).tolist())


class FileSource(DataSource):
    """A folder, zip archive or Parquet file of images or sounds.

    Sounds are placed in a window of the length of ``data``, at a position that depends on their
    index, as in training. For the arguments, see :func:`open_data`.
    """

    def __init__(
        self,
        dataset: Dataset,
        data: DataSpec,
        n: int | None = None,
        *,
        scale: bool,
        batch_size: int | None = None,
    ) -> None:
        super().__init__(dataset.path.name, len(dataset), n, batch_size)
        self.dataset = dataset
        self.data = data if scale and dataset.record is None else replace(data, peak=None)
        contents, labels = [], []
        for file in dataset.files(self.chosen):
            contents.append(bytes_digest(file.data))
            labels.append(file.label)
        self.key = digest(self.chosen, contents)
        self.generated, self._labels = dataset.record is not None, _whole_labels(labels)

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """See :class:`Source`."""
        chosen = self.chosen[first:stop]
        pairs = zip(chosen, self.dataset.files(chosen), strict=True)
        while batch := list(islice(pairs, self.batch_size)):
            yield np.stack([self._decode(index, file) for index, file in batch])

    def _decode(self, index: int, file: EncodedFile) -> Values:
        if self.data.modality == "image":
            return decode_image(file.name, file.data, self.data, drop_colour=False)
        sound = torch.from_numpy(read_sound(file.name, file.data, self.data))
        window = _in_window(sound, self.data.shape[-1], index)
        return to_values(window[None])


class ArraySource(DataSource):
    """Arrays in memory or in an ``.npz`` file: uint8 images or float sounds.

    Sounds of another length are placed in a window like those of :class:`FileSource`.

    Args:
        array: The samples; see :func:`fastdpm.data.arrays.fit_array`.
        data: Modality and shape that they must have.
        n: How many to use; all by default.
        batch_size: Samples at a time.

    Raises:
        DataError: If they have another type or shape.
    """

    def __init__(
        self,
        array: LabeledArray,
        data: DataSpec,
        n: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.data = data
        values = fit_array(array, data, any_length=data.modality == "audio")
        if data.modality == "audio" and values.shape[-1] != data.shape[-1]:
            sounds = torch.from_numpy(values[:, 0])
            windows = [_in_window(x, data.shape[-1], i) for i, x in enumerate(sounds)]
            values = torch.stack(windows)[:, None].numpy()
        if values.dtype != np.uint8:
            values = to_values(torch.from_numpy(values))
        super().__init__(array.label, len(values), n, batch_size)
        self.values = np.ascontiguousarray(values[self.chosen])
        self.generated = array.generated
        labels = None if array.labels is None else np.asarray(array.labels)[self.chosen].tolist()
        self._labels = _whole_labels(labels or [None])
        self.key = bytes_digest(repr(values.shape).encode(), self.values.tobytes())

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """See :class:`Source`."""
        for start in range(first, stop, self.batch_size):
            yield self.values[start : min(start + self.batch_size, stop)]


def open_samples(path: str, modality: str | None = None) -> Dataset | LabeledArray:
    """Open samples: files, an array in a ``.npz`` or ``.npy`` file, or scikit-learn's digits.

    Args:
        path: Of the samples.
        modality: "image" or "audio"; by default the one that the files have.

    Raises:
        DataError: See :func:`fastdpm.data.datasets.open_dataset`, or if a ``.npz`` file is damaged
            or holds several arrays.
    """
    if path in (DIGITS, DIGITS_TEST):
        label = "training digits" if path == DIGITS else "held-out digits"
        images, labels = digits_part(path)
        return LabeledArray(label, images, labels=labels)
    if not Path(path).exists():
        raise DataError(
            f"no data at {path!r}: pass a folder, a zip archive, a Parquet, .npz or .npy file, or"
            f" {DIGITS}"
        )
    array = open_array(Path(path))
    return open_dataset(path, modality, alone=True) if array is None else array


def open_data(
    samples: str | Dataset | LabeledArray,
    data: DataSpec,
    n: int | None = None,
    *,
    scale: bool,
    batch_size: int | None = None,
) -> DataSource:
    """Open samples to be measured.

    Args:
        samples: A path, or the result of :func:`open_samples`.
        data: Modality, shape and sample rate that the samples must have.
        n: How many to use; all by default.
        scale: Scale sounds to the peak of ``data``, as recordings are scaled for training. The
            sounds of a folder that `fastdpm sample` wrote always keep their own level.
        batch_size: Samples at a time.
    """
    if isinstance(samples, str):
        samples = open_samples(samples, data.modality)
    if isinstance(samples, LabeledArray):
        return ArraySource(samples, data, n, batch_size)
    return FileSource(samples, data, n, scale=scale, batch_size=batch_size)


def check_scaled(samples: str, opened: Dataset | LabeledArray, data: DataSpec) -> None:
    """Raise InvalidArgumentError if these samples are never scaled to a peak."""
    why = None
    if data.modality != "audio":
        why = f"{samples} holds no sounds"
    elif isinstance(opened, LabeledArray):
        why = "arrays are measured at their own level"
    elif opened.record is not None:
        why = f"{samples} was written by `fastdpm sample`, whose sounds keep their own level"
    elif data.peak is None:
        why = "the feature network was trained on sounds at their own level"
    if why is not None:
        raise InvalidArgumentError(f"{why}, so `scale_to_peak` would have no effect: drop it")


def holds_images(samples: Dataset | LabeledArray) -> bool:
    """Whether samples are images; an array of images has four axes."""
    if isinstance(samples, LabeledArray):
        return samples.values.ndim == 4
    return samples.modality == "image"


def sample_rate_of(sounds: Dataset | LabeledArray) -> int:
    """The sample rate in Hz of sounds: of the first file, or as the record of an array states."""
    if isinstance(sounds, Dataset):
        file = next(iter(sounds))
        return decode_sound(file.name, file.data)[1]
    if sounds.sample_rate is not None:
        return sounds.sample_rate
    raise InvalidArgumentError(
        f"{sounds.label} of shape {sounds.values.shape} holds no images (n, H, W, C), and an array"
        " does not state the sample rate of sounds: set `features` to the feature network that"
        f" takes them, such as {', '.join(builtin_features())}"
    )


def image_data(samples: Dataset | LabeledArray) -> DataSpec:
    """Modality and shape of the first image, which all others must have."""
    if isinstance(samples, Dataset):
        file = next(iter(samples))
        return DataSpec("image", read_pixels(file.name, file.data).shape)
    return DataSpec("image", samples.image_shape)


def in_memory(name: str, samples: Tensor | Values) -> LabeledArray:
    """Samples of an argument, which ``name`` calls in messages."""
    if isinstance(samples, Tensor):
        samples = samples.detach().float().cpu().numpy()
    return LabeledArray(name, samples)


def _whole_labels(labels: Sequence[Any]) -> Strata | None:
    """Labels as an array; None unless all are integers from 0."""
    whole = all(type(label) is int and 0 <= label < MAX_CLASSES for label in labels)
    return np.array(labels, dtype=np.int64) if whole else None


def _in_window(sound: Tensor, length: int, index: int) -> Tensor:
    """Cut a window from a longer sound, or pad a shorter one; ``index`` decides the position."""
    spare = len(sound) - length
    place = int(np.random.Generator(np.random.Philox(key=index)).integers(abs(spare) + 1))
    if spare >= 0:
        return sound[place : place + length]
    window = torch.zeros(length, device="cpu")
    window[place : place + len(sound)] = sound
    return window


def describe(data: DataSpec) -> str:
    """Modality, shape and sample rate, for people."""
    rate = f" at {data.sample_rate} Hz" if data.sample_rate else ""
    return f"{data.modality} {' x '.join(map(str, data.shape))}{rate}"
