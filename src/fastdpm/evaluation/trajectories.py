"""The trajectories of a model, from which GITS chooses levels; kept in the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from fastdpm.core.gits import TrajectoryCosts, levels_gits
from fastdpm.core.guidance import GuidanceScale
from fastdpm.core.methods import GitsRecipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.tensors import tensor_digest
from fastdpm.evaluation.cache import digest, versions
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.methods import Method
from fastdpm.evaluation.options import MeasureOptions
from fastdpm.evaluation.sources import bar_if
from fastdpm.models.trajectories import trajectory_costs

_VERSION = 1  # increase it if the costs of the same trajectories change
_COUNT, _NUM_STEPS = 64, 60
COST = (_COUNT, _NUM_STEPS)
"""Trajectories that are drawn for a model, and network evaluations of each."""
_SEED = 2**63  # no one measures samples of this seed


def with_trajectories(
    methods: Sequence[Method],
    handle: ModelHandle,
    schedule: VarianceSchedule,
    draw: DrawOptions,
    clip: str,
    guidance: GuidanceScale,
    settings: MeasureOptions,
) -> tuple[Method, ...]:
    """The methods, of which those of GITS know the levels of the model.

    The first time, this draws 64 trajectories of 60 network evaluations.
    """
    if not any(isinstance(method, GitsRecipe) for method in methods):
        return tuple(methods)
    costs = _costs(handle, draw, clip, guidance, settings)
    choose = partial(levels_gits, schedule, costs=costs)
    return tuple(
        replace(method, choose=choose) if isinstance(method, GitsRecipe) else method
        for method in methods
    )


def drawn_trajectories(
    handle: ModelHandle,
    draw: DrawOptions,
    clip: str,
    guidance: GuidanceScale,
    settings: MeasureOptions,
) -> bool:
    """Whether the trajectories of a model are in the cache."""
    key = _key(handle, draw.for_model(handle), clip, guidance)
    return settings.cache.record("trajectories", key) is not None


def _key(handle: ModelHandle, draw: DrawOptions, clip: str, guidance: GuidanceScale) -> str:
    condition = None if draw.condition is None else handle.check_condition(draw.condition)
    stated = [] if condition is None else [tensor_digest(condition)]
    about = [_VERSION, handle.key, clip, guidance.describe(), draw.precision, *stated]
    return digest(*about, _COUNT, _NUM_STEPS, versions("fastdpm", "torch", "numpy"))


def _costs(
    handle: ModelHandle,
    draw: DrawOptions,
    clip: str,
    guidance: GuidanceScale,
    settings: MeasureOptions,
) -> TrajectoryCosts:
    key = _key(handle, draw, clip, guidance)
    record = settings.cache.record("trajectories", key)
    if record is not None:
        return TrajectoryCosts.from_dict(record)
    condition = None if draw.condition is None else handle.check_condition(draw.condition)
    with bar_if(settings.progress) as bar:
        costs = trajectory_costs(
            handle.model,
            n=_COUNT,
            num_steps=_NUM_STEPS,
            seed=_SEED,
            clip=clip,
            guidance_scale=guidance,
            batch_size=draw.batch_size,
            precision=draw.precision,
            condition=condition,
            callback=bar,
        )
    settings.cache.write_record("trajectories", key, costs.to_dict())
    return costs
