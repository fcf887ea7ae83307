"""Options that choose a recipe or a plan, and guidance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdpm.cli import choices
from fastdpm.cli.expand import OneOf, Options
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import print_notes
from fastdpm.core.errors import InvalidArgumentError, check_one_of

if TYPE_CHECKING:
    from fastdpm.core.guidance import GuidanceScale
    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.models.config import ModelConfig
    from fastdpm.models.find import FoundModel
    from fastdpm.models.tuned import TunedPlan

ADVICE = "tune again, or add --anyway to use it all the same"
_SAMPLED = ("--clip", "--anyway")
_NO_CLASS = "guidance has no effect without a class, so none is used"
LEVELS = OneOf("fastdpm.core.choices:level_names")
SPACINGS = OneOf("fastdpm.core.choices:spacing_names")


@dataclass(frozen=True)
class RecipeOptions(Options):
    """The options that change a recipe; None or False where an option is not set."""

    named: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--recipe",
            help="One of the model's recipes or of --recipes, or a method as `compare` names it"
            " (unipc-3-step-trailing, diffusers-unipc-leading), in place of the recommended"
            " recipe. The options below change it.",
            metavar="NAME",
        ),
    ] = None
    recipes: Annotated[
        Path | None,
        Panel.SAMPLING.option(help="TOML file of further recipes, one table for each."),
    ] = None
    steps: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "--steps", "-S", help="Number of network evaluations S without guidance, from 1 to T."
        ),
    ] = None
    levels: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Choose the noise levels by variance (VAR), by training step (STEP) or by noise"
            " scale (SIGMA)."
        ),
        LEVELS,
    ] = None
    spacing: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Spacing of the levels; quadratic ones are denser near clean data. See"
            " docs/samplers.md."
        ),
        SPACINGS,
    ] = None
    kappa: Annotated[
        float | None,
        Panel.SAMPLING.option(help="Stochasticity, from 0 (DDIM-rev) to 1 (DDPM-rev)."),
    ] = None
    method: Annotated[
        str | None,
        Panel.SAMPLING.option(help="Sampler; tuned is the model's tuned plan of S."),
        OneOf("fastdpm.core.samplers:method_names"),
    ] = None
    unbounded: Annotated[
        bool, Panel.SAMPLING.option("--unbounded", help="Lift the bound on VAR's variances.")
    ] = False
    start: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="Where STEP quadratic starts, as a share of T in (0, 1]; by default 0.8."
        ),
    ] = None
    at_steps: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Custom training steps, zero-based and falling: 900,500,100.", metavar="X,..."
        ),
    ] = None
    at_levels: Annotated[
        str | None,
        Panel.SAMPLING.option(help="Custom noise levels, rising: 0.1,0.5,0.9.", metavar="X,..."),
    ] = None
    variances: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Custom variances, clean end first: 1e-4,0.01,0.5.", metavar="X,..."
        ),
    ] = None

    def base(self, config: ModelConfig) -> Recipe:
        """The recipe that the other options change: the named or the recommended one."""
        from fastdpm.core.recipes import read_recipes

        more = {} if self.recipes is None else read_recipes(self.recipes, config.recipe)
        if more and self.named not in more:
            raise InvalidArgumentError(
                f"--recipes holds {', '.join(more)}: choose one of them by --recipe"
            )
        if not self._is_theirs:
            return config.find_recipe(self.named, more)
        found, _ = self._theirs(config)
        if found is None:
            raise InvalidArgumentError(f"no recipe gives the samples of {self.named}: only a plan")
        return found

    def tuned(self, found: FoundModel) -> TunedPlan | None:
        """The tuned plan of a model that --method and --steps choose; None for other methods.

        Raises:
            InvalidArgumentError: If there is none, or another option is set too.
        """
        from fastdpm.models.tuned import tuned_of

        if not self._is_tuned:
            return None
        self._check_idle(["--method", "--steps"])
        return tuned_of(found.plans, self.steps or found.config.recipe.num_steps)

    def _default(self, found: FoundModel, recipe: Recipe) -> TunedPlan | None:
        """The tuned plan if no sampler and no levels are chosen, or a note if there is none."""
        from fastdpm.models.tuned import default_plan

        decided = [name for name in self.names() if name not in ("--steps", *_SAMPLED)]
        if decided and recipe.num_steps in found.plans:
            print_notes([f"the tuned plan is not used, because of {' and '.join(decided)}"])
        if decided:
            return None
        tuned, note = default_plan(found.plans, recipe)
        if tuned is None and "--anyway" in self.names():
            return found.plans.get(recipe.num_steps)
        print_notes([note] if note else [])
        return tuned

    def _check_idle(self, decides: Sequence[str]) -> None:
        """Refuse options beside those that decide how to sample."""
        idle = [name for name in self.names() if name not in (*decides, *_SAMPLED)]
        if idle:
            raise InvalidArgumentError(
                f"{decides[0]} already decides {' and '.join(idle)}: use one or the other"
            )

    @property
    def _is_tuned(self) -> bool:
        from fastdpm.core.samplers import TUNED

        return self.method == TUNED

    @property
    def _is_theirs(self) -> bool:
        return self.named is not None and self.named.startswith("diffusers-")

    def _theirs(self, config: ModelConfig) -> tuple[Recipe | None, Plan | None]:
        """The recipe with the samples of a method of diffusers, or else the plan."""
        from fastdpm.core.schedule import VarianceSchedule
        from fastdpm.evaluation.diffusers_samplers import DIFFUSERS_METHODS

        key = self.named or ""
        check_one_of("--recipe", key, DIFFUSERS_METHODS)
        method, count = DIFFUSERS_METHODS[key], self.steps or config.recipe.num_steps
        schedule = VarianceSchedule.from_config(config.schedule)
        method.check_steps(count, schedule.num_train_steps)
        found = method.recipe(count, schedule.num_train_steps)
        if found is not None:
            return config.with_method(found), None
        plan = method.plan(schedule, count)
        if plan is None:
            raise InvalidArgumentError(f"{key} draws noise of its own: choose another --recipe")
        return None, plan

    def compiled(
        self, found: FoundModel, saved: Path | None = None
    ) -> tuple[Recipe, Plan, TunedPlan | None]:
        """The recipe and its plan, which may be that of a method of diffusers, or a tuned one.

        Args:
            found: The model.
            saved: The file of a plan that is used in place of a recipe.
        """
        config, plan = found.config, None
        if saved is not None:
            from fastdpm.models.checks import check_plan
            from fastdpm.models.tuned import TunedPlan, as_plan, read_plan

            self._check_idle(["--plan"])
            read = read_plan(saved)
            check_plan(config.name, found.schedule, as_plan(read))
            if isinstance(read, TunedPlan):
                return read.recipe(config.recipe), read.plan, read
            return config.recipe, read, None
        if self._is_theirs:
            _, plan = self._theirs(config)
        if plan is not None:
            return config.recipe, plan, None
        tuned = self.tuned(found)
        recipe = self.recipe(self.base(config)) if tuned is None else tuned.recipe(config.recipe)
        tuned = tuned or self._default(found, recipe)
        plan = recipe.compile(found.schedule) if tuned is None else tuned.plan
        return recipe, plan, tuned

    def recipe(self, recommended: Recipe, clip: str | None = None) -> Recipe:
        """The recommended recipe, changed by the options that are set."""
        custom = {
            name: tuple(choices.parse(f"--{name.replace('_', '-')}", getattr(self, name), float))
            or None
            for name in ("at_steps", "at_levels", "variances")
        }
        return recommended.change(
            self.named,
            num_steps=self.steps,
            levels=self.levels,
            spacing=self.spacing,
            kappa=self.kappa,
            method=self.method,
            clip=clip,
            bounded=False if self.unbounded else None,
            start=self.start,
            **custom,
        )

    def names(self) -> list[str]:
        """The options that are set, as they are typed."""
        return _typed(self, {"named": "--recipe"})


@dataclass(frozen=True)
class Guiding(Options):
    """How the network is guided; None where an option is not set."""

    guidance_scale: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--guidance",
            help="Scale of classifier-free guidance, or one for each row of the plan: 1 is none,"
            " and above 1 strengthens the class or condition. Scales other than 0 and 1 take two"
            " network evaluations per row.",
            metavar="X,...",
        ),
    ] = None
    guidance_interval: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Lowest and highest noise level with guidance, up to 1 (clean): 0.2:0.9.",
            metavar="FROM:TO",
        ),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="How far guided predictions keep the standard deviation of unguided ones, from 0"
            " to 1."
        ),
    ] = None

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe, changed by the options that are set."""
        scales = choices.parse("--guidance", self.guidance_scale, float)
        return recipe.replace(
            guidance_scale=None if not scales else scales[0] if len(scales) == 1 else scales,
            guidance_interval=choices.parse_range("--guidance-interval", self.guidance_interval),
            guidance_rescale=self.guidance_rescale,
        )

    def guidance(self, default: GuidanceScale) -> GuidanceScale:
        """A guidance, changed by the options that are set."""
        from fastdpm.core.recipe import Recipe

        return self.recipe(Recipe().replace(guidance_scale=default)).guidance

    def names(self) -> list[str]:
        """The options that are set, as they are typed."""
        return _typed(self, {"guidance_scale": "--guidance"})


