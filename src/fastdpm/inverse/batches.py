"""Checks of data and conditions, and the loop over batches, shared by this package."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.arrays import in_unit_range
from fastdpm.data.condition import ClassLabels, Condition, one_condition
from fastdpm.data.tensors import float64_device
from fastdpm.models.model import Model


def check_data(model: Model, x: Tensor, *, bounded: bool = True) -> None:
    """Check that data fits a model; for a latent model, the data is its latent states.

    Args:
        model: The model.
        x: The data.
        bounded: Whether data that is not latent must be in [-1, 1].

    Raises:
        InvalidArgumentError: If ``x`` is not a floating-point tensor, has the wrong shape, is not
            finite, or is out of range.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x)
        raise InvalidArgumentError(f"`x` must be a tensor of floating-point numbers, got {found}")
    shape = model.sample_shape(None)
    if model.config.data.mel is not None and x.ndim == 3 and model.decoder is None:
        shape = (shape[0], x.shape[-1])  # sounds of a vocoder can have any length
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape or not x.numel():
        kind = "data" if model.decoder is None else "latent states"
        raise InvalidArgumentError(
            f"`x`, {kind} of model {model.config.name!r}, must have shape"
            f" (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}"
        )
    if not torch.isfinite(x).all():
        raise InvalidArgumentError("`x` must be finite, got NaN or infinity")
    if bounded and model.decoder is None and float(x.abs().max()) > 1 + 1e-6:
        raise InvalidArgumentError(
            f"`x` must be in [-1, 1], got values up to {float(x.abs().max()):g}: scale it"
        )
    images = model.config.data.modality == "image" and model.decoder is None
    if bounded and images and in_unit_range(x):
        raise InvalidArgumentError(
            "`x` has no value below 0, but it must be in [-1, 1]: convert values in [0, 1]"
            " by 2 * x - 1"
        )


def own_condition(
    model: Model, x: Tensor, condition: Condition | None, class_labels: ClassLabels | None = None
) -> Tensor | None:
    """Resolve the condition of data.

    It is the condition or labels that were passed, else the mel spectrogram of the data for a
    vocoder, else the default of the model.

    Raises:
        InvalidArgumentError: If the condition is missing, or does not fit the model or the length
            of the data.
    """
    condition = one_condition(condition, class_labels, model.config.data, model.null_class, len(x))
    mel = model.config.data.mel
    if condition is None and mel is not None and model.decoder is None:
        from fastdpm.data.mel import log_mel

        return log_mel(x[:, 0].float(), mel)
    several = model.conditions is not None and len(model.conditions) > 1
    if condition is None and model.config.data.classes is not None:
        raise InvalidArgumentError(
            f"model {model.config.name!r} has classes: pass `class_labels`, one label or name for"
            " all samples or one per sample"
        )
    if condition is None and several:
        raise InvalidArgumentError(
            f"model {model.config.name!r} needs a condition: pass `condition`, one for all samples"
            " or one per sample"
        )
    checked = model.check_condition(condition)
    if mel is not None and model.sample_shape(checked) != tuple(x.shape[1:]):
        raise InvalidArgumentError(
            f"`condition` is {model.sample_shape(checked)[-1]} audio samples long, but the data"
            f" {x.shape[-1]}: use the same length, a whole number of frames, or drop `condition`"
            " to compute it from the data"
        )
    return checked


def batches(
    model: Model, x: Tensor, condition: Tensor | None, batch_size: int | None
) -> Iterator[tuple[range, Tensor, Tensor | None]]:
    """Iterate over data in batches.

    Yields:
        The indices of a batch, its data in float64, and its conditions (number i mod m for sample
        i), both on the model's device; the data is on the CPU if the device has no float64.
    """
    device = float64_device(model.device)
    for first, samples in model.split(range(len(x)), batch_size, condition):
        indices = range(first, first + len(samples))
        data = x[indices.start : indices.stop].to(device, torch.float64)
        yield indices, data, model.condition_of(condition, indices)
