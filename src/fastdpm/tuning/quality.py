"""The measured quality of a tuned plan, which its file keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastdpm.core.arguments import checked
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluating import evaluate
from fastdpm.evaluation.scores import Metric, Score, number
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan


@checked
def measured(
    tuned: TunedPlan,
    model: FoundModel | Model,
    n: int,
    *,
    against: str | Path | None = None,
    options: DrawOptions | None = None,
) -> TunedPlan:
    """The plan with its quality, measured with fresh samples.

    Args:
        tuned: A tuned plan.
        model: The model that it was learned for.
        n: Number of samples.
        against: The reference data, as in :func:`fastdpm.evaluate`.
        options: Seed, batch size, device and condition of the samples. The precision is that of
            the plan.

    Raises:
        InvalidArgumentError: If the plan was learned for another model, or there are too few
            samples.
        DataError: If the reference data cannot be read.
    """
    options = replace(options or DrawOptions(), precision=tuned.precision)
    found = evaluate(model, against, n=n, plan=tuned, options=options)
    about: dict[str, Any] = {"n": found.n, "seed": options.seed}
    about |= {"features": found.network, "against": found.against}
    return with_quality(tuned, about, found.metrics, found.scores)


def with_quality(
    tuned: TunedPlan,
    about: Mapping[str, Any],
    metrics: Sequence[Metric],
    scores: Mapping[str, Score],
) -> TunedPlan:
    """The plan with scores that were measured.

    Args:
        tuned: A tuned plan.
        about: `n`, `seed`, `features` and `against`; see :class:`fastdpm.TunedPlan`.
        metrics: The metrics.
        scores: What was measured, by their keys.
    """
    known = {
        metric.key: {
            "name": metric.name,
            "value": number(scores[metric.key].value),
            "error": number(scores[metric.key].error),
        }
        for metric in metrics
        if metric.key in scores
    }
    return replace(tuned, quality={**about, "scores": known})
