"""Metrics compute what their papers define, to the last digits, and their errors are honest."""

import math

import mpmath
import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError
from fastdpm.evaluation.metrics import (
    Moments,
    am_score,
    check_features,
    frechet_distance,
    frechet_score,
    inception_score,
    kernel_score,
    modified_inception_score,
    precision_recall_scores,
)
from tests.messages import tells


def _draw(n: int, width: int, seed: int = 0, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)) * scale + shift


def _frechet_of_samples(a: np.ndarray, b: np.ndarray) -> float:
    """From the samples: the root's trace is the nuclear norm of A B^T, A and B being centred."""
    x, y = ((part - part.mean(0)) / math.sqrt(len(part) - 1) for part in (a, b))
    cross = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    return float(np.square(a.mean(0) - b.mean(0)).sum() + (x**2).sum() + (y**2).sum() - 2 * cross)


@pytest.mark.parametrize(
    ("width", "n", "m"), [(8, 500, 300), (64, 1000, 1000), (128, 100, 90), (256, 40, 400)]
)
def test_the_frechet_distance_is_exact_also_with_fewer_samples_than_features(width, n, m):
    a = _draw(n, width)
    b = a[:m] + _draw(m, width, 1, 0.05) if m <= n else _draw(m, width, 2, 1.3, 0.1)
    wanted = _frechet_of_samples(a, b)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(Moments.of(b), Moments.of(a)) == pytest.approx(wanted, rel=1e-6)


def test_the_frechet_distance_equals_its_definition_in_fifty_digits():
    a, b = _draw(5, 7), _draw(9, 7, 1, 2.0, 0.3)
    with mpmath.workdps(50):
        covs = [mpmath.matrix(np.cov(part.T).tolist()) for part in (a, b)]
        values, vectors = mpmath.eigsy(covs[0])
        roots = mpmath.diag([mpmath.sqrt(max(value, 0)) for value in values])
        root = vectors * roots * vectors.T
        cross = sum(
            mpmath.sqrt(max(value, 0))
            for value in mpmath.eigsy(root * covs[1] * root, eigvals_only=True)
        )
        traces = sum(cov[i, i] for cov in covs for i in range(7))
        wanted = float(np.square(a.mean(0) - b.mean(0)).sum() + traces - 2 * cross)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(wanted, rel=1e-9)


def test_the_frechet_distance_is_torchmetrics_own_where_that_is_accurate():
    from torchmetrics.image.fid import FrechetInceptionDistance

    a, b = _draw(400, 16), _draw(300, 16, 1, 1.2, 0.2)

    class Nothing(torch.nn.Identity):
        num_features = 16

    theirs = FrechetInceptionDistance(feature=Nothing())
    theirs.update(torch.from_numpy(a), real=True)
    theirs.update(torch.from_numpy(b), real=False)
    ours = frechet_distance(Moments.of(a), Moments.of(b))
    assert ours == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_moments_do_not_depend_on_the_type_or_the_chunks_of_features():
    features = _draw(10_000, 3, shift=100.0).astype(np.float32)
    moments = Moments.of(features)
    np.testing.assert_allclose(moments.mean, features.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.cov, np.cov(features.T.astype(np.float64)), rtol=1e-10)


def test_the_kernel_distance_is_unbiased_and_sees_a_shift():
    same = kernel_score(_draw(2000, 8), _draw(2000, 8, 1))
    assert abs(same.value) < 3 * same.error
    apart = kernel_score(_draw(2000, 8, shift=0.3), _draw(2000, 8, 1))
    assert apart.value > 10 * apart.error


def _squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """From the definition, over all pairs of different points."""
    kernel = lambda a, b: (a @ b.T / x.shape[1] + 1) ** 3  # noqa: E731
    pairs = len(x) * (len(x) - 1)
    within = sum((k.sum() - np.trace(k)) / pairs for k in (kernel(x, x), kernel(y, y)))
    return float(within - 2 * kernel(x, y).mean())


def test_the_kernel_distance_equals_its_definition():
    x, y = _draw(24, 4), _draw(24, 4, 1)
    assert kernel_score(x, y).value == pytest.approx(_squared_mmd(x, y))


def test_blocks_of_the_kernel_distance_hold_equally_many_samples_of_every_class(monkeypatch):
    monkeypatch.setattr("fastdpm.evaluation.metrics._BLOCK_LIMIT", 10)
    labels = np.arange(40) % 10
    x = labels[:, None] * np.ones((40, 2))
    y = np.arange(10)[:, None] * np.ones((10, 2))
    assert kernel_score(x, y, labels).value == pytest.approx(_squared_mmd(y, y))


def test_precision_and_recall_count_who_lies_in_whose_manifold():
    real = np.arange(40.0)[:, None]
    drawn = np.concatenate([np.arange(20.0), np.full(20, 1000.0) + np.arange(20)])[:, None]
    precision, recall = precision_recall_scores(drawn, real)
    assert precision.value == 0.5
    assert recall.value == pytest.approx(23 / 40)  # 0 ... 19 and the reach of three neighbours
    whole, complete = precision_recall_scores(real, real)
    assert (whole.value, complete.value) == (1.0, 1.0)


def test_precision_reaches_as_far_as_real_points_and_recall_as_far_as_drawn_ones():
    """A dense cluster of samples between points far apart: inside their balls, reaching none."""
    real = (np.arange(40.0)[:, None] - 19.5) * 10
    drawn = np.linspace(-0.2, 0.2, 40)[:, None]
    precision, recall = precision_recall_scores(drawn, real)
    assert (precision.value, recall.value) == (1.0, 0.0)
    precision, recall = precision_recall_scores(real, drawn)
    assert (precision.value, recall.value) == (0.0, 1.0)


def test_the_inception_score_counts_the_classes_of_sure_predictions():
    logits = 100.0 * np.eye(5)[np.arange(100) % 5]
    assert inception_score(logits).value == pytest.approx(5.0)
    assert inception_score(np.zeros((100, 5))).value == pytest.approx(1.0)
    many = np.tile(logits, (20, 1))
    assert 4.9 < inception_score(many, splits=10).value < 4.999


def test_the_modified_inception_score_is_the_mean_over_pairs():
    logits = _draw(30, 4)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pairs = [
        (probs[i] * np.log(probs[i] / probs[j])).sum()
        for i in range(30)
        for j in range(30)
        if i != j
    ]
    assert modified_inception_score(logits).value == pytest.approx(math.exp(np.mean(pairs)))


def test_the_am_score_is_its_definition():
    logits = _draw(25, 3)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = np.array([0.5, 0.3, 0.2])
    entropy = -(probs * np.log(probs)).sum(1).mean()
    apart = (wanted * np.log(wanted / probs.mean(0))).sum()
    assert am_score(logits, wanted).value == pytest.approx(apart + entropy)


def test_too_few_samples_and_foreign_features_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells("x", 19, 20)):
        check_features("x", _draw(19, 2))
    with pytest.raises(InvalidArgumentError, match=tells(19, 20)):
        kernel_score(_draw(19, 2), _draw(100, 2))
    with pytest.raises(InvalidArgumentError, match=tells(3, 2)):
        frechet_score(_draw(50, 3), Moments.of(_draw(50, 2)))
    with pytest.raises(InvalidArgumentError, match=tells(2, 1)):
        Moments.of(_draw(1, 2))


def test_features_that_are_not_finite_are_named():
    features = _draw(30, 2)
    features[7, 1] = np.nan
    with pytest.raises(DataError, match=tells("1 samples of x", "sample 7")):
        check_features("x", features)
