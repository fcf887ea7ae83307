"""The methods of a comparison: what the rows of the paper's tables are, and their rivals."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from torch import Tensor

from fastdpm.core import choices, samplers
from fastdpm.core.choices import LevelChoice
from fastdpm.core.errors import InvalidArgumentError, MissingExtraError
from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import Sampler as Row
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.diffusers_samplers import (
    DiffusersMethod,
    diffusers_methods,
    sample_diffusers,
)
from fastdpm.evaluation.drawn import DrawOptions, PlanSampler, Sampler
from fastdpm.models.model import Model
from fastdpm.sampling.state import Callback

GROUPS = ("paper", "multistep", "standard", "diffusers")
_KAPPA = re.compile(r"-k(\d*\.?\d+)$")


@dataclass(frozen=True)
class Method:
    """A way to sample at any S.

    Attributes:
        key: On the command line and in results.
        family: "paper", "multistep", "standard" or "diffusers".
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

    def sampler(self, schedule: VarianceSchedule, num_steps: int, clip: str) -> Sampler:
        """The method at S = ``num_steps``.

        Raises:
            InvalidArgumentError: If it cannot take so many.
        """
        if self.diffusers is not None:
            self.diffusers.check_steps(num_steps, schedule.num_train_steps)
            return DiffusersSampler(self.diffusers, num_steps, clip)
        recipe = self.recipe or Recipe()
        if not recipe.takes_all_steps:
            recipe = recipe.replace(num_steps=num_steps)
        return PlanSampler(recipe.compile(schedule), clip)


class DiffusersSampler(Sampler):
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


def choose_methods(
    names: Sequence[str] | None = None, kappas: Sequence[float] | None = None
) -> tuple[Method, ...]:
    """Methods by their keys or by groups of them, in a fixed order.

    Args:
        names: Groups ("paper", "multistep", "standard", "diffusers") or keys such as
            "var-linear-k0", "step-quadratic-k0.5", "dpmpp-2m-var-linear", "standard-large",
            "diffusers-ddim-trailing". By default all groups, diffusers' only where it is
            installed.
        kappas: Of the group "paper"; 0 and 1 by default.

    Raises:
        InvalidArgumentError: If a name is unknown, a kappa outside [0, 1], or kappas are given
            without the group that has them.
        MissingExtraError: If methods of diffusers are named and it is not installed.
    """
    installed = importlib.util.find_spec("diffusers") is not None
    if names is None:
        names = GROUPS if installed else GROUPS[:-1]
    if kappas is not None and "paper" not in names:
        raise InvalidArgumentError(
            "values of kappa belong to the group paper: add it to the methods, or drop them"
        )
    chosen: dict[str, Method] = {}
    for name in names:
        members = _group(name, kappas or (0.0, 1.0)) if name in GROUPS else [_method(name)]
        chosen |= {method.key: method for method in members}
    if not installed and any(method.diffusers for method in chosen.values()):
        raise MissingExtraError("diffusers", "diffusers")
    return tuple(chosen.values())


def _group(name: str, kappas: Sequence[float]) -> list[Method]:
    if name == "diffusers":
        return [_of_diffusers(method) for method in diffusers_methods()]
    members = [method for method in _of_plans(kappas) if method.family == name]
    return members[:1] if name == "standard" else members


def _method(key: str) -> Method:
    if key.startswith("diffusers-"):
        return _of_diffusers(*diffusers_methods([key]))
    stem, kappa = _KAPPA.sub("", key), _KAPPA.search(key)
    named = f"{stem}-k{float(kappa[1]):g}" if kappa else key
    for method in _of_plans([float(kappa[1]) if kappa else 0.0]):
        if method.key == named:
            return method
    raise InvalidArgumentError(
        f"no method {key!r}: give a group ({', '.join(GROUPS)}) or a key such as var-linear-k0,"
        " step-quadratic-k0.5, dpmpp-2m-var-linear, standard-large or diffusers-ddim-trailing"
    )


def _of_plans(kappas: Sequence[float]) -> Iterator[Method]:
    """Every sampler of this package over every choice of levels."""
    for row in samplers.SAMPLERS.values():
        if row.all_steps:
            yield Method(row.name, row.family, row.title, "", Recipe(method=row.name))
            continue
        for kappa in kappas if row.takes_kappa else (0.0,):
            for choice in sorted(choices.CHOICES.values(), key=lambda choice: choice.levels):
                yield _over_levels(row, choice, kappa)


def _over_levels(row: Row, choice: LevelChoice, kappa: float) -> Method:
    """A method; in its key the paper's own process goes without its name."""
    recipe = Recipe(method=row.name, levels=choice.levels, spacing=choice.spacing, kappa=kappa)
    key = choice.name if row.family == "paper" else f"{row.name}-{choice.name}"
    group = row.title
    if row.takes_kappa:
        key = f"{key}-k{kappa:g}"
        named = {0.0: "DDIM-rev", 1.0: "DDPM-rev"} if row.family == "paper" else {}
        group = named.get(kappa, f"kappa = {kappa:g}")
    return Method(key, row.family, group, choice.title, recipe)


def _of_diffusers(method: DiffusersMethod) -> Method:
    group = f"{method.solver} (diffusers)"
    return Method(method.key, "diffusers", group, method.spacing, diffusers=method)
