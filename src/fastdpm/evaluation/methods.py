"""The methods of a comparison: the rows of the paper's tables, and other samplers."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import ClassVar

from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import (
    InvalidArgumentError,
    MissingExtraError,
    arguments_named,
    check_one_of,
)
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceScale
from fastdpm.core.methods import (
    GITS,
    OWN,
    NamedRecipe,
    families,
    find_gits,
    find_named,
    gits_recipes,
    named_recipes,
)
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import TUNED
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.diffusers_samplers import (
    DIFFUSERS_METHODS,
    DiffusersMethod,
    count_evaluations,
    sample_diffusers,
)
from fastdpm.evaluation.drawn import Drawer, DrawOptions, PlanDrawer
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan, tuned_of
from fastdpm.sampling.state import Callback

_DIFFUSERS = "diffusers"


@dataclass(frozen=True)
class TunedMethod:
    """The tuned plans of a model, as a method.

    Attributes:
        plans: The plans, by S.
        key: Its name in results.
    """

    plans: Mapping[int, TunedPlan] = field(repr=False)
    key: str = TUNED
    family: ClassVar[str] = TUNED
    group: ClassVar[str] = "tuned plan"
    choice: ClassVar[str] = ""
    takes_all_steps: ClassVar[bool] = False
    has_own_steps: ClassVar[bool] = False

    def plan(self, num_steps: int, clip: str, guidance: GuidanceScale) -> Plan:
        """The plan at S.

        Raises:
            InvalidArgumentError: If there is none, or it was learned for something else.
        """
        tuned = tuned_of(self.plans, num_steps)
        differences = tuned.differences(Recipe().replace(clip=clip, guidance_scale=guidance))
        if differences:
            raise InvalidArgumentError(
                f"the tuned plan was learned for {' and '.join(differences)}"
            )
        return tuned.plan


# A sampler that is defined at several S: of this package, of diffusers, or of the model.
Method = NamedRecipe | DiffusersMethod | TunedMethod


class DiffusersDrawer(Drawer):
    """Samples with a scheduler of diffusers."""

    def __init__(
        self,
        method: DiffusersMethod,
        schedule: VarianceSchedule,
        num_steps: int,
        clip: str = "none",
        guidance: GuidanceScale = NO_GUIDANCE,
    ) -> None:
        self.method, self.num_steps, self.clip, self.guidance = method, num_steps, clip, guidance
        self.key = f"{method.key} {num_steps} clip {clip} {version('diffusers')}"
        self.label = f"diffusers {method.solver}, {method.choice}, S = {num_steps}"
        self.rows = count_evaluations(method, schedule, num_steps, guidance)
        self.noise_rows = num_steps if method.stochastic else 0

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Draw by :func:`fastdpm.evaluation.diffusers_samplers.sample_diffusers`."""
        stated = options.keywords() | {"clip": self.clip, "callback": callback}
        stated["guidance_scale"] = self.guidance
        batches = sample_diffusers(model, self.method, self.num_steps, samples, **stated)
        return ((batch, evaluations) for _, batch, evaluations in batches)


def open_drawer(
    method: Method,
    schedule: VarianceSchedule,
    num_steps: int,
    clip: str = "none",
    guidance: GuidanceScale = NO_GUIDANCE,
) -> Drawer:
    """Make the drawer of a method at S = ``num_steps``.

    Raises:
        InvalidArgumentError: If the method cannot take that number of steps, or guidance has
            another number of scales.
    """
    if isinstance(method, DiffusersMethod):
        method.check_steps(num_steps, schedule.num_train_steps)
        return DiffusersDrawer(method, schedule, num_steps, clip, guidance)
    if isinstance(method, TunedMethod):
        return PlanDrawer(method.plan(num_steps, clip, guidance), clip, guidance)
    return PlanDrawer(method.at(num_steps).compile(schedule), clip, guidance)


def steps_of(method: Method, schedule: VarianceSchedule, steps: Sequence[int]) -> Sequence[int]:
    """The values of S to measure a method at.

    A standard sampler has its own, T, and so has a recipe with custom levels. Tuned plans are left
    out where the model has none.

    Raises:
        InvalidArgumentError: If the custom levels do not fit the schedule.
    """
    if method.takes_all_steps:
        return (schedule.num_train_steps,)
    if isinstance(method, TunedMethod):
        return [count for count in steps if count in method.plans] or steps  # fails, and says so
    if not isinstance(method, NamedRecipe) or not method.has_own_steps:
        return steps
    try:
        return (method.recipe.compile(schedule).num_rows,)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"recipe {method.key!r}: {error}") from None


