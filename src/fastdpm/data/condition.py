"""Conditions of samples: mel spectrograms, sound files and class labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import read_bytes
from fastdpm.data.arrays import read_array
from fastdpm.data.mel import log_mel, whole_frames
from fastdpm.data.pickled import read_pickled
from fastdpm.data.sound import read_sound
from fastdpm.data.spec import NO_CLASS, DataSpec, MelSpec
from fastdpm.data.tensors import read_tensors

ClassLabels = Tensor | NDArray[Any] | Sequence[int | str] | int | str
"""Labels or names of classes, one or several."""
Condition = Tensor | NDArray[Any] | Sequence[Any] | float | str
"""Conditions of samples, one or several: class labels, mel spectrograms, or numbers."""

_LISTED = 100  # names of classes that a message of an error lists
_NAMED = 10  # that other messages list
_NUMBER = re.compile(r"[+-]?\d{1,18}")  # which int64 can hold


def one_condition(
    condition: Condition | None,
    class_labels: ClassLabels | None,
    data: DataSpec,
    null_class: int | None,
    n: int | None = None,
) -> Condition | None:
    """The condition of ``n`` samples, from the two arguments that can hold it.

    Args:
        condition: As it was passed.
        class_labels: Labels or names of classes; they are returned as :func:`as_labels` does.
        data: The data of the model.
        null_class: The label of "no class", or None if the model has no such label.
        n: Number of samples; None if it is not known.

    Raises:
        InvalidArgumentError: If both are passed, there are no classes, a class does not exist, or
            there are more labels than samples.
    """
    if class_labels is None:
        return condition
    if condition is not None:
        raise InvalidArgumentError("pass `condition` or `class_labels`, not both")
    if data.classes is None:
        raise InvalidArgumentError("the model has no classes: drop `class_labels`")
    labels = as_labels(class_labels, data, null_class)
    if n is not None and len(labels) > n:
        raise InvalidArgumentError(
            f"`class_labels` must be at most one per sample, {n}, got {len(labels)}"
        )
    return labels


def as_tensor(condition: Condition) -> Tensor:
    """A condition as a tensor; numbers in lists become int64 or float32.

    Raises:
        InvalidArgumentError: If it does not hold numbers.
    """
    try:
        return torch.as_tensor(condition, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgumentError(
            f"`condition` must hold numbers of equal shapes, got {condition!r}"
        ) from None


def as_labels(labels: Condition, data: DataSpec, null_class: int | None) -> Tensor:
    """Class labels as a tensor (m,), int64.

    Args:
        labels: Labels, or names of classes, one or several. The name "none", and no number, is
            the class that stands for "no class".
        data: The data of the model, with its number of classes and their names.
        null_class: The label of "no class", or None if the model has no such label.

    Raises:
        InvalidArgumentError: If there is no such class.
    """
    several = [labels] if isinstance(labels, str) else labels
    if isinstance(several, np.ndarray):
        several = several.tolist() if several.ndim else [several.item()]
    none: list[bool] = []
    if isinstance(several, Sequence):
        none = [isinstance(label, str) and label.lower() == NO_CLASS for label in several]
        if any(none) and null_class is None:
            raise InvalidArgumentError(_unknown(NO_CLASS, data, null_class))
        several = [
            0 if is_none else _label_of(label, data, null_class)
            for label, is_none in zip(several, none, strict=True)
        ]
    try:
        found = torch.as_tensor(several, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise InvalidArgumentError(f"`class_labels` must be integers, got {labels!r}") from None
    found = check_labels(found, data, null_class)
    if null_class is not None and any(none):
        found[torch.tensor(none, device="cpu")] = null_class
    return found


def _label_of(label: Any, data: DataSpec, null_class: int | None) -> Any:
    """The label of a class by its name, or by its number as text; anything else as it is."""
    if isinstance(label, bool):
        raise InvalidArgumentError(f"`class_labels` must be names or integers, got {label}")
    if not isinstance(label, str):
        return label
    lower = [known.lower() for known in data.class_names or ()]
    if label.lower() in lower:
        return lower.index(label.lower())
    if not _NUMBER.fullmatch(label):
        raise InvalidArgumentError(_unknown(label, data, null_class))
    return int(label)


def _unknown(name: object, data: DataSpec, null_class: int | None) -> str:
    """The message for a class that does not exist."""
    names = data.class_names or ()
    listed = [*names[:_LISTED], *(["..."] if len(names) > _LISTED else [])]
    choices = ", ".join([*listed, f"a number in [0, {(data.classes or 0) - 1}]"])
    none = "" if null_class is None else f", or {NO_CLASS} (no class)"
    lacking = str(name).lower() == NO_CLASS
    why = ", because the model was trained without a null class" if lacking else ""
    one_of = "one of " if names else ""
    return f"no class {name} in `class_labels`{why}: choose {one_of}{choices}{none}"


def describe_labels(labels: Sequence[int], data: DataSpec) -> str:
    """The classes of labels in words, each once, such as "cat, dog, none"."""
    known = data.class_names or tuple(map(str, range(data.classes or 0)))
    names = [known[label] if label < len(known) else NO_CLASS for label in dict.fromkeys(labels)]
    return ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])


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


def check_labels(
    condition: Tensor, data: DataSpec, null_class: int | None, *, allow_null: bool = False
) -> Tensor:
    """Check class labels and return them as int64.

    Args:
        condition: Integer labels in [0, classes), shape () or (m,).
        data: The data of the model, with its number of classes.
        null_class: The label of "no class", or None if the model has no such label.
        allow_null: Whether that label can be among them.

    Returns:
        Shape (m,).

    Raises:
        InvalidArgumentError: If the labels are not integers, or out of range.
    """
    labels = condition.reshape(1) if condition.ndim == 0 else condition
    kind = labels.dtype
    integers = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    if labels.ndim != 1 or not len(labels) or not integers:
        raise InvalidArgumentError(
            f"`class_labels` must be integers of shape (m,), got {labels.dtype} of shape"
            f" {tuple(labels.shape)}"
        )
    outside = (labels < 0) | (labels >= (data.classes or 0))
    if allow_null and null_class is not None:
        outside &= labels != null_class
    if outside.any():
        raise InvalidArgumentError(_unknown(int(labels[outside][0]), data, null_class))
    return labels.long()


def stored_labels(labels: Sequence[Any]) -> Tensor | None:
    """Labels as data sets store them, as int64, shape (n,); None unless all are integers."""
    if not all(type(label) is int and abs(label) < 2**63 for label in labels):
        return None
    return torch.tensor(labels, dtype=torch.int64, device="cpu")


def read_condition(
    condition: str | None,
    class_labels: str | None,
    data: DataSpec,
    null_class: int | None = None,
) -> Tensor | None:
    """Read what samples are conditioned on from the text of two options.

    Args:
        condition: For a vocoder, a file; see :func:`read_spectrogram`.
        class_labels: For a model with classes, names or labels separated by commas.
        data: What the model was trained on.
        null_class: The label of "no class", or None if the model has no such label.

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
            names = [name.strip() for name in class_labels.split(",")]
            return as_labels(names, data, null_class)
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
