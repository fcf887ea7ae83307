"""Methods by their keys: each sampler over each choice of levels, or over all training steps.

A key such as "var-linear-k0", "dpmpp-2m-var-linear" or "standard-large" names a method on the
command line, in presets and in results. The paper's own process goes without the sampler's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastdpm.core import choices, samplers
from fastdpm.core.choices import LevelChoice
from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import Sampler

_KAPPA = re.compile(r"-k(\d*\.?\d+)$")
_REVERSE = {0.0: "DDIM-rev", 1.0: "DDPM-rev"}


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, its number of steps aside, and its names.

    Attributes:
        key: For machines.
        family: The sampler's.
        group: In tables: the reverse process, or the solver.
        choice: In tables: how levels are chosen; empty where all steps are taken.
        recipe: What it does.
    """

    key: str
    family: str
    group: str
    choice: str
    recipe: Recipe

    @property
    def takes_all_steps(self) -> bool:
        """Whether it takes all T training steps as they are."""
        return self.recipe.takes_all_steps


def families(*, kappa: bool = False) -> list[str]:
    """Groups of samplers that are compared, in the order of the table.

    Args:
        kappa: Only those with a sampler that takes kappa.
    """
    rows = [row for row in samplers.SAMPLERS.values() if row.compared]
    return list(dict.fromkeys(row.family for row in rows if row.takes_kappa or not kappa))


def named_recipes(kappas: Sequence[float]) -> Iterator[NamedRecipe]:
    """Every sampler over every choice of levels.

    Args:
        kappas: In [0, 1], of the samplers that take kappa.

    Raises:
        InvalidArgumentError: If a kappa is out of range.
    """
    for row in samplers.SAMPLERS.values():
        if row.all_steps:
            yield NamedRecipe(row.name, row.family, row.title, "", Recipe(method=row.name))
            continue
        for kappa in kappas if row.takes_kappa else (0.0,):
            for choice in sorted(choices.CHOICES.values(), key=lambda choice: choice.levels):
                yield _over_levels(row, choice, kappa)


def find_named(key: str) -> NamedRecipe | None:
    """The method of a key, or None if there is none.

    Raises:
        InvalidArgumentError: If the key's kappa lies outside [0, 1].
    """
    kappa = 0.0
    if stated := _KAPPA.search(key):
        kappa = float(stated[1])
        key = f"{key[: stated.start()]}-k{kappa:g}"
    return next((method for method in named_recipes([kappa]) if method.key == key), None)


def _over_levels(row: Sampler, choice: LevelChoice, kappa: float) -> NamedRecipe:
    own = row.name == Recipe.method  # the paper's, which is the default
    key = choice.name if own else f"{row.name}-{choice.name}"
    group = row.title
    if row.takes_kappa:
        key = f"{key}-k{kappa:g}"
        said = f"kappa = {kappa:g}"
        group = _REVERSE.get(kappa, said) if own else f"{row.title}, {said}"
    recipe = Recipe(method=row.name, levels=choice.levels, spacing=choice.spacing, kappa=kappa)
    return NamedRecipe(key, row.family, group, choice.title, recipe)
