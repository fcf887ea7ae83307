"""Named methods: each sampler over each choice of levels or over all steps, and own recipes.

A key such as "var-linear-k0", "dpmpp-2m-var-linear" or "standard-large" names a method on the
command line, in presets and in results. Keys of the paper's sampler omit the sampler's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from fastdpm.core import choices, samplers
from fastdpm.core.choices import LevelChoice
from fastdpm.core.errors import InvalidArgumentError, shown
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import Sampler

OWN, GITS, RECOMMENDED = "recipes", "gits", "recommended"
_KAPPA = re.compile(r"-k(\d*\.?\d+)$")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIFFUSERS = "diffusers"
_Row = TypeVar("_Row", bound="NamedRecipe")
_REVERSE = {0.0: "DDIM-rev", 1.0: "DDPM-rev"}


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, and its names. One with custom levels has its own number of steps.

    Attributes:
        key: Unique name, such as "var-linear-k0".
        family: Family of the sampler; "recipes" for a recipe of one's own.
        group: Name of the sampler in tables.
        choice: Name of the choice of levels in tables; empty if all steps are taken.
        recipe: The recipe.
    """

    key: str
    family: str
    group: str
    choice: str
    recipe: Recipe

    @classmethod
    def from_argument(cls, value: object) -> object:
        """Refuse a plan where a method is expected; return anything else.

        Raises:
            InvalidArgumentError: If it is a plan.
        """
        if isinstance(value, Plan):
            raise InvalidArgumentError(
                f"{value.label} is a plan, and `methods` are measured at several S: pass the key"
                " of a method, such as 'var-linear-k0', or measure the plan by evaluate(model,"
                " plan=plan)"
            )
        return value

    @classmethod
    def own(cls, name: str, recipe: Recipe) -> NamedRecipe:
        """Name a recipe of one's own, for comparisons.

        Raises:
            InvalidArgumentError: If the name is malformed, or is that of a method or of a group.
        """
        check_name(name)
        if not isinstance(recipe, Recipe):
            raise InvalidArgumentError(
                f"`recipes` must hold a Recipe for each name, got {shown(recipe)} for {name!r}"
            )
        family = recipe.sampler.family if recipe.takes_all_steps else OWN
        return cls(name, family, "own recipe", name, recipe)

    def at(self, num_steps: int) -> Recipe:
        """The recipe at S = ``num_steps``, without its clipping and guidance.

        One that has its own number of steps keeps it.
        """
        own = self.has_own_steps
        return (self.recipe if own else self.recipe.replace(num_steps=num_steps)).bare

    @property
    def has_own_steps(self) -> bool:
        """Whether S is its own: all T training steps, or the number of its custom levels."""
        return self.takes_all_steps or self.recipe.custom is not None

    @property
    def compared(self) -> bool:
        """Whether its group includes it in a comparison."""
        recipe = self.recipe
        choice = choices.find_choice(recipe.levels, recipe.spacing)
        return recipe.sampler.compared and (self.takes_all_steps or choice.compared)

    @property
    def takes_all_steps(self) -> bool:
        """Whether it always takes all T training steps."""
        return self.recipe.takes_all_steps


@dataclass(frozen=True)
class GitsRecipe(NamedRecipe):
    """A sampler over the levels that GITS chooses from a model's own trajectories.

    Attributes:
        choose: ``choose(num_levels) -> NoiseLevels``, for one model; None until it is known.
    """

    choose: Callable[[int], NoiseLevels] | None = field(default=None, compare=False, repr=False)

    def at(self, num_steps: int) -> Recipe:
        """The recipe at S = ``num_steps``, with the levels as custom ones."""
        if self.choose is None:
            raise InvalidArgumentError(
                f"{self.key} needs the trajectories of a model: name it in a comparison"
            )
        levels = self.choose(self.recipe.sampler.steps(num_steps))
        return self.recipe.replace(at_levels=tuple(levels.level[:-1].tolist())).bare


def families(*, kappa: bool = False) -> list[str]:
    """List the families of samplers that comparisons include, in the order of the table.

    Args:
        kappa: Only list families with a sampler that takes kappa.
    """
    rows = [row for row in samplers.SAMPLERS.values() if row.compared]
    return list(dict.fromkeys(row.family for row in rows if row.takes_kappa or not kappa))


def named_recipes(kappas: Sequence[float]) -> Iterator[NamedRecipe]:
    """Generate every sampler over every choice of levels.

    Args:
        kappas: Values in [0, 1] for the samplers that take kappa.

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


def gits_recipes(kappas: Sequence[float]) -> Iterator[GitsRecipe]:
    """Generate every sampler over the levels of GITS; see :func:`named_recipes`."""
    for row in samplers.SAMPLERS.values():
        for kappa in () if row.all_steps else kappas if row.takes_kappa else (0.0,):
            key = GITS if row.name == Recipe.method else f"{row.name}-{GITS}"
            key, group = _with_kappa(row, kappa, key)
            recipe = Recipe(method=row.name, kappa=kappa)
            yield GitsRecipe(key, row.family, group, GITS.upper(), recipe)


def find_named(key: str) -> NamedRecipe | None:
    """Look up a method by its key; return None if there is no such method.

    Raises:
        InvalidArgumentError: If the key's kappa is outside [0, 1].
    """
    return _found(key, named_recipes)


def find_gits(key: str) -> GitsRecipe | None:
    """Look up a method over the levels of GITS, as :func:`find_named` does."""
    return _found(key, gits_recipes)


def _found(key: str, rows: Callable[[Sequence[float]], Iterator[_Row]]) -> _Row | None:
    kappa = 0.0
    if match := _KAPPA.search(key):
        kappa = float(match[1])
        key = f"{key[: match.start()]}-k{kappa:g}"
    return next((method for method in rows([kappa]) if method.key == key), None)


def check_name(name: str) -> None:
    """Raise InvalidArgumentError unless a recipe of one's own may have this name."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            "the name of a recipe must start with a letter or digit and hold only letters, digits,"
            f" '.', '_' and '-', got {name!r}"
        )
    taken = name in (*families(), OWN, GITS, RECOMMENDED, _DIFFUSERS) or name.startswith(
        f"{_DIFFUSERS}-"
    )
    if taken or find_named(name) is not None or find_gits(name) is not None:
        raise InvalidArgumentError(
            f"{name!r} is the name of a method or a group already: choose another one for the"
            " recipe"
        )


def _over_levels(row: Sampler, choice: LevelChoice, kappa: float) -> NamedRecipe:
    key = choice.name if row.name == Recipe.method else f"{row.name}-{choice.name}"
    key, group = _with_kappa(row, kappa, key)
    recipe = Recipe(method=row.name, levels=choice.levels, spacing=choice.spacing, kappa=kappa)
    return NamedRecipe(key, row.family, group, choice.title, recipe)


def _with_kappa(row: Sampler, kappa: float, key: str) -> tuple[str, str]:
    """The key and the group of a sampler, with kappa if it takes any."""
    if not row.takes_kappa:
        return key, row.title
    own = _REVERSE.get(kappa) if row.name == Recipe.method else None
    return f"{key}-k{kappa:g}", own or f"{row.title}, kappa = {kappa:g}"
