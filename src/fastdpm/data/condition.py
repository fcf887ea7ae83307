"""What samples are conditioned on: a sound file, a mel spectrogram, or labels of classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.mel import log_mel, whole_frames
from fastdpm.data.sound import read_sound
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.data.tensors import read_tensors

ClassLabels = Tensor | Sequence[int] | int


def one_condition(
    condition: Tensor | None, class_labels: ClassLabels | None, data: DataSpec
) -> Tensor | None:
    """The condition of samples, from the two arguments that can hold it.

    Raises:
        InvalidArgumentError: If both are passed, there are no classes, or the labels are no
            numbers.
    """
    if class_labels is None:
        return condition
    if condition is not None:
        raise InvalidArgumentError("pass `condition` or `class_labels`, not both")
    if data.classes is None:
        raise InvalidArgumentError("the model has no classes: drop `class_labels`")
    try:
        return torch.as_tensor(class_labels)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgumentError(
            f"`class_labels` must be integers, got {class_labels!r}"
        ) from None


def check_mel(condition: Tensor, mel: MelSpec) -> Tensor:
    """Mel spectrograms as (m, bands, frames), float32.

    Raises:
        InvalidArgumentError: If they are of another shape, or hold values that are not finite.
    """
    batched = condition[None] if condition.ndim == 2 else condition
    least = mel.n_fft // mel.hop_length
    if batched.ndim != 3 or batched.shape[1] != mel.bands or batched.shape[2] < least:
        raise InvalidArgumentError(
            f"a condition must have shape (m, {mel.bands}, {least} or more frames),"
            f" got {tuple(condition.shape)}"
        )
    if not torch.isfinite(batched).all():
        raise InvalidArgumentError("the condition holds values that are not finite")
    return batched.float()


def check_labels(condition: Tensor, classes: int) -> Tensor:
    """Labels of classes as (m,), int64.

    Raises:
        InvalidArgumentError: If they are no whole numbers, or there are no such classes.
    """
    labels = condition.reshape(1) if condition.ndim == 0 else condition
    whole = not labels.is_floating_point() and not labels.is_complex()
    if labels.ndim != 1 or not len(labels) or not whole:
        raise InvalidArgumentError(
            f"labels must be whole numbers of shape (m,), got {labels.dtype} of shape"
            f" {tuple(labels.shape)}"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InvalidArgumentError(f"labels must lie in [0, {classes - 1}], got {int(outside[0])}")
    return labels.long()


def read_condition(value: str, data: DataSpec) -> Tensor:
    """Read a condition as it is written on a command line.

    Args:
        value: Labels separated by commas where there are classes. For a vocoder a file: a mel
            spectrogram, .npy or .safetensors (tensor "mel"), shape (bands, frames) or
            (m, bands, frames), on the scale of :func:`fastdpm.data.mel.log_mel`; or a mono
            sound at the model's sample rate, padded with silence to whole frames.
        data: What the model was trained on.

    Returns:
        Shape (m,) or (m, bands, frames).

    Raises:
        InvalidArgumentError: If the file does not exist, or holds another shape or sample rate.
        DataError: If it cannot be read.
    """
    if data.classes is not None:
        try:
            labels = [int(label) for label in value.split(",")]
        except ValueError:
            raise InvalidArgumentError(
                f"the condition of a model with classes is labels such as 0,3,7, got {value!r}"
            ) from None
        return torch.tensor(labels)
    if data.mel is None:
        raise InvalidArgumentError("this model takes no condition: drop `condition`")
    path = Path(value)
    if not path.is_file():
        raise InvalidArgumentError(f"no condition at {str(path)!r}: give a sound or mel file")
    if path.suffix == ".npy":
        try:
            mel = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (ValueError, EOFError, TypeError) as error:
            raise InvalidArgumentError(f"{path} is not an array of numbers: {error}") from None
    elif path.suffix == ".safetensors":
        mel = read_mel(path).float()
    else:
        sound = read_sound(str(path), path.read_bytes(), data)
        mel = log_mel(torch.from_numpy(whole_frames(sound, data.mel))[None], data.mel)
    return mel[None] if mel.ndim == 2 else mel


def read_mel(path: Path) -> Tensor:
    """Read the mel spectrograms of a safetensors file, its tensor "mel".

    Raises:
        ModelError: If the file is damaged.
        InvalidArgumentError: If it holds no such tensor.
    """
    tensors = read_tensors(path)
    if "mel" not in tensors:
        raise InvalidArgumentError(f"{path} holds no tensor 'mel', only {sorted(tensors)}")
    return tensors["mel"]
