"""Standard errors are the spread over seeds, also for samples whose classes are chosen."""

import math

import numpy as np
import pytest

from fastdpm.evaluation.halves import half_splits, mean_score
from fastdpm.evaluation.metrics import (
    Moments,
    am_score,
    frechet_score,
    inception_score,
    kernel_score,
    modified_inception_score,
    precision_recall_scores,
)
from fastdpm.evaluation.scores import Score

CLASSES, WIDTH, COUNT = 10, 8, 300
LABELS = np.arange(COUNT) % CLASSES
CENTERS = 2 * np.random.default_rng(1).standard_normal((CLASSES, WIDTH))
PROJECTION = np.random.default_rng(2).standard_normal((WIDTH, 5))


def _features(seed: int, count: int = COUNT, scale: float = 1.1) -> np.ndarray:
    """Features of samples in ten classes far apart; sample i is of class i mod 10."""
    noise = np.random.default_rng(seed).standard_normal((count, WIDTH))
    return scale * (CENTERS[np.arange(count) % CLASSES] + noise)


REFERENCE = _features(10_000, 1000, 1.0)
MOMENTS = Moments.of(REFERENCE)
PROBS = np.full(5, 0.2)
METRICS = {
    "frechet": lambda x, strata: frechet_score(x, MOMENTS, strata),
    "kernel": lambda x, strata: kernel_score(x, REFERENCE, strata),
    "precision": lambda x, strata: precision_recall_scores(x, REFERENCE, strata)[0],
    "recall": lambda x, strata: precision_recall_scores(x, REFERENCE, strata)[1],
    "inception": lambda x, strata: inception_score(x @ PROJECTION, 1, strata),
    "modified inception": lambda x, strata: modified_inception_score(x @ PROJECTION, strata),
    "am": lambda x, strata: am_score(x @ PROJECTION, PROBS, strata),
}


@pytest.mark.parametrize("metric", METRICS)
def test_a_standard_error_is_the_spread_over_seeds(metric):
    scores = [METRICS[metric](_features(seed), LABELS) for seed in range(40)]
    spread = np.std([score.value for score in scores], ddof=1)
    error = math.sqrt(np.mean([score.error**2 for score in scores]))
    assert 1 / 1.5 < error / spread < 1.5


def test_without_the_classes_the_error_would_be_far_too_large():
    scores = [METRICS["frechet"](_features(seed), None) for seed in range(12)]
    spread = np.std([score.value for score in scores], ddof=1)
    assert np.mean([score.error for score in scores]) > 1.5 * max(
        spread, np.mean([METRICS["frechet"](_features(0), LABELS).error])
    )


def test_the_error_of_a_difference_is_its_spread_over_seeds():
    """Two samplers that share their seeds: most of their errors cancels."""
    pairs = [
        (METRICS["frechet"](x, LABELS), METRICS["frechet"](1.02 * x, LABELS))
        for x in map(_features, range(24))
    ]
    found = [a.minus(b) for a, b in pairs]
    spread = np.std([d.value for d in found], ddof=1)
    error = math.sqrt(np.mean([d.error**2 for d in found]))
    assert 1 / 1.5 < error / spread < 1.5
    apart = [a.minus(b, paired=False).error for a, b in pairs]
    assert np.mean(apart) > 3 * spread


def test_halves_hold_equally_many_samples_of_every_class():
    for mask in half_splits(105, np.arange(105) % 10):
        counts = [np.bincount(np.arange(105)[part] % 10) for part in (mask, ~mask)]
        assert abs(counts[0] - counts[1]).max() <= 2
        assert abs(mask.sum() - (~mask).sum()) == 1
    even = half_splits(120, np.arange(120) % 10)
    assert all((np.bincount(np.arange(120)[mask] % 10) == 6).all() for mask in even)
    assert len(np.unique(even, axis=0)) == len(even)
    np.testing.assert_array_equal(even, half_splits(120, np.arange(120) % 10))


def test_scores_that_cannot_be_paired_are_taken_as_independent():
    assert Score(3.0, 0.3).minus(Score(1.0, 0.4)) == Score(2.0, 0.5)
    paired = Score(3.0, 0.3, (0.3, -0.3)).minus(Score(1.0, 0.3, (0.3, -0.3)))
    assert paired == Score(2.0, 0.0, (0.0, 0.0))
    assert math.isnan(Score(3.0, 0.3, (0.3,)).minus(Score(1.0)).error)


def test_the_error_of_a_mean_is_that_of_its_values():
    values = np.random.default_rng(0).standard_normal(400)
    score = mean_score(values)
    assert score.error == pytest.approx(values.std(ddof=1) / 20)
    assert math.sqrt(np.mean(np.square(score.halves))) == pytest.approx(score.error, rel=0.5)
