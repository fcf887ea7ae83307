"""The measured quality of a tuned plan, which its file keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fastdpm.core.arguments import checked
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluating import evaluate
from fastdpm.evaluation.scores import number
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
    quality = {
        "n": found.n,
        "seed": options.seed,
        "features": found.network,
        "against": found.against,
        "scores": {
            metric.key: {
                "name": metric.name,
                "value": number(found.scores[metric.key].value),
                "error": number(found.scores[metric.key].error),
            }
            for metric in found.metrics
            if metric.key in found.scores
        },
    }
    return replace(tuned, quality=quality)