@dataclass(frozen=True)
class Sampling(RecipeOptions):
    """How to sample: a recipe, or a plan that was compiled from one."""

    plan: Annotated[
        Path | None,
        Panel.SAMPLING.option(
            help="Plan saved by `fastdpm plan --save`, or a tuned plan, in place of --steps to"
            " --variances."
        ),
    ] = None
    clip: choices.Clip = None

    anyway: Annotated[
        bool,
        Panel.SAMPLING.option(
            "--anyway",
            help="Use a tuned plan although it was learned for another model, guidance or"
            " clipping.",
        ),
    ] = False

    def choose(
        self, found: FoundModel, guiding: Guiding
    ) -> tuple[Recipe, Plan | TunedPlan | None]:
        """The recipe, and the plan that leaves only clipping and guidance to it, if there is one.

        That is a saved plan, a tuned plan of the model, or that of a method of diffusers.
        """
        from fastdpm.models.tuned import TunedPlan, read_plan

        config, plan, decides = found.config, None, ["--plan"]
        if self.plan is not None:
            plan = read_plan(self.plan)
        elif (tuned := self.tuned(found)) is not None:
            plan, decides = tuned, ["--method", "--steps"]
        elif self._is_theirs:
            _, plan = self._theirs(config)
            decides = ["--recipe", "--steps"]
        if plan is None:
            recipe = guiding.recipe(self.recipe(self.base(config), self.clip))
            plan = self._default(found, recipe)
            if plan is None:
                return recipe, self._checked(None)
            decides = ["--steps"]
        self._check_idle(decides)
        base = plan.recipe(config.recipe) if isinstance(plan, TunedPlan) else config.recipe
        recipe = guiding.recipe(base.replace(clip=self.clip))
        return recipe, self._checked(plan)

    def _checked(self, plan: Plan | TunedPlan | None) -> Plan | TunedPlan | None:
        """The plan alone of a tuned one that is used anyway; else the plan."""
        from fastdpm.models.tuned import TunedPlan

        if not self.anyway:
            return plan
        if not isinstance(plan, TunedPlan):
            raise InvalidArgumentError("--anyway has an effect on tuned plans only: drop it")
        return plan.plan


