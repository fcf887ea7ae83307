"""Metrics between sets of samples, computed from their features and class probabilities.

Every metric comes with a standard error over the drawn samples; the reference is treated as exact.
The error is that of a delete-a-group jackknife: the samples are split into g groups, each group is
left out once, and var = (g - 1) / g * sum (value without group i - their mean)^2. The kernel
distance is a mean over disjoint blocks, and its error comes from their spread.
Source: Efron & Stein 1981, Annals of Statistics 9(3), for the jackknife.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.evaluation.scores import Score

Array = NDArray[np.float64]
Features = NDArray[np.floating]

GROUPS = 20
NEIGHBORS = 3
_CHUNK = 4096
_BLOCK_LIMIT = 1000
_MIN_BLOCKS = 10


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean, shape (d,), and unbiased covariance, shape (d, d), of ``count`` feature vectors."""

    count: int
    mean: Array
    cov: Array

    @classmethod
    def of(cls, features: Features) -> Moments:
        """Compute the moments of features, shape (n, d), in float64.

        Raises:
            InvalidArgumentError: If there are fewer than two features.
        """
        count, width = features.shape
        check_count(count, 2)
        mean = features.mean(0, dtype=np.float64)
        scatter = np.zeros((width, width))
        for first in range(0, count, _CHUNK):
            centered = features[first : first + _CHUNK] - mean
            scatter += centered.T @ centered
        return cls(count, mean, scatter / (count - 1))


def check_count(count: int, least: int, of: str = "") -> None:
    """Raise InvalidArgumentError if there are fewer than ``least`` samples."""
    if count < least:
        raise InvalidArgumentError(
            f"{count} samples{of} are too few: the metrics need at least {least}"
        )


def check_features(name: str, features: Features, least: int = GROUPS, first: int = 0) -> None:
    """Check that there are enough features, and that all are finite.

    ``first`` is the index of the first one, for the message.

    Raises:
        InvalidArgumentError: If there are fewer than ``least``.
        DataError: If one is not finite.
    """
    check_count(len(features), least, f" of {name}")
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if broken.size:
        raise DataError(
            f"the features of {broken.size} samples of {name} are not finite, first those of"
            f" sample {first + broken[0]}: check the samples and the feature network"
        )


def frechet_distance(a: Moments, b: Moments, *, root_b: Array | None = None) -> float:
    """Distance of two Gaussians: |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)).

    The trace of the root is the sum of the singular values of C_a^(1/2) C_b^(1/2). Unlike the
    eigenvalues of C_a C_b, these stay accurate if a covariance is singular, which it is for fewer
    samples than features. ``root_b`` is C_b^(1/2) if it is already known.

    Raises:
        InvalidArgumentError: If the two have different numbers of features.

    Source: Heusel et al. 2017, arXiv:1706.08500, section 2.
    """
    _check_widths(a.mean.size, b.mean.size)
    root_b = _root(b.cov) if root_b is None else root_b
    cross = np.linalg.svd(_root(a.cov).T @ root_b, compute_uv=False).sum()
    apart = np.square(a.mean - b.mean).sum()
    return float(apart + np.trace(a.cov) + np.trace(b.cov) - 2 * cross)


def frechet_score(features: Features, reference: Moments) -> Score:
    """Frechet distance of features, shape (n, d), to a reference.

    The error uses a faster, less accurate form of the distance.
    """
    _check_widths(features.shape[1], reference.mean.size)
    root = _root(reference.cov)
    whole = frechet_distance(Moments.of(features), reference, root_b=root)
    parts = jackknife(
        lambda keep: _frechet_quickly(features[keep], reference, root), len(features)
    )
    return Score(whole, parts.error)


def kernel_score(features: Features, reference: Features, seed: int = 0) -> Score:
    """Kernel distance: unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over blocks.

    The samples are split into at least ten disjoint blocks of at most 1,000 samples. Each block is
    compared with equally many features of the reference, chosen at random.

    Args:
        features: Shape (n, d).
        reference: Shape (m, d).
        seed: Seed of the random choice.

    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    _check_widths(features.shape[1], reference.shape[1])
    import torch
    from torchmetrics.image.kid import poly_mmd

    check_count(len(features), 2 * _MIN_BLOCKS)
    check_features("the reference", reference, 2)
    size = min(_BLOCK_LIMIT, len(features) // _MIN_BLOCKS, len(reference))
    generator = np.random.default_rng(seed)
    features = features[shuffled(len(features))]
    values = []
    for first in range(0, len(features) - size + 1, size):
        chosen = generator.choice(len(reference), size, replace=False)
        pair = (reference[chosen], features[first : first + size])
        real, drawn = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in pair)
        values.append(float(poly_mmd(real, drawn)))
    return mean_score(np.array(values))


def precision_recall_scores(features: Features, reference: Features) -> tuple[Score, Score]:
    """Fraction of samples in the reference's manifold, and of the reference in the samples'.

    A manifold is the union of balls around all points; each ball reaches to the third neighbor of
    its point. Equally many samples of both sets are used, chosen at random, because the balls
    shrink as their number grows. The error of recall keeps the balls fixed. It may be up to twice
    too large, because the jackknife overestimates the error of functions that are not smooth.

    Args:
        features: Shape (n, d).
        reference: Shape (m, d).

    Returns:
        Precision and recall, in [0, 1].

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, section 2.
    """
    _check_widths(features.shape[1], reference.shape[1])
    from sklearn.metrics import pairwise_distances

    count = min(len(features), len(reference))
    drawn, real = (
        np.asarray(part[shuffled(len(part))[:count]], dtype=np.float32)
        for part in (features, reference)
    )
    between = pairwise_distances(drawn, real)
    among, among_real = pairwise_distances(drawn), pairwise_distances(real)
    inside_real = (between <= _radii(among_real)).any(1)
    covers = between <= _radii(among)[:, None]
    precision = jackknife(lambda keep: float(inside_real[keep].mean()), count)
    return precision, jackknife(lambda keep: float(covers[keep].any(0).mean()), count)


def inception_score(logits: Features, splits: int = 1) -> Score:
    """exp(E KL(p(y|x) || p(y))), mean over ``splits`` parts of the samples; higher is better.

    Args:
        logits: Of the classifier, shape (n, classes).
        splits: Number of parts. Published values use ten, which needs many samples: the value
            grows with the number of samples.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    import torch
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its buffer, and about the spread of a single split
        metric = InceptionScore(feature=torch.nn.Identity(), splits=splits)

        def value(keep: NDArray[np.bool_]) -> float:
            metric.reset()
            metric.update(torch.from_numpy(np.asarray(logits[keep], dtype=np.float64)))
            with torch.random.fork_rng(devices=[]):  # it shuffles the samples
                torch.manual_seed(0)
                return float(metric.compute()[0])

        return jackknife(value, len(logits))