@checked
def choose_methods(
    names: Sequence[str | Method] | str | None = None,
    kappas: Sequence[float] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    plans: Mapping[int, TunedPlan] | None = None,
) -> tuple[Method, ...]:
    """Choose methods by key or by group. Each is chosen once, in the order of ``names``.

    Args:
        names: Groups ("paper", "multistep", "standard", "recipes", "gits", "diffusers"), "tuned"
            for the model's tuned plans, keys (such as "var-linear-k0", "step-quadratic-k0.5",
            "dpmpp-2m-var-linear", "unipc-3-gits", "standard-large" or
            "diffusers-ddim-trailing"), names of ``recipes``, or methods. By default all groups
            but "gits"; diffusers' only if it is installed.
        kappas: Values of kappa for the group "paper"; 0 and 1 by default.
        recipes: Recipes of one's own by name, which form the group "recipes".
        plans: The tuned plans of the model, by S.

    Raises:
        InvalidArgumentError: If a name is unknown, a kappa is outside [0, 1], ``kappas`` is set
            without a group that takes it, or two different methods have the same key.
        MissingExtraError: If methods of diffusers are named and it is not installed.
    """
    installed = importlib.util.find_spec("diffusers") is not None
    own = {name: NamedRecipe.own(name, recipe) for name, recipe in (recipes or {}).items()}
    if names is None:
        more = {OWN: own, TUNED: plans, _DIFFUSERS: installed}
        names = [*families(), *(name for name, there in more.items() if there)]
    elif isinstance(names, str):
        names = [names]
    taking = families(kappa=True)
    if kappas is not None and not any(name in names for name in taking):
        raise InvalidArgumentError(
            f"`kappas` has an effect on the group {' or '.join(taking)} only: add it to"
            " `methods`, or drop `kappas`"
        )
    if kappas is not None and not len(kappas):
        raise InvalidArgumentError("`kappas` must hold at least one number, got []")
    chosen: dict[str, Method] = {}
    with arguments_named(kappa="`kappas`"):
        all_of = partial(_members, kappas=kappas or (0.0, 1.0), own=own, plans=plans or {})
        members = [method for name in names for method in all_of(name)]
    for method in members:
        if chosen.setdefault(method.key, method) != method:
            raise InvalidArgumentError(
                f"two different methods have the key {method.key!r}: rename one of them, or"
                " choose values of kappa that differ in their first six digits"
            )
    if not installed and any(method.family == _DIFFUSERS for method in chosen.values()):
        raise MissingExtraError("diffusers", "diffusers")
    return tuple(chosen.values())


def all_methods(own: Mapping[str, Recipe], plans: Mapping[int, TunedPlan]) -> Iterator[Method]:
    """Every sampler over every choice of levels and those of GITS, own recipes, tuned plans."""
    for row in named_recipes((0.0, 1.0)):
        if not row.takes_all_steps:
            yield row
    yield from gits_recipes((0.0, 1.0))
    for name, recipe in own.items():
        yield NamedRecipe.own(name, recipe)
    if plans:
        yield TunedMethod(plans)


def recipe_of(key: str, num_steps: int, total: int) -> Recipe | None:
    """The recipe of a method at S of T steps; None if only diffusers draws its samples."""
    if key in DIFFUSERS_METHODS:
        return DIFFUSERS_METHODS[key].recipe(num_steps, total)
    try:
        named = find_named(key)
    except InvalidArgumentError:  # a key of the user's own, which looks like one with kappa
        return None
    return None if named is None else named.at(num_steps)


def _members(
    name: str | Method,
    kappas: Sequence[float],
    own: Mapping[str, NamedRecipe],
    plans: Mapping[int, TunedPlan],
) -> list[Method]:
    """The methods of a group, or the method of a key."""
    if not isinstance(name, str):
        return [name]
    if name == TUNED:
        if not plans:
            raise InvalidArgumentError(
                f"the model has no tuned plans: learn some with `fastdpm tune`, or drop {TUNED!r}"
            )
        return [TunedMethod(plans)]
    if name in own:
        return [own[name]]
    if name in (OWN, GITS, _DIFFUSERS, *families()):
        return _group(name, kappas, own)
    if name.startswith(f"{_DIFFUSERS}-"):
        check_one_of("a diffusers method", name, DIFFUSERS_METHODS)
        return [DIFFUSERS_METHODS[name]]
    if (named := find_named(name) or find_gits(name)) is not None:
        return [named]
    near = difflib.get_close_matches(name, [*own, *_known_keys(kappas)], n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    groups = ", ".join((*families(), GITS, TUNED, _DIFFUSERS))
    listed = f", a recipe ({', '.join(own)})" if own else ""
    raise InvalidArgumentError(
        f"no method {name!r}: choose a group ({groups}){listed} or a key such as var-linear-k0,"
        " step-quadratic-k0.5, dpmpp-2m-var-linear, unipc-3-gits, standard-large or"
        f" diffusers-ddim-trailing{meant}"
    )


def _group(name: str, kappas: Sequence[float], own: Mapping[str, NamedRecipe]) -> list[Method]:
    """The methods of a group."""
    if name == OWN and not own:
        raise InvalidArgumentError(
            "the model has no recipes besides the recommended one: add some by `recipes`, or drop"
            f" the group {OWN!r}"
        )
    if name == OWN:
        return list(own.values())
    if name == _DIFFUSERS:
        return [method for method in DIFFUSERS_METHODS.values() if method.compared]
    if name == GITS:
        return list(gits_recipes(kappas))
    rows = [row for row in named_recipes(kappas) if row.family == name]
    return [row for row in rows if row.compared]


def _known_keys(kappas: Sequence[float]) -> list[str]:
    keys = [row.key for row in named_recipes(kappas)]
    return [*families(), _DIFFUSERS, *keys, *DIFFUSERS_METHODS]
