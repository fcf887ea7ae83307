"""The loop over samples that the inverse direction shares, and what data is checked for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.models.model import Model


def check_data(model: Model, x: Tensor, *, bounded: bool = True) -> None:
    """Check that data, or the latent states of a latent model, can be a model's.

    Raises:
        InvalidArgumentError: If it is no tensor of real floating-point numbers, has another shape,
            is not finite, or leaves [-1, 1] where it is ``bounded`` and not latent.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x)
        raise InvalidArgumentError(f"data must be a tensor of floating-point numbers, got {found}")
    shape = model.sample_shape(None)
    if model.config.data.mel is not None and x.ndim == 3 and model.decoder is None:
        shape = (shape[0], x.shape[-1])  # a vocoder's sounds may have any length
    if x.ndim != len(shape) + 1 or tuple(x.shape[1:]) != shape or not x.numel():
        kind = "data" if model.decoder is None else "latent data, of its own encoder,"
        raise InvalidArgumentError(
            f"{kind} of model {model.config.name!r} has shape"
            f" (n, {', '.join(map(str, shape))}), got {tuple(x.shape)}"
        )
    if not torch.isfinite(x).all():
        raise InvalidArgumentError("the data holds values that are not finite")
    if bounded and model.decoder is None and float(x.abs().max()) > 1 + 1e-6:
        raise InvalidArgumentError(
            f"data lies in [-1, 1], got values up to {float(x.abs().max()):g}: scale it"
        )


def own_condition(model: Model, x: Tensor, condition: Tensor | None) -> Tensor | None:
    """What data is encoded, edited or judged for: as stated, a vocoder's own mel, or default.

    Raises:
        InvalidArgumentError: If the condition is missing, does not fit the model or the data's
            length.
    """
    mel = model.config.data.mel
    if condition is None and mel is not None and model.decoder is None:
        from fastdpm.data.mel import log_mel

        return log_mel(x[:, 0].float(), mel)
    several = model.conditions is not None and len(model.conditions) > 1
    if condition is None and (model.config.data.classes is not None or several):
        raise InvalidArgumentError(
            f"model {model.config.name!r} is conditioned: say what the data is of, one `condition`"
            " for all or one for each"
        )
    checked = model.check_condition(condition)
    if mel is not None and model.sample_shape(checked) != tuple(x.shape[1:]):
        raise InvalidArgumentError(
            f"the condition is of {model.sample_shape(checked)[-1]} samples of sound, the data of"
            f" {x.shape[-1]}: give both one length, a whole number of frames, or leave out"
            " `condition` to take the sound's own"
        )
    return checked


def batches(
    model: Model, x: Tensor, condition: Tensor | None, batch_size: int | None
) -> Iterator[tuple[range, Tensor, Tensor | None]]:
    """Data batch by batch on the model's device, in float64, with what each is conditioned on.

    Yields:
        The indices of a batch, its data and its conditions, number i mod m for sample i.
    """
    for first, samples in model.split(range(len(x)), batch_size, condition):
        indices = range(first, first + len(samples))
        data = x[indices.start : indices.stop].to(model.device, torch.float64)
        yield indices, data, model.condition_of(condition, indices)
