"""Checks of what users pass to a model: plans, conditions and guidance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceScale
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import Condition, as_labels, as_tensor, check_labels, check_mel
from fastdpm.models.config import ModelConfig


def as_condition(
    config: ModelConfig,
    condition: Condition,
    defaults: Tensor | None,
    null_class: int | None,
) -> Tensor:
    """Check conditions of a model and return them with shape (m, ...).

    Args:
        config: Configuration of the model.
        condition: Labels or names of classes, mel spectrograms, or conditions shaped like the
            default ones; one or several. A tensor of labels is what the network takes: it can
            hold the label of "no class", which is otherwise named "none".
        defaults: The model's default conditions, (m, ...), or None.
        null_class: The label of "no class", or None.

    Raises:
        InvalidArgumentError: If they are not supported, or of the wrong shape.
    """
    data = config.data
    if data.classes is not None:
        if isinstance(condition, Tensor):
            return check_labels(condition.cpu(), data, null_class, allow_null=True)
        return as_labels(condition, data, null_class)
    found = as_tensor(condition)
    if data.mel is not None:
        return check_mel(found, data.mel)
    if defaults is None:
        raise InvalidArgumentError(f"model {config.name!r} takes no condition: drop `condition`")
    if found.shape == defaults.shape[1:]:
        found = found[None]
    if found.shape[1:] != defaults.shape[1:] or not found.ndim or not len(found):
        raise InvalidArgumentError(
            f"a condition of model {config.name!r} must have shape"
            f" (m, {', '.join(map(str, defaults.shape[1:]))}), got {tuple(found.shape)}"
        )
    same_kind = found.is_floating_point() == defaults.is_floating_point()
    return found.to(defaults.dtype) if same_kind else found


def unconditional_of(
    config: ModelConfig, unconditional: Tensor | None, conditions: Tensor | None
) -> Tensor | None:
    """The condition that stands for no condition, with shape (1, ...); None if there is none.

    Args:
        config: Configuration of the model.
        unconditional: Shape (1, ...) or (...); by default the null class, if the network has one.
        conditions: The model's default conditions, (m, ...), or None.

    Raises:
        InvalidArgumentError: If it does not have the shape of one condition.
    """
    if unconditional is None:
        return None if config.null_class is None else torch.tensor([config.null_class])
    if conditions is None:
        raise InvalidArgumentError(
            "`unconditional` needs `conditions` or `classes`, of which it is the absence: set one"
            " of them, or drop it"
        )
    shape = conditions.shape[1:]
    found = unconditional[None] if unconditional.shape == shape else unconditional
    if found.shape != (1, *shape):
        raise InvalidArgumentError(
            f"`unconditional` must have the shape of one condition, {tuple(shape)}, got"
            f" {tuple(unconditional.shape)}"
        )
    return found


def null_of(classes: int | None, unconditional: Tensor | None) -> Tensor:
    """The label of the null class of a wrapped network, shape (1,).

    Raises:
        InvalidArgumentError: If there are no classes, or ``unconditional`` is set as well.
    """
    if classes is None or unconditional is not None:
        raise InvalidArgumentError(
            "`null_class` needs `classes` and replaces `unconditional`: set `classes` and drop"
            " `unconditional`, or drop `null_class`"
        )
    return torch.tensor([classes])


def cannot_be_guided(config: ModelConfig) -> InvalidArgumentError:
    """The error for guidance of a model without a condition that stands for no condition."""
    advice = "drop `guidance_scale`"
    if config.data.classes is not None:
        reason = "was trained without a null class"
    else:
        reason = "has no condition that stands for no condition"
    if config.network["type"] == "custom":
        advice += ", or set `null_class` or `unconditional` in Model.wrap"
    elif config.data.classes is not None:
        advice += ", or train with null_class and label_dropout"
    return InvalidArgumentError(
        f"model {config.name!r} {reason}, so it cannot be guided: {advice}"
    )


def usable_guidance(
    config: ModelConfig,
    guidance: GuidanceScale,
    unconditional: Tensor | None,
    condition: Tensor | None,
) -> GuidanceScale:
    """Check guidance, and leave it out where it has no effect: without any condition.

    Args:
        config: Configuration of the model.
        guidance: The scale of guidance.
        unconditional: The condition that stands for no condition, or None.
        condition: Checked conditions of all samples, or None.

    Raises:
        InvalidArgumentError: If the model cannot be guided.
    """
    if guidance.enabled and unconditional is None:
        raise cannot_be_guided(config)
    if unconditional is None or condition is None:
        return guidance
    without = bool((condition.to(unconditional.device) == unconditional).all())
    return NO_GUIDANCE if without else guidance


def check_plan(name: str, schedule: VarianceSchedule, plan: Plan | NoiseLevels) -> None:
    """Check that a plan or noise levels belong to the schedule of a model.

    Args:
        name: Name of the model.
        schedule: Its schedule.
        plan: The plan or levels.

    Raises:
        InvalidArgumentError: If the level of a row is not the level of its step.
    """
    if isinstance(plan, Plan) and plan.level[-1] < plan.level[0]:
        raise InvalidArgumentError(
            f"{plan.label} leads from data to noise, so nothing can be sampled by it: pass its"
            " levels to fastdpm.encode"
        )
    expected = plan.network_level if isinstance(plan, Plan) else plan.level[:-1]
    inside = (plan.t > -1) & (plan.t <= schedule.num_train_steps - 1)
    level = schedule.R(np.clip(plan.t + 1, 0, schedule.num_train_steps))
    apart = np.abs(level - expected) > 1e-6
    if isinstance(plan, Plan) and plan.rounding:
        step = schedule.T(np.clip(expected, schedule.levels[-1], 1)) - 1
        apart &= np.abs(step - plan.t) > plan.rounding + 1e-6
    wrong = ~inside | apart
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InvalidArgumentError(
            f"row {row} of the plan has level {expected[row]:.6g} at step {plan.t[row]:.6g},"
            f" which does not match the schedule of model {name!r}: compile the plan for this"
            " model's schedule"
        )


def check_unused(choices: Mapping[str, object], beside: str) -> None:
    """Raise InvalidArgumentError if any choice of a recipe is set beside what decides it."""
    idle = [f"`{name}`" for name, value in choices.items() if value is not None]
    if idle:
        raise InvalidArgumentError(
            f"{' and '.join(idle)} would have no effect with {beside}: drop one or the other"
        )


def check_no_condition_needed(config: ModelConfig) -> None:
    """Raise InvalidArgumentError if a model needs a condition."""
    mel = config.data.mel
    if mel is not None:
        raise InvalidArgumentError(
            f"model {config.name!r} needs a condition: a mel spectrogram of {mel.bands} bands, or"
            f" a sound at {mel.sample_rate} Hz"
        )
