"""The loop over samples that all of the inverse direction shares."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.models.model import Model


def own_condition(model: Model, x: Tensor, condition: Tensor | None) -> Tensor | None:
    """What data is edited or judged for: as stated, a vocoder's own mel spectrogram, or default.

    Raises:
        InvalidArgumentError: If the condition is missing, or does not fit the model or the data's
            length.
    """
    mel = model.config.data.mel
    if condition is None and mel is not None and model.decoder is None:
        from fastdpm.data.mel import log_mel

        condition = log_mel(x[:, 0].float(), mel)
    several = model.conditions is not None and len(model.conditions) > 1
    if condition is None and (model.config.data.classes is not None or several):
        raise InvalidArgumentError(
            f"model {model.config.name!r} is conditioned: say what the data is of, one condition"
            " for all or one for each"
        )
    checked = model.check_condition(condition)
    if mel is not None and model.sample_shape(checked) != tuple(x.shape[1:]):
        raise InvalidArgumentError(
            f"the condition is of {model.sample_shape(checked)[-1]} samples of sound, the data of"
            f" {x.shape[-1]}: give both one length, a whole number of frames"
        )
    return checked


def batches(
    model: Model, x: Tensor, condition: Tensor | None, batch_size: int | None
) -> Iterator[tuple[range, Tensor, Tensor | None]]:
    """Data batch by batch on the model's device, in float64, with what each is conditioned on.

    Yields:
        The indices of a batch, its data and its conditions, number i mod m for sample i.
    """
    size = model.batch_size(batch_size, condition)
    for first in range(0, len(x), size):
        indices = range(first, min(first + size, len(x)))
        chosen = None
        if condition is not None:
            chosen = condition[[i % len(condition) for i in indices]].to(model.device)
        yield indices, x[first : first + size].to(model.device, torch.float64), chosen
