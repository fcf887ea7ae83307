"""The search for the recipe to recommend: many plans of few samples, then few plans of many.

All samplers over all choices of levels are screened (:mod:`fastdpm.evaluation.screening`). The
finalists are measured with the next seed, and the best of them with the one after that, so that
neither choice flatters the value that is reported. Everything is cached: a search that was
interrupted continues from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, positive_or_none
from fastdpm.core.guidance import GuidanceLike
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.grid import Recipes, counts_of, recipes_of
from fastdpm.evaluation.methods import Method, all_methods, choose_methods
from fastdpm.evaluation.metrics import LEAST
from fastdpm.evaluation.recommendation import Recommendation, check_wish
from fastdpm.evaluation.screening import Log, Rounds
from fastdpm.evaluation.search import (
    MOST,
    PreparedRecommendation,
    evaluations_per_step,
    ignore,
    searched_guidance,
)
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model

_BUDGET = 10
_LAST_SEED = 2**64 - 2
_QUALITY_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64)
_DEFAULT_N = {"image": 2000, "recording": 40}


@checked
def recommend(
    model: str | Path | FoundModel | Model,
    budget: float | None = None,
    quality: float | None = None,
    *,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    measuring: MeasureOptions | None = None,
    screen_n: int | None = None,
    finalists: int = 3,
    options: DrawOptions | None = None,
    clip: str | None = None,
    guidance_scale: GuidanceLike | None = None,
    recipes: Recipes | None = None,
    command: str = "",
    log: Log = ignore,
) -> Recommendation:
    """Find the recipe to use for a model: all samplers over all choices of levels are tried.

    Args:
        model: A model, or anything that :func:`fastdpm.load_model` takes.
        budget: The most network evaluations per sample, at least 1; 10 by default. Half and a
            quarter of it are tried too.
        quality: A value of the primary metric to reach, in as few evaluations as possible, up to
            64. Set either this or ``budget``. A Fréchet distance depends on the number of samples.
        steps: Values of S to search in place of these, or one.
        methods: What to screen, as :func:`fastdpm.evaluation.methods.choose_methods` takes it. By
            default all samplers over all choices of levels, kappa 0 and 1, and ``recipes``.
        measuring: Reference, number of samples of the finalists, feature network and cache. By
            default 2,000 images, 400 sounds, or 40 recordings of a vocoder.
        screen_n: Samples of a plan in the last round of the screening; by default half as many.
        finalists: How many plans of each S are measured with another seed, at least 1.
        options: Seed of the screening, precision, batch size, device and condition. The finalists
            have the next seed.
        clip: What is clipped; by default as in the model's recipe.
        guidance_scale: Scale of classifier-free guidance of all plans, one number; by default as
            in the model's recipe.
        recipes: Recipes of your own by name, or a TOML file of them, in addition to those of the
            model.
        command: The command line that reproduces this, for the report.
        log: Called with one line of text now and then.

    Raises:
        InvalidArgumentError: For the reasons of :func:`fastdpm.compare`; if ``budget`` and
            ``quality`` are both set, or the budget is below one evaluation.
    """
    prepared = prepare_recommendation(
        model,
        budget,
        quality,
        steps=steps,
        methods=methods,
        measuring=measuring,
        screen_n=screen_n,
        finalists=finalists,
        options=options,
        clip=clip,
        guidance_scale=guidance_scale,
        recipes=recipes,
    )
    return prepared.run(command, log)


@checked
def prepare_recommendation(
    model: str | Path | FoundModel | Model,
    budget: float | None = None,
    quality: float | None = None,
    *,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    measuring: MeasureOptions | None = None,
    screen_n: int | None = None,
    finalists: int = 3,
    options: DrawOptions | None = None,
    clip: str | None = None,
    guidance_scale: GuidanceLike | None = None,
    recipes: Recipes | None = None,
) -> PreparedRecommendation:
    """Check everything that :func:`recommend` needs, to estimate its cost before it runs.

    The arguments are those of :func:`recommend`.
    """
    check_wish(budget, quality)
    if finalists < 1:
        raise InvalidArgumentError(f"`finalists` must be at least 1, got {finalists}")
    settings, draw = measuring or MeasureOptions(), options or DrawOptions()
    if draw.seed >= _LAST_SEED:
        raise InvalidArgumentError(f"`seed` must be below {_LAST_SEED}, got {draw.seed}")
    handle = ModelHandle(model, draw.device)
    config = handle.config
    guidance = searched_guidance(handle, guidance_scale, draw)
    total = VarianceSchedule.from_config(config.schedule).num_train_steps
    if steps is not None:
        counts = tuple(counts_of([steps] if isinstance(steps, int) else steps, None, total))
        _check_within(counts, budget, evaluations_per_step(guidance))
    else:
        if budget is None and quality is None:
            budget = float(_BUDGET)
        counts = _counts(budget, total, evaluations_per_step(guidance))
    named = recipes_of(recipes, config)
    chosen = (
        [*all_methods(named, handle.plans)]
        if methods is None
        else [*choose_methods(methods, None, named, handle.plans)]
    )
    kind = "recording" if config.data.mel is not None else config.data.modality
    n = settings.n or _DEFAULT_N.get(kind, 400)
    screen_n = positive_or_none("screen_n", screen_n) or min(n, max(n // 2, LEAST))
    prepared = PreparedRecommendation(
        handle,
        tuple(method for method in chosen if not method.has_own_steps),
        tuple(m for m in chosen if m.has_own_steps and not m.takes_all_steps),
        counts,
        Rounds(screen_n, finalists, LEAST),
        replace(settings, n=n),
        draw,
        config.recipe.clip if clip is None else clip,
        guidance,
        budget,
        quality,
    )
    if not (prepared.methods or prepared.own):
        raise InvalidArgumentError("`methods` must name at least one few-step method")
    measure = prepared.check().measure
    least, distance = measure.least, measure.metrics[0].lower_is_better
    if quality is not None and distance and quality <= 0:
        raise InvalidArgumentError(f"`quality` must be above 0 for a distance, got {quality:g}")
    if screen_n < least:
        raise InvalidArgumentError(f"`screen_n` must be at least {least}, got {screen_n}")
    return replace(prepared, rounds=replace(prepared.rounds, least=least))


def _check_within(counts: Sequence[int], budget: float | None, per_step: int) -> None:
    """Check values of S that were set against the budget.

    Raises:
        InvalidArgumentError: If there are none, or one takes more than the budget.
    """
    if not counts:
        raise InvalidArgumentError("`steps` must hold at least one S, got none")
    needed = max(counts) * per_step
    if budget is not None and needed > budget:
        raise InvalidArgumentError(
            f"S = {max(counts)} of `steps` takes {needed} network evaluations, and the `budget` is"
            f" {budget:g}: raise it, or drop one of them"
        )


def _counts(budget: float | None, total: int, per_step: int) -> tuple[int, ...]:
    """The values of S to search."""
    if budget is None:
        limit = min(MOST // per_step, total)
        return tuple(count for count in _QUALITY_STEPS if count <= limit) or (total,)
    highest = min(int(budget // per_step), total)
    if highest < 1:
        raise InvalidArgumentError(
            f"`budget` must be at least {per_step} network evaluations with guidance, got"
            f" {budget:g}"
        )
    fewer = (round(highest / part) for part in (4, 2) if round(highest / part) >= 2)
    return tuple(dict.fromkeys((*fewer, highest)))
