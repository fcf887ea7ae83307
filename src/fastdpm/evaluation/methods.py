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
_KAPPA = re.compile(r"-k(\d*\.?\d+)")


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
            least, total = self.diffusers.least, schedule.num_train_steps
            if not least <= num_steps <= total:
                raise InvalidArgumentError(
                    f"{self.key} takes from {least} to {total} (T) steps S, got {num_steps}"
                )
            return DiffusersSampler(self.diffusers, num_steps, clip)
        recipe = self.recipe or Recipe()
        if not recipe.takes_all_steps:
            recipe = recipe.replace(num_steps=num_steps)
        return PlanSampler(recipe.compile(schedule), clip)


@dataclass(frozen=True)
class DiffusersSampler:
    """Samples by a scheduler of diffusers."""

    method: DiffusersMethod
    num_steps: int
    clip: str = "none"

    @property
    def key(self) -> str:
        """See :class:`fastdpm.evaluation.drawn.Sampler`."""
        return f"{self.method.key} {self.num_steps} clip {self.clip} {version('diffusers')}"

    @property
    def label(self) -> str:
        """See :class:`fastdpm.evaluation.drawn.Sampler`."""
        return f"{self.method.name}, S = {self.num_steps}"

    @property
    def rows(self) -> int:
        """See :class:`fastdpm.evaluation.drawn.Sampler`."""
        return self.method.num_evaluations(self.num_steps)

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """See :class:`fastdpm.evaluation.drawn.Sampler`."""
        batches = sample_diffusers(
            model,
            self.method,
            self.num_steps,
            samples,
            clip=self.clip,
            callback=callback,
            **options.keywords(),
        )
        for _, batch, evaluations in batches:
            yield batch, evaluations


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
        members = _group(name, kappas or (0.0, 1.0)) if name in GROUPS else (_method(name),)
        chosen |= {method.key: method for method in members}
    if not installed and any(method.diffusers for method in chosen.values()):
        raise MissingExtraError("diffusers", "diffusers")
    return tuple(chosen.values())


def _group(name: str, kappas: Sequence[float]) -> tuple[Method, ...]:
    if name == "diffusers":
        return tuple(_of_diffusers(method) for method in diffusers_methods())
    rows = [row for row in samplers.SAMPLERS.values() if row.family == name]
    if name == "standard":
        return (_over_all_steps(rows[0]),)
    return tuple(
        _over_levels(row, choice, kappa)
        for row in rows
        for kappa in (kappas if row.takes_kappa else (0.0,))
        for choice in sorted(choices.CHOICES.values(), key=lambda choice: choice.levels)
    )


def _method(key: str) -> Method:
    if key.startswith("diffusers-"):
        return _of_diffusers(*diffusers_methods([key]))
    stem = _KAPPA.sub("", key)
    for row in samplers.SAMPLERS.values():
        if row.all_steps and key == row.name:
            return _over_all_steps(row)
        for choice in () if row.all_steps else choices.CHOICES.values():
            kappa = _KAPPA.fullmatch(key[len(stem) :])
            if stem == _stem(row, choice) and (kappa is not None) == row.takes_kappa:
                return _over_levels(row, choice, float(kappa[1]) if kappa else 0.0)
    raise InvalidArgumentError(
        f"no method {key!r}: give a group ({', '.join(GROUPS)}) or a key such as var-linear-k0,"
        " step-quadratic-k0.5, dpmpp-2m-var-linear, standard-large or diffusers-ddim-trailing"
    )


def _stem(row: Row, choice: LevelChoice) -> str:
    """A key but for its kappa; the paper's own process goes without its name."""
    return choice.name if row.family == "paper" else f"{row.name}-{choice.name}"


def _over_levels(row: Row, choice: LevelChoice, kappa: float) -> Method:
    recipe = Recipe(method=row.name, levels=choice.levels, spacing=choice.spacing, kappa=kappa)
    key, group = _stem(row, choice), row.title
    if row.takes_kappa:
        key = f"{key}-k{kappa:g}"
        named = {0.0: "DDIM-rev", 1.0: "DDPM-rev"} if row.family == "paper" else {}
        group = named.get(kappa, f"kappa = {kappa:g}")
    return Method(key, row.family, group, choice.title, recipe)


def _over_all_steps(row: Row) -> Method:
    return Method(row.name, row.family, row.title, "", Recipe(method=row.name))


def _of_diffusers(method: DiffusersMethod) -> Method:
    group, _, spacing = method.name.removeprefix("diffusers ").partition(", ")
    return Method(method.key, "diffusers", f"{group} (diffusers)", spacing, diffusers=method)