def _typed(options: RecipeOptions | Guiding, other: Mapping[str, str]) -> list[str]:
    """The options of a group that are set; ``other`` are those not named after their fields."""
    values = {f.name: getattr(options, f.name) for f in fields(options)}
    # By identity: 0.0 equals False, and --kappa 0 is set.
    chosen = [name for name, value in values.items() if value is not None and value is not False]
    return [other.get(name, f"--{name.replace('_', '-')}") for name in chosen]


def noted(guiding: Guiding, used: GuidanceScale) -> GuidanceScale:
    """The guidance that is used; prints a note if some was set, and none is used."""
    scales = choices.parse("--guidance", guiding.guidance_scale, float)
    if any(scale != 1 for scale in scales) and not used.enabled:
        print_notes([_NO_CLASS])
    return used


def note_idle_guidance(stated: GuidanceScale, used: GuidanceScale, plan: Plan) -> None:
    """Print a note if guidance that was set changes nothing."""
    if stated.enabled and not used.enabled:
        print_notes([_NO_CLASS])
    elif used.interval is not None and (used.per_row(plan.network_level) == 1).all():
        low, high = plan.network_level.min(), plan.network_level.max()
        print_notes(
            [
                f"guidance has no effect: the levels of the plan, {low:.4g} to {high:.4g}, are all"
                " outside of --guidance-interval"
            ]
        )
