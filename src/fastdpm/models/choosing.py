"""Which plan draws samples: that of a recipe, one of the user's own, or a tuned one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.samplers import TUNED
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.models.checks import check_unused
from fastdpm.models.config import ModelConfig
from fastdpm.models.identity import model_digest
from fastdpm.models.tuned import TunedPlan, default_plan, tuned_of

if TYPE_CHECKING:
    from fastdpm.models.model import Model

_ALL_THE_SAME = "tune again, or pass its `.plan` to use it all the same"
_LEVELS = ("num_steps", "levels", "spacing", "kappa", "method")


def choose_plan(
    config: ModelConfig,
    plans: Mapping[int, TunedPlan],
    plan: Plan | TunedPlan | None,
    recipe: Recipe | str | None,
    choices: Mapping[str, Any],
) -> tuple[Recipe, Plan | TunedPlan]:
    """Choose the plan, and the recipe that decides clipping and guidance.

    Args:
        config: Configuration of the model.
        plans: The tuned plans of the model, by S.
        plan: A plan; None for one of the following.
        recipe: A recipe or its name; None for the recommended one, or the tuned plan of its S.
        choices: Changes of the recipe, as :meth:`fastdpm.Recipe.replace` takes them. A method of
            "tuned" is the tuned plan of S.

    Raises:
        InvalidArgumentError: If they contradict each other, or there is no such recipe or plan.
    """
    found, others = config.find_recipe(recipe), dict(choices)
    levels = {name: others.pop(name) for name in _LEVELS}
    if levels["method"] == TUNED:
        idle = levels | {"method": None, "num_steps": None, "recipe": recipe, "plan": plan}
        check_unused(idle, f"method {TUNED!r}")
        plan = tuned_of(plans, levels["num_steps"] or found.num_steps)
    elif plan is not None:
        check_unused(levels | {"recipe": recipe}, "`plan`")
    if plan is not None:
        base = plan.recipe(found) if isinstance(plan, TunedPlan) else found
        return base.replace(**others), plan
    changed = found.change(recipe if isinstance(recipe, str) else None, **choices)
    if recipe is None and all(levels[name] is None for name in _LEVELS[1:]):
        tuned, _ = default_plan(plans, changed)
        if tuned is not None:
            return changed, tuned
    return changed, changed.compile(VarianceSchedule.from_config(config.schedule))


def usable_plan(
    plan: Plan | TunedPlan, model: Model, recipe: Recipe, advice: str = _ALL_THE_SAME
) -> Plan:
    """Check that a plan is one for a model, and a tuned one for what is sampled; return it.

    Args:
        plan: The plan.
        model: The model.
        recipe: Decides clipping and guidance.
        advice: How to use a tuned plan all the same.

    Raises:
        InvalidArgumentError: If it was made for another schedule, or learned for something else.
    """
    if isinstance(plan, TunedPlan):
        digest = model_digest(model, guided=plan.guidance.enabled)
        differences = plan.differences(recipe, digest)
        if differences:
            raise InvalidArgumentError(
                f"plan {plan.plan.label!r} was learned for {' and '.join(differences)}, which is"
                f" not what is sampled now: {advice}"
            )
        plan = plan.plan
    model.check_plan(plan)
    return plan
