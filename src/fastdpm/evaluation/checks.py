"""Checks that every argument of a measurement has an effect."""

from __future__ import annotations

from collections.abc import Sequence

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.methods import Method, TunedMethod
from fastdpm.evaluation.options import MeasureOptions
from fastdpm.models.identity import model_digest
from fastdpm.models.tuned import TunedPlan


def check_no_model(
    samples: str,
    recipe: Recipe | None,
    plan: Plan | TunedPlan | None,
    guidance_scale: GuidanceLike | None,
    options: DrawOptions,
) -> None:
    """Raise InvalidArgumentError if an argument has an effect on models only."""
    stated = {"recipe": recipe, "plan": plan, "guidance_scale": guidance_scale}
    changed = {name: value is not None for name, value in stated.items()} | {
        name: getattr(options, name) != getattr(DrawOptions(), name)
        for name in ("seed", "precision")
    }
    idle = [name for name, is_changed in changed.items() if is_changed]
    values = ("condition", "class_labels")  # a tensor has no truth value
    idle += [name for name in values if getattr(options, name) is not None]
    if idle:
        raise InvalidArgumentError(
            f"{samples} is not a model, so {' and '.join(f'`{name}`' for name in idle)} would have"
            " no effect: drop it"
        )


def check_used(data: DataSpec, measuring: MeasureOptions, options: DrawOptions) -> None:
    """Check that every option has an effect on measuring a model of ``data``.

    Raises:
        InvalidArgumentError: If one has none.
    """
    if measuring.scale_to_peak:
        raise InvalidArgumentError(
            "samples of a model are measured at their own level, so `scale_to_peak` would have no"
            " effect: drop it"
        )
    if data.mel is None:
        return
    if measuring.features is not None or measuring.inception is not None:
        raise InvalidArgumentError(
            "a vocoder is measured against the recordings themselves: drop `features` and"
            " `inception`"
        )
    if measuring.batch_size is not None or options.batch_size is not None:
        raise InvalidArgumentError(
            "a vocoder draws one recording at a time: drop `batch_size`, which has no effect"
        )
    if options.condition is not None:
        raise InvalidArgumentError(
            "a vocoder is conditioned on the recordings themselves: drop `condition`"
        )


def check_tuned(methods: Sequence[Method], handle: ModelHandle) -> None:
    """Raise InvalidArgumentError if tuned plans among the methods are those of another model."""
    plans = [tuned for m in methods if isinstance(m, TunedMethod) for tuned in m.plans.values()]
    for guided in dict.fromkeys(tuned.guidance.enabled for tuned in plans):
        digest = model_digest(handle.model, guided=guided)
        for tuned in plans:
            if tuned.guidance.enabled == guided and tuned.model != digest:
                raise InvalidArgumentError(
                    f"plan {tuned.plan.label!r} was learned for another model than"
                    f" {handle.config.name}: drop it, or tune again"
                )


def check_sizes(
    methods: Sequence[Method],
    steps: Sequence[int] | None,
    n: int | None,
    reference_n: int | None,
) -> None:
    """Raise InvalidArgumentError if a number has no effect on these methods."""
    check_limit("`reference_n`", reference_n or 0, MAX_SAMPLES)
    standard = [method for method in methods if method.takes_all_steps]
    if not standard and reference_n is not None:
        raise InvalidArgumentError(
            "`methods` holds no standard sampler, so `reference_n` would have no effect: drop it"
        )
    if steps is not None and all(method.has_own_steps for method in methods):
        raise InvalidArgumentError(
            "`methods` holds only standard samplers and recipes with custom levels, which have"
            " their own number of steps, so `steps` would have no effect: drop it"
        )
    only = standard and len(standard) == len(methods)
    if only and n is not None and reference_n is not None:
        raise InvalidArgumentError(
            "`methods` holds standard samplers only, so `n` would have no effect beside"
            " `reference_n`: drop one of them"
        )
