"""The cells of a comparison before they are measured: methods, values of S, and guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError, whole_number
from fastdpm.core.guidance import GuidanceScale
from fastdpm.core.methods import OWN, NamedRecipe
from fastdpm.core.recipe import Recipe
from fastdpm.core.recipes import read_recipes
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.cache import digest
from fastdpm.evaluation.diffusers_samplers import DiffusersMethod
from fastdpm.evaluation.drawn import Drawer
from fastdpm.evaluation.methods import Method, open_drawer, steps_of
from fastdpm.evaluation.results import Cell
from fastdpm.models.config import ModelConfig
from fastdpm.models.presets import CompareSettings

Scales = float | GuidanceScale | Sequence[float | GuidanceScale]
"""Scales of guidance of a comparison, one or several."""
Recipes = Mapping[str, Recipe] | str | Path
"""Recipes of one's own by name, or a file of them; see :func:`fastdpm.core.read_recipes`."""

_STEPS = (5, 10, 20, 50)


def recipes_of(more: Recipes | None, config: ModelConfig) -> dict[str, Recipe]:
    """The recipes of the model, and more of the user's own, by name."""
    if more is not None and not isinstance(more, Mapping):
        more = read_recipes(more, config.recipe)
    return {**(config.recipes or {}), **(more or {})}


def guidances_of(scales: Scales | None, recipe: Recipe) -> list[GuidanceScale]:
    """The scales of guidance to measure, each once; the recipe's if there are none.

    The interval and the rescaling of the recipe are kept.
    """
    if scales is None:
        return [recipe.guidance]
    several = [scales] if isinstance(scales, int | float | GuidanceScale) else list(scales)
    if not several:
        raise InvalidArgumentError("`guidance_scale` must have at least one number, got none")
    found = [
        scale
        if isinstance(scale, GuidanceScale)
        else recipe.replace(guidance_scale=scale).guidance
        for scale in several
    ]
    return list(dict.fromkeys(found))


def counts_of(
    steps: Sequence[int] | None, table: CompareSettings | None, total: int
) -> Sequence[int]:
    """The values of S, rising; the defaults up to T, or T alone if that is below all of them.

    Raises:
        InvalidArgumentError: If a value that was set is outside [1, T].
    """
    if steps is None and table is None:
        return [count for count in _STEPS if count <= total] or [total]
    chosen = table.steps if steps is None and table is not None else steps
    counts = [whole_number("steps", count) for count in (() if chosen is None else chosen)]
    for count in counts:
        if not 1 <= count <= total:
            raise InvalidArgumentError(f"`steps` (S) must be in [1, {total}] (T), got {count}")
    return sorted(set(counts))


def make_grid(
    methods: Sequence[Method],
    steps: Sequence[int],
    guidances: Sequence[GuidanceScale],
    schedule: VarianceSchedule,
    clip: str,
    n: int,
    reference_n: int,
) -> list[tuple[Cell, Drawer | None]]:
    """Every method at every S and guidance; the standard samplers take all T steps instead."""
    grid = []
    for method, guidance in product(methods, guidances):
        all_steps, text = method.takes_all_steps, guidance.describe()
        for count in steps_of(method, schedule, steps):
            drawer, recipe, failed = None, None, None
            try:
                drawer = open_drawer(method, schedule, count, clip, guidance)
                recipe = _recipe_of(method, count, schedule, clip, guidance)
            except InvalidArgumentError as error:
                failed = str(error)
            plan = drawer.plan if drawer else None
            size = reference_n if all_steps else n
            cell = Cell(
                id=digest(method.key, count, size, *([text] if text else []))[:12],
                method=method.key,
                family=method.family,
                group=method.group,
                choice=", ".join(filter(None, (method.choice, text))),
                num_steps=count,
                n=size,
                notes=(*_replaced(method, clip), *(plan.notes if plan else ())),
                plan=plan.fingerprint if plan else None,
                failed=failed,
                guidance=text,
                recipe=recipe,
            )
            grid.append((cell, drawer))
    if not grid:
        raise InvalidArgumentError("nothing to compare: choose at least one S and one method")
    return grid


def _replaced(method: Method, clip: str) -> list[str]:
    """A note if a recipe of one's own clips otherwise than the comparison does."""
    if method.family != OWN or not isinstance(method, NamedRecipe) or method.recipe.clip == clip:
        return []
    return [f"all methods are measured with clip {clip}, also {method.key}: {method.recipe.clip}"]


def _recipe_of(
    method: Method, count: int, schedule: VarianceSchedule, clip: str, guidance: GuidanceScale
) -> Recipe | None:
    """The recipe that draws the samples of a cell, with its clipping and guidance, if any does."""
    if isinstance(method, DiffusersMethod):
        found = method.recipe(count, schedule.num_train_steps)
    else:
        found = method.at(count) if isinstance(method, NamedRecipe) else None
    return found and found.replace(clip=clip, guidance_scale=guidance)
