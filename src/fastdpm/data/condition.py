"""Conditions of samples: mel spectrograms, sound files and class labels."""

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
    """Check mel spectrograms and return them as a float32 batch.

    Args:
        condition: Shape (bands, frames) or (m, bands, frames).
        mel: The spectrogram that the model expects.

    Returns:
        Shape (m, bands, frames).

    Raises:
        InvalidArgumentError: If the shape is wrong, or a value is not finite.
    """
    batched = condition[None] if condition.ndim == 2 else condition
    min_frames = mel.n_fft // mel.hop_length
    if batched.ndim != 3 or batched.shape[1] != mel.bands or batched.shape[2] < min_frames:
        raise InvalidArgumentError(
            f"`condition` must have shape (m, {mel.bands}, {min_frames} or more frames),"
            f" got {tuple(condition.shape)}"
        )
    if not torch.isfinite(batched).all():
        raise InvalidArgumentError(
            "`condition` holds values that are not finite (NaN or infinity): compute it again"
        )
    return batched.float()


def check_labels(condition: Tensor, classes: int) -> Tensor:
    """Check class labels and return them as int64.

    Args:
        condition: Integer labels in [0, classes), shape () or (m,).
        classes: Number of classes.

    Returns:
        Shape (m,).

    Raises:
        InvalidArgumentError: If the labels are not integers, or out of range.
    """
    labels = condition.reshape(1) if condition.ndim == 0 else condition
    integers = not labels.is_floating_point() and not labels.is_complex()
    if labels.ndim != 1 or not len(labels) or not integers:
        raise InvalidArgumentError(
            f"class labels must be integers of shape (m,), got {labels.dtype} of shape"
            f" {tuple(labels.shape)}"
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    if len(outside):
        raise InvalidArgumentError(
            f"class labels must lie in [0, {classes - 1}], got {int(outside[0])}"
        )
    return labels.long()


def read_condition(value: str, data: DataSpec) -> Tensor:
    """Read a condition from its text on the command line.

    Args:
        value: For a model with classes, labels separated by commas. For a vocoder, the path of
            a mel spectrogram or of a sound. A spectrogram is a .npy file or a .safetensors file
            with a tensor "mel", shape (bands, frames) or (m, bands, frames), on the scale of
            :func:`fastdpm.data.mel.log_mel`. A sound is mono and at the model's sample rate; it
            is padded with silence to whole frames.
        data: The data of the model.

    Returns:
        Labels (m,), int64, or spectrograms (m, bands, frames), float32.

    Raises:
        InvalidArgumentError: If the model takes no condition, the labels are not integers, or the
            file does not exist or holds no array.
        DataError: If the sound cannot be read or has the wrong sample rate.
        ModelError: If a .safetensors file is damaged.
    """
    if data.classes is not None:
        try:
            labels = [int(label) for label in value.split(",")]
        except ValueError:
            raise InvalidArgumentError(
                f"class labels must be integers separated by commas, such as 0,3,7, got {value!r}"
            ) from None
        return torch.tensor(labels)
    if data.mel is None:
        raise InvalidArgumentError("this model takes no condition: remove `condition`")
    path = Path(value)
    if not path.is_file():
        raise InvalidArgumentError(
            f"`condition`: no file at {str(path)!r}: pass the path of a sound or of a mel"
            " spectrogram"
        )
    if path.suffix == ".npy":
        try:
            mel = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        except (ValueError, EOFError, TypeError) as error:
            raise InvalidArgumentError(f"{path} holds no array of numbers: {error}") from None
    elif path.suffix == ".safetensors":
        mel = read_mel(path).float()
    else:
        sound = read_sound(str(path), path.read_bytes(), data)
        mel = log_mel(torch.from_numpy(whole_frames(sound, data.mel))[None], data.mel)
    return mel[None] if mel.ndim == 2 else mel


def read_mel(path: Path) -> Tensor:
    """Read the tensor "mel" of a safetensors file.

    Raises:
        ModelError: If the file is damaged.
        InvalidArgumentError: If it holds no tensor "mel".
    """
    tensors = read_tensors(path)
    if "mel" not in tensors:
        raise InvalidArgumentError(
            f"{path} holds no tensor 'mel', only {sorted(tensors)}: save the spectrogram as 'mel'"
        )
    return tensors["mel"]
