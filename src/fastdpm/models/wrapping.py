"""The configuration of a network that exists only in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig


def wrapped_config(
    network: nn.Module,
    schedule: VarianceSchedule,
    shape: Sequence[int],
    *,
    name: str,
    sample_rate: int | None,
    classes: int | None,
    class_names: Sequence[str] | None,
    prediction: str,
    time_scale: float,
    recipe: Recipe | None,
    settings: dict[str, Any] | None,
) -> ModelConfig:
    """Describe a network; for the arguments, see :meth:`fastdpm.Model.wrap`.

    Raises:
        InvalidArgumentError: If an argument is invalid or does not fit the others, or the network
            is in training mode.
    """
    if not isinstance(network, nn.Module):
        raise InvalidArgumentError(
            f"`network` must be a torch.nn.Module, got {type(network).__name__}: pass a plain"
            " function to fastdpm.run, or call it in the forward method of a module"
        )
    if any(module.training for module in network.modules()):
        raise InvalidArgumentError(
            "`network`, or a part of it, is in training mode: call network.eval() first"
        )
    if reserved := {"type", "class", "null_class"} & (settings or {}).keys():
        raise InvalidArgumentError(
            f"`settings` must not contain {' or '.join(sorted(reserved))}: rename it"
        )
    modality = "image" if len(shape) == 3 else "audio" if sample_rate else "series"
    names = None if class_names is None else tuple(class_names)
    return ModelConfig(
        name=name,
        network={"type": "custom", "class": type(network).__name__, **(settings or {})},
        schedule=schedule.config,
        data=DataSpec(modality, tuple(shape), sample_rate, classes=classes, class_names=names),
        recipe=recipe or Recipe(num_steps=min(20, schedule.num_train_steps)),
        prediction=prediction,
        time_scale=time_scale,
    )
