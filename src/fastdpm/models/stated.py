"""What a checkpoint itself states about its model, in place of what a preset says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fastdpm.core.errors import InvalidArgumentError, ModelError
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.structure import changed
from fastdpm.core.text import shortened
from fastdpm.models.config import ModelConfig
from fastdpm.models.formats.betas import describe_schedule, same_schedule, schedule_of_betas
from fastdpm.models.formats.format import Format
from fastdpm.models.formats.states import Weights
from fastdpm.networks.build import check_fits


def stated_by(path: Path, form: Format, content: Any, weights: Weights) -> dict[str, Any]:
    """Values of a model configuration that a file states, as nested tables.

    Args:
        path: The file, for messages.
        form: Its format.
        content: What it contains.
        weights: The weights. A buffer "betas" beside them is the schedule.

    Raises:
        ModelError: If a value is unusable.
    """
    beside = weights.beside.items()
    betas = [t for name, t in beside if name == "betas" or name.endswith(".betas")]
    try:
        stated = form.stated(content)
        if betas and betas[0].is_floating_point():
            stated["schedule"] = schedule_of_betas(betas[0].double().numpy())
    except InvalidArgumentError as error:
        raise _unusable(path, error) from None
    return stated


def overridden(
    path: Path, config: ModelConfig, stated: dict[str, Any]
) -> tuple[ModelConfig, nn.Module, tuple[str, ...]]:
    """Replace the values of a configuration that a file states.

    Returns:
        The configuration, its network on PyTorch's meta device, and notes on what was replaced.

    Raises:
        ModelError: If the values contradict each other or the network.
    """
    old = config.to_dict()
    try:
        if "schedule" in stated and same_schedule(old["schedule"], stated["schedule"]):
            stated = {name: value for name, value in stated.items() if name != "schedule"}
        new = _merged(old, stated)
        total = VarianceSchedule.from_config(new["schedule"]).num_train_steps
        new["recipe"] |= {"num_steps": min(new["recipe"]["num_steps"], total)}
        config = ModelConfig.from_dict(new)
        network = check_fits(config.network, config.data)
    except InvalidArgumentError as error:
        raise _unusable(path, error) from None
    changes = "; ".join(_changes(old, config.to_dict()))
    return config, network, (f"{path.name} itself states {changes}",) if changes else ()


def _unusable(path: Path, error: InvalidArgumentError) -> ModelError:
    return ModelError(
        f"{path} states values that cannot be used ({error}): save the weights alone, and open"
        " them with a preset"
    )


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables with the values of ``new``; None removes a key. A schedule is replaced."""
    merged = dict(old)
    for name, value in new.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and name != "schedule":
            merged[name] = _merged(merged.get(name) or {}, value)
        else:
            merged[name] = value
    return merged


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """What differs between two configurations, in words."""
    for name, before, now in changed(old, new, whole=["schedule"]):
        if name == "schedule":
            yield f"{describe_schedule(now)} (preset: {describe_schedule(before)})"
        else:
            yield f"{name} = {shortened(now)} (preset: {shortened(before)})"
