"""The methods of a comparison: what the rows of the paper's tables are, and their rivals."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, MissingExtraError
from fastdpm.core.methods import by_key, families, find_named, named_recipes
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.diffusers_samplers import (
    DiffusersMethod,
    diffusers_methods,
    sample_diffusers,
)
from fastdpm.evaluation.drawn import Drawer, DrawOptions, PlanDrawer
from fastdpm.models.model import Model
from fastdpm.sampling.state import Callback

_DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class Method:
    """A way to sample at any S.

    Attributes:
        key: On the command line and in results.
        family: The sampler's, or "diffusers".
        group: In tables: the reverse process, or the solver.
        choice: In tables: how levels or steps are chosen; empty for the standard samplers.
        recipe: Of this package, its number of steps aside; or
        diffusers: a scheduler of diffusers.
    """

    key: str
    family: str
    group: str
    choice: str
    recipe: Recipe | None = None
    diffusers: DiffusersMethod | None = None

    @property
    def takes_all_steps(self) -> bool:
        """Whether it takes all T training steps as they are."""
        return self.recipe is not None and self.recipe.takes_all_steps

    def drawer(self, schedule: VarianceSchedule, num_steps: int, clip: str) -> Drawer:
        """The method at S = ``num_steps``.

        Raises:
            InvalidArgumentError: If it cannot take so many.
        """
        if self.diffusers is not None:
            self.diffusers.check_steps(num_steps, schedule.num_train_steps)
            return DiffusersDrawer(self.diffusers, num_steps, clip)
        recipe = self.recipe or Recipe()
        if not recipe.takes_all_steps:
            recipe = recipe.replace(num_steps=num_steps)
        return PlanDrawer(recipe.compile(schedule), clip)


class DiffusersDrawer(Drawer):
    """Samples by a scheduler of diffusers."""

    def __init__(self, method: DiffusersMethod, num_steps: int, clip: str = "none") -> None:
        self.method, self.num_steps, self.clip = method, num_steps, clip
        self.key = f"{method.key} {num_steps} clip {clip} {version('diffusers')}"
        self.label = f"diffusers {method.solver}, {method.spacing}, S = {num_steps}"
        self.rows = method.num_evaluations(num_steps)

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """By :func:`fastdpm.evaluation.diffusers_samplers.sample_diffusers`."""
        stated = options.keywords() | {"clip": self.clip, "callback": callback}
        batches = sample_diffusers(model, self.method, self.num_steps, samples, **stated)
        return ((batch, evaluations) for _, batch, evaluations in batches)


def groups() -> tuple[str, ...]:
    """Groups of methods: the families of samplers, and diffusers'."""
    return (*families(), _DIFFUSERS)


def choose_methods(
    names: Sequence[str | Method] | None = None, kappas: Sequence[float] | None = None
) -> tuple[Method, ...]:
    """Methods by their keys or by groups of them, each once, in the order of their names.

    Args:
        names: Groups (families of :data:`fastdpm.core.samplers.SAMPLERS`: "paper", "multistep",
            "standard"; and "diffusers"), keys such as "var-linear-k0", "step-quadratic-k0.5",
            "dpmpp-2m-var-linear", "standard-large", "diffusers-ddim-trailing", or methods. By
            default all groups, diffusers' only where it is installed.
        kappas: Of the groups that take it, as "paper" does; 0 and 1 by default.

    Raises:
        InvalidArgumentError: If a name is unknown, a kappa outside [0, 1], kappas are given
            without a group that takes them, or two different methods have one key.
        MissingExtraError: If methods of diffusers are named and it is not installed.
    """
    installed = importlib.util.find_spec("diffusers") is not None
    if names is None:
        names = groups() if installed else families()
    taking = families(kappa=True)
    if kappas is not None and not any(name in names for name in taking):
        raise InvalidArgumentError(
            f"values of kappa belong to the group {' or '.join(taking)}: add it to the methods, or"
            " drop them"
        )
    members = [m for name in names for m in _members(name, kappas or (0.0, 1.0))]
    chosen = by_key(members)
    if not installed and any(method.diffusers for method in chosen.values()):
        raise MissingExtraError("diffusers", "diffusers")
    return tuple(chosen.values())


def _members(name: str | Method, kappas: Sequence[float]) -> list[Method]:
    """The methods of a group, or the one method of a key."""
    if isinstance(name, Method):
        return [name]
    if name == _DIFFUSERS or name.startswith(f"{_DIFFUSERS}-"):
        found = diffusers_methods(None if name == _DIFFUSERS else [name])
        return [_of_diffusers(method) for method in found]
    if name in families():
        rows = [row for row in named_recipes(kappas).values() if row.family == name]
        return [Method(**vars(row)) for row in rows if row.recipe.sampler.compared]
    named = find_named(name)
    if named is None:
        raise InvalidArgumentError(
            f"no method {name!r}: give a group ({', '.join(groups())}) or a key such as"
            " var-linear-k0, step-quadratic-k0.5, dpmpp-2m-var-linear, standard-large or"
            " diffusers-ddim-trailing"
        )
    return [Method(**vars(named))]


def _of_diffusers(method: DiffusersMethod) -> Method:
    group = f"{method.solver} (diffusers)"
    return Method(method.key, _DIFFUSERS, group, method.spacing, diffusers=method)
