"""Training data, held whole on the device: pictures as uint8, sound as int16."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fastdpm.core.errors import DataError
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, digits_part, open_dataset
from fastdpm.data.images import decode_image
from fastdpm.data.mel import log_mel
from fastdpm.data.pixels import from_pixels
from fastdpm.data.sound import from_pcm, read_sound, to_pcm
from fastdpm.data.spec import DataSpec, check_shape


@dataclass(frozen=True)
class TrainingData:
    """Samples on a device and how to make a batch of them.

    Attributes:
        spec: What they are.
        values: uint8 images (n, C, H, W), or int16 sound (n, longest), padded with zeros.
        lengths: Samples of each recording, shape (n,); None for images.
        horizontal_flip: Mirror half of the images.
        labels: Class of each sample, shape (n,), from 0; None where the data has none.
    """

    spec: DataSpec
    values: Tensor
    lengths: Tensor | None = None
    horizontal_flip: bool = False
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> TrainingData:
        """The same on another device."""
        moved: Any = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A random batch in [-1, 1], shape (size, ...), and its mel spectrograms or None."""
        device = self.values.device
        index = torch.randint(len(self), (size,), generator=generator, device=device)
        samples = self.pick(index, generator)
        mel = None if self.spec.mel is None else log_mel(samples[:, 0], self.spec.mel)
        return samples, mel

    def pick(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """The samples of an index (n,) in [-1, 1], mirrored or placed at random."""
        size, device = len(index), self.values.device
        if self.lengths is None:
            images = from_pixels(self.values[index])
            if self.horizontal_flip:
                mirror = torch.rand(size, 1, 1, 1, generator=generator, device=device) < 0.5
                images = torch.where(mirror, images.flip(-1), images)
            return images
        place = torch.rand(size, 1, generator=generator, device=device)
        return self.windows(index, place)

    def middle(self, index: Tensor) -> Tensor:
        """The samples of an index (n,) in [-1, 1] as they are, sounds amid their windows."""
        if self.lengths is None:
            return from_pixels(self.values[index])
        return self.windows(index, torch.full((len(index), 1), 0.5, device=index.device))

    def windows(self, index: Tensor, place: Tensor) -> Tensor:
        """Windows of recordings, shape (n, 1, window).

        ``place`` in [0, 1], shape (n, 1), moves the window over a longer recording, or a shorter
        recording within the silence that fills the window.
        """
        if self.lengths is None:
            raise DataError("windows are cut from sound, and this data is images")
        window = self.spec.shape[-1]
        lengths = self.lengths[index][:, None]
        spare = lengths - window
        start = spare.clamp_max(0) + (place * (spare.abs() + 1)).long().clamp_max(spare.abs())
        position = start + torch.arange(window, device=index.device)
        inside = (position >= 0) & (position < lengths)
        table = self.values[index].gather(1, position.clamp(0, self.values.shape[1] - 1))
        return (from_pcm(table) * inside)[:, None]


def load_training_data(
    path: str, spec: DataSpec, *, horizontal_flip: bool = False
) -> TrainingData:
    """Read training data into memory.

    Args:
        path: A Parquet file with a column ``image`` or ``audio`` of encoded files, a folder or a
            zip archive of such files, "sklearn:digits" (all but its last 360 rows), or
            "sklearn:digits-test" (those, which are held out).
        spec: What the samples must be.
        horizontal_flip: Mirror half of the images in every batch.

    Raises:
        DataError: If the data cannot be read, is empty, or has another shape or sample rate.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    if path in (DIGITS, DIGITS_TEST):
        images, digits = map(torch.from_numpy, digits_part(path))
        check_shape("digits", images.shape[1:], spec)
        return TrainingData(spec, images, labels=digits, horizontal_flip=horizontal_flip)
    files = list(open_dataset(path, spec.modality))
    labels = _labels([file.label for file in files])
    if spec.modality == "image":
        values = torch.from_numpy(np.stack([decode_image(f.name, f.data, spec) for f in files]))
        return TrainingData(spec, values, labels=labels, horizontal_flip=horizontal_flip)
    sounds = [torch.from_numpy(to_pcm(read_sound(f.name, f.data, spec))) for f in files]
    lengths = torch.tensor([len(sound) for sound in sounds])
    return TrainingData(spec, pad_sequence(sounds, batch_first=True), lengths, labels=labels)


def _labels(found: list[int | None]) -> Tensor | None:
    labels = [label for label in found if label is not None]
    return torch.tensor(labels) if len(labels) == len(found) else None