def modified_inception_score(logits: Features) -> Score:
    """exp(E KL(p(y|x) || p(y|x'))) over pairs of different samples; higher is better.

    Source: Gurumurthy et al. 2017, arXiv:1706.02071, section 5.1.
    """
    probs, log_probs = _probabilities(logits)
    own = (probs * log_probs).sum(1)

    def value(keep: NDArray[np.bool_]) -> float:
        count = int(keep.sum())
        cross = (probs[keep].mean(0) * log_probs[keep].mean(0)).sum()
        return math.exp((own[keep].mean() - cross) * count / (count - 1))

    return jackknife(value, len(logits))


def am_score(logits: Features, reference_probs: Features) -> Score:
    """KL(p_ref(y) || E p(y|x)) + E H(p(y|x)); lower is better.

    Args:
        logits: Shape (n, classes).
        reference_probs: Mean class probabilities of the reference, shape (classes,).

    Source: Zhou et al. 2018, arXiv:1703.02000, section 5.
    """
    from scipy.special import rel_entr

    _check_widths(logits.shape[1], reference_probs.size)
    probs, log_probs = _probabilities(logits)
    entropy = -(probs * log_probs).sum(1)

    def value(keep: NDArray[np.bool_]) -> float:
        apart = rel_entr(reference_probs, probs[keep].mean(0)).sum()
        return float(apart + entropy[keep].mean())

    return jackknife(value, len(logits))


def shuffled(count: int) -> NDArray[np.int64]:
    """Indices in a random order that is always the same, because data may be sorted by class."""
    return np.random.default_rng(0).permutation(count)


def jackknife(value: Callable[[NDArray[np.bool_]], float], count: int) -> Score:
    """The value over all samples, and its error from leaving out each of twenty groups.

    Args:
        value: Computes the metric of the samples in a mask, shape (count,).
        count: Number of samples; if there are fewer than twenty, each sample is a group.
    """
    groups = min(GROUPS, count)
    member = np.arange(count) % groups
    parts = np.array([value(member != group) for group in range(groups)])
    whole = value(np.ones(count, dtype=bool))
    error = math.sqrt((groups - 1) / groups * np.square(parts - parts.mean()).sum())
    return Score(
        whole, error if error > 1e-12 * abs(whole) else 0.0
    )  # smaller values are rounding errors


def mean_score(values: Array) -> Score:
    """Mean of the finite values, shape (n,), and its standard error.

    Both are NaN if no value is finite; the error is NaN if only one is.
    """
    kept = values[np.isfinite(values)]
    if kept.size < 2:
        return Score(float(kept[0]) if kept.size else math.nan)
    return Score(float(kept.mean()), float(kept.std(ddof=1) / math.sqrt(kept.size)))


def _frechet_quickly(features: Features, reference: Moments, root: Array) -> float:
    """The distance from singular values for few samples, else from eigenvalues."""
    mean = features.mean(0, dtype=np.float64)
    centered = (features - mean) / math.sqrt(len(features) - 1)
    mapped = centered @ root
    if len(features) <= root.shape[1]:
        cross = np.linalg.svd(mapped, compute_uv=False).sum()
    else:
        cross = np.sqrt(np.linalg.eigvalsh(mapped.T @ mapped).clip(0)).sum()
    apart = np.square(mean - reference.mean).sum()
    return float(apart + np.square(centered).sum() + np.trace(reference.cov) - 2 * cross)


def _root(cov: Array) -> Array:
    """A matrix R with R R^T = cov; directions that are only rounding errors are dropped."""
    values, vectors = np.linalg.eigh(cov)
    floor = max(values[-1], 0.0) * values.size * np.finfo(np.float64).eps
    return np.asarray(vectors * np.sqrt(np.where(values > floor, values, 0.0)))


def _radii(distances: Features) -> Features:
    """Distance of each point to its third neighbor (not counting itself), shape (n,)."""
    nearest = min(NEIGHBORS, len(distances) - 1)
    return np.asarray(np.partition(distances, nearest, axis=1)[:, nearest])


def _probabilities(logits: Features) -> tuple[Array, Array]:
    from scipy.special import log_softmax

    log_probs = np.asarray(log_softmax(logits.astype(np.float64), axis=1))
    return np.exp(log_probs), log_probs


def _check_widths(a: int, b: int) -> None:
    if a != b:
        raise InvalidArgumentError(
            f"the samples have {a} features or classes, but the reference has {b}: use the same"
            " feature network for both"
        )
