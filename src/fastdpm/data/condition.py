"""Conditions of samples: mel spectrograms, sound files and class labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import read_bytes
from fastdpm.data.arrays import read_array
from fastdpm.data.mel import log_mel, whole_frames
from fastdpm.data.pickled import read_pickled
from fastdpm.data.sound import read_sound
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.data.tensors import read_tensors

ClassLabels = Tensor | Sequence[int] | int


def one_condition(
    condition: Tensor | None, class_labels: ClassLabels | None, data: DataSpec
) -> Tensor | None:
    """The condition of samples, from the two arguments that can hold it.

    Raises:
        InvalidArgumentError: If both are passed, there are no classes, or the labels are not
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
            f"class labels must be in [0, {classes - 1}], got {int(outside[0])}"
        )
    return labels.long()


def read_condition(
    condition: str | None, class_labels: str | None, data: DataSpec
) -> Tensor | None:
    """Read what samples are conditioned on from the text of two options.

    Args:
        condition: For a vocoder, a file; see :func:`read_spectrogram`.
        class_labels: For a model with classes, labels separated by commas.
        data: What the model was trained on.

    Returns:
        Labels (m,), mel spectrograms (m, bands, frames), or None if neither option is set.

    Raises:
        InvalidArgumentError: If the model does not take the option, or its text does not fit.
        DataError: If the file cannot be read.
    """
    if class_labels is not None:
        if data.classes is None:
            other = "" if data.mel is None else ", and set `condition`"
            raise InvalidArgumentError(f"this model has no classes: drop `class_labels`{other}")
        if condition is None:
            return read_labels(class_labels, data.classes)
    if condition is None:
        return None
    if data.classes is not None:
        raise InvalidArgumentError(
            f"this model has classes: set `class_labels`, not `condition`, to labels from 0 to"
            f" {data.classes - 1}"
        )
    if data.mel is None:
        raise InvalidArgumentError("this model takes no condition: drop `condition`")
    return check_mel(read_spectrogram(Path(condition), data, data.mel), data.mel)


def read_labels(text: str, classes: int) -> Tensor:
    """Read labels separated by commas, such as "0,3,7", as (m,), int64.

    Raises:
        InvalidArgumentError: If they are not whole numbers below the number of classes.
    """
    try:
        labels = [int(label) for label in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(
            f"`class_labels` must be whole numbers separated by commas, such as 0,3,7, got"
            f" {text!r}"
        ) from None
    if any(abs(label) >= 2**63 for label in labels):
        raise InvalidArgumentError(f"labels must be in [0, {classes - 1}], got {text}")
    return check_labels(torch.tensor(labels), classes)


def read_spectrogram(path: Path, data: DataSpec, mel: MelSpec) -> Tensor:
    """Read the mel spectrograms of a file.

    Args:
        path: A mel spectrogram, .npy, .pt or .safetensors (tensor "mel"), shape (bands, frames) or
            (m, bands, frames), on the scale of :func:`fastdpm.data.mel.log_mel`; or a mono
            sound at the model's sample rate, padded with silence to whole frames. A .pt file
            holds one tensor, as the DiffWave authors save it (``*.wav.pt``).
        data: What the model was trained on.
        mel: The spectrogram that it takes.

    Raises:
        InvalidArgumentError: If the file does not exist, or holds no numbers.
        DataError: If it is damaged, cannot be read, or the sound has another sample rate.
    """
    if path.is_dir():
        raise InvalidArgumentError(
            f"`condition` {path} is a folder: pass one file, a sound or a mel spectrogram"
        )
    if not path.is_file():
        raise InvalidArgumentError(f"no condition at {str(path)!r}: pass a sound or mel file")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        values = read_array(path)
        if values.dtype.kind not in "fiu":
            raise InvalidArgumentError(f"{path} is not an array of numbers, got {values.dtype}")
        return torch.from_numpy(values.astype(np.float32))
    if suffix == ".safetensors":
        return read_mel(path).float()
    if suffix in (".pt", ".pth"):
        return _saved_mel(path)
    sound = read_sound(str(path), read_bytes(path), data)
    return log_mel(torch.from_numpy(whole_frames(sound, mel))[None], mel)


def _saved_mel(path: Path) -> Tensor:
    """Read a tensor that ``torch.save`` wrote, without executing code."""
    content = read_pickled(path, DataError)
    if not isinstance(content, Tensor) or not content.is_floating_point():
        kind = str(content.dtype) if isinstance(content, Tensor) else type(content).__name__
        raise InvalidArgumentError(
            f"{path} must hold one mel spectrogram, a tensor of real numbers, got {kind}"
        )
    return content.detach().float()


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
