"""Files of named recipes, which state what they change in the recommended recipe of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastdpm.core.arguments import checked
from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import read_toml
from fastdpm.core.methods import check_name
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import build_values


def recipes_text(recipes: Mapping[str, Recipe]) -> str:
    """The text of a file of recipes, which take nothing from the model's recommended one."""
    return "\n".join(_table(name, recipe) for name, recipe in recipes.items())


def _table(name: str, recipe: Recipe) -> str:
    stated = ["method", "clip", "guidance_scale"]
    stated += ["kappa"] if recipe.sampler.takes_kappa else []
    stated += [] if recipe.custom or recipe.takes_all_steps else ["num_steps", "levels", "spacing"]
    default = Recipe()
    idle = ("num_steps", "levels", "spacing", "kappa")
    stated += [
        f.name
        for f in fields(recipe)
        if f.name not in (*stated, *idle) and getattr(recipe, f.name) != getattr(default, f.name)
    ]
    rows = [f"{key} = {json.dumps(getattr(recipe, key))}\n" for key in stated]
    return "".join([f"[{json.dumps(name)}]\n", "complete = true\n", *rows])


@checked
def read_recipes(path: str | Path, recommended: Recipe | None = None) -> dict[str, Recipe]:
    """Read recipes from a TOML file, with one table for each, which is named after it.

    A table states the fields of :class:`fastdpm.Recipe` that it changes in ``recommended``::

        [by-hand]
        at_steps = [900, 700, 400, 100]

        [longer]
        method = "unipc-3"
        spacing = "trailing"

    With ``complete = true``, what the table does not state is as in ``Recipe()`` instead.

    Args:
        path: The file.
        recommended: The recipe that they change, such as the recommended one of a model; that of
            ``Recipe()`` by default.

    Raises:
        InvalidArgumentError: If the file cannot be read, holds no recipe, or a value does not fit.
    """
    file = Path(path)
    try:
        stated = read_toml(file)
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"no recipes at {str(file)!r}: it is no text file") from None
    except (OSError, ValueError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"no recipes at {str(file)!r}: {reason}") from None
    if not stated:
        raise InvalidArgumentError(
            f"{file} holds no recipe: add a table such as [by-hand], with at_steps = [900, 500]"
        )
    base = recommended or Recipe()
    return {name: _build(stated[name], base, name, f"{file}: {name}") for name in stated}


def _build(choices: Any, base: Recipe, name: str, place: str) -> Recipe:
    if not isinstance(choices, Mapping) or not choices:
        raise InvalidArgumentError(
            f"{place} must be a table with at least one choice of a recipe, such as"
            " at_steps = [900, 500, 100]"
        )
    stated = {key: value for key, value in choices.items() if key != "complete"}
    complete = choices.get("complete", False)
    if not isinstance(complete, bool):
        raise InvalidArgumentError(f"{place}: 'complete' must be true or false, got {complete!r}")
    try:
        check_name(name)
        changes = build_values(Recipe, stated, place)
        if complete:
            return Recipe(**changes)
        return base.replace(**changes)
    except InvalidArgumentError as error:
        # Keys of the file, which the command line must not take for its options.
        text = str(error).replace("`", "'")
        text = text.removeprefix(f"{place}: ").removeprefix(f"{place} ")
        raise InvalidArgumentError(f"{place}: {text}") from None
