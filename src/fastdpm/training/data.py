"""Training data, kept in the memory of the device: images as uint8, sounds as int16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastdpm.core.errors import DataError
from fastdpm.data.arrays import LabeledArray, fit_array, open_array
from fastdpm.data.condition import stored_labels
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, digits_part, open_dataset
from fastdpm.data.images import decode_image
from fastdpm.data.listing import EncodedFile
from fastdpm.data.mel import log_mel
from fastdpm.data.pixels import from_pixels, to_pixels
from fastdpm.data.sound import from_pcm, read_sound, to_pcm
from fastdpm.data.spec import DataSpec, check_shape


@dataclass(frozen=True)
class TrainingData:
    """A data set on a device, from which batches are drawn.

    Attributes:
        spec: The data that it holds.
        values: Images, uint8, shape (n, C, H, W); or sounds, int16, shape (n, longest), padded
            with zeros.
        lengths: Number of samples of each sound, shape (n,); None for images.
        horizontal_flip: Flip each image with probability 1/2.
        labels: Class labels from 0, shape (n,); None if there are none.
    """

    spec: DataSpec
    values: Tensor
    lengths: Tensor | None = None
    horizontal_flip: bool = False
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> TrainingData:
        """A copy on another device."""
        moved: Any = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A random batch in [-1, 1], shape (size, ...), and what it is conditioned on.

        That is its mel spectrograms for a vocoder, its labels (size,) for a model with classes,
        else None.
        """
        device = self.values.device
        index = torch.randint(len(self), (size,), generator=generator, device=device)
        return self.conditioned(self.pick(index, generator), index)

    def conditioned(self, samples: Tensor, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Samples, shape (n, ...), and what they are conditioned on; see :meth:`batch`.

        Args:
            samples: The samples at ``index``.
            index: Their indices, shape (n,), from 0.
        """
        if self.spec.classes is not None and self.labels is not None:
            return samples, self.labels[index].long()
        mel = None if self.spec.mel is None else log_mel(samples[:, 0], self.spec.mel)
        return samples, mel

    def pick(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Samples at ``index``, shape (n,), in [-1, 1]; randomly flipped or cropped."""
        size, device = len(index), self.values.device
        if self.lengths is None:
            images = from_pixels(self.values[index])
            if self.horizontal_flip:
                flip = torch.rand(size, 1, 1, 1, generator=generator, device=device) < 0.5
                images = torch.where(flip, images.flip(-1), images)
            return images
        offset = torch.rand(size, 1, generator=generator, device=device)
        return self.windows(index, offset)

    def middle(self, index: Tensor) -> Tensor:
        """Samples at ``index``, shape (n,), in [-1, 1], unaugmented; sounds are centered."""
        if self.lengths is None:
            return from_pixels(self.values[index])
        return self.windows(index, torch.full((len(index), 1), 0.5, device=index.device))

    def windows(self, index: Tensor, offset: Tensor) -> Tensor:
        """Cut windows from sounds; shorter sounds are padded with silence.

        Args:
            index: Sounds, shape (n,), from 0.
            offset: Relative position, in [0, 1], shape (n, 1): of the window within a longer
                sound, or of a shorter sound within the window.

        Returns:
            Shape (n, 1, window), in [-1, 1].

        Raises:
            DataError: If the data is images.
        """
        if self.lengths is None:
            raise DataError("windows can only be cut from sounds, but this data is images")
        window = self.spec.shape[-1]
        lengths = self.lengths[index][:, None]
        spare = lengths - window
        start = spare.clamp_max(0) + (offset * (spare.abs() + 1)).long().clamp_max(spare.abs())
        position = start + torch.arange(window, device=index.device)
        inside = (position >= 0) & (position < lengths)
        table = self.values[index].gather(1, position.clamp(0, self.values.shape[1] - 1))
        return (from_pcm(table) * inside)[:, None]


def load_training_data(
    path: str, spec: DataSpec, *, horizontal_flip: bool = False, labeled: bool = False
) -> TrainingData:
    """Read training data into memory.

    Args:
        path: A folder, a zip archive or a Parquet file of images or sounds (see
            :func:`fastdpm.data.datasets.open_dataset`), a ``.npz`` or ``.npy`` file (see
            :func:`fastdpm.data.arrays.fit_array`), "sklearn:digits" (1,437 training rows) or
            "sklearn:digits-test" (360 held-out rows).
        spec: The expected data.
        horizontal_flip: Flip each image of a batch with probability 1/2.
        labeled: Require an integer label of every sample that has any.

    Raises:
        DataError: If the data cannot be read, is empty, or has another shape or sample rate; or a
            label is not an integer and ``labeled`` is set.
        MissingExtraError: If a package needed to read it is not installed.
    """
    if path in (DIGITS, DIGITS_TEST):
        images, digits = map(torch.from_numpy, digits_part(path))
        check_shape("digits", images.shape[1:], spec)
        return TrainingData(spec, images, labels=digits, horizontal_flip=horizontal_flip)
    array = open_array(Path(path))
    if array is not None:
        return _of_array(array, spec, horizontal_flip)
    files = list(open_dataset(path, spec.modality))
    labels = _labels(files, labeled)
    if spec.modality == "image":
        values = torch.from_numpy(np.stack([decode_image(f.name, f.data, spec) for f in files]))
        return TrainingData(spec, values, labels=labels, horizontal_flip=horizontal_flip)
    sounds = [torch.from_numpy(to_pcm(read_sound(f.name, f.data, spec))) for f in files]
    lengths = torch.tensor([len(sound) for sound in sounds], device="cpu")
    return TrainingData(spec, pad_sequence(sounds, batch_first=True), lengths, labels=labels)


def _of_array(array: LabeledArray, spec: DataSpec, horizontal_flip: bool) -> TrainingData:
    """The samples of an array, as files would hold them."""
    values = fit_array(array, spec, any_length=spec.modality == "audio")
    labels = None if array.labels is None else torch.as_tensor(array.labels, device="cpu")
    if spec.modality == "audio":
        sounds = torch.from_numpy(to_pcm(values[:, 0]))
        lengths = torch.full((len(sounds),), sounds.shape[1], device="cpu")
        return TrainingData(spec, sounds, lengths, labels=labels)
    if values.dtype != np.uint8:
        values = np.ascontiguousarray(to_pixels(torch.from_numpy(values)).transpose(0, 3, 1, 2))
    return TrainingData(
        spec, torch.from_numpy(values), labels=labels, horizontal_flip=horizontal_flip
    )


def _labels(files: Sequence[EncodedFile], labeled: bool) -> Tensor | None:
    """The labels of files, shape (n,), int64; None unless every file has an integer label."""
    labels = stored_labels([file.label for file in files])
    if labeled and labels is None and any(file.label is not None for file in files):
        wrong = next(file for file in files if stored_labels([file.label]) is None)
        raise DataError(f"{wrong.name} has label {wrong.label!r}: labels must be integers, from 0")
    return labels


def checked_labels(data: TrainingData, num_classes: int) -> Tensor:
    """The labels of the data as int64; raises DataError if there are none, or out of range."""
    if data.labels is None:
        raise DataError(
            "training with classes needs labels, but this data has none: use a Parquet file with a"
            " column 'label', or sklearn:digits"
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"labels must be in [0, {num_classes - 1}] for the {num_classes} classes of the"
            f" configuration, got {low if low < 0 else high}"
        )
    return data.labels.long()
