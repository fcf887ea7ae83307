"""Metrics between sets of samples, computed from their features and class probabilities.

Every metric has a standard error over the samples, with the reference data taken as exact; see
:mod:`fastdpm.evaluation.halves`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.evaluation.halves import (
    Mask,
    Strata,
    half_differences,
    half_score,
    half_splits,
    score_of,
)
from fastdpm.evaluation.scores import Score

Array = NDArray[np.float64]
Features = NDArray[np.floating]

LEAST = 20
NEIGHBORS = 3
_CHUNK = 4096
_BLOCK_LIMIT = 1000


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
            f"{count} samples{of} are too few: the metrics need at least {least}, so draw more,"
            " with a larger `n`"
        )


def check_features(name: str, features: Features, least: int = LEAST, first: int = 0) -> None:
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


def frechet_score(features: Features, reference: Moments, strata: Strata | None = None) -> Score:
    """Fréchet distance of features, shape (n, d), to a reference.

    The error uses a faster, less accurate form of the distance.

    Args:
        features: Shape (n, d).
        reference: Mean and covariance of the reference.
        strata: See :func:`half_splits`, here and below.
    """
    _check_widths(features.shape[1], reference.mean.size)
    root = _root(reference.cov)
    whole = frechet_distance(Moments.of(features), reference, root_b=root)
    halves = half_differences(
        lambda keep: _frechet_quickly(features[keep], reference, root),
        half_splits(len(features), strata),
    )
    return score_of(whole, halves)


def kernel_score(
    features: Features, reference: Features, strata: Strata | None = None, *, seed: int = 0
) -> Score:
    """Kernel distance: unbiased squared MMD with the kernel (x.y / d + 1)^3, mean over blocks.

    The samples are split into blocks of at most 1,000, each with equally many samples of every
    stratum. Each block is compared with equally many features of the reference, chosen at random.

    Args:
        features: Shape (n, d).
        reference: Shape (m, d).
        strata: See :func:`fastdpm.evaluation.halves.half_splits`.
        seed: Seed of the random choice.

    Source: Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    _check_widths(features.shape[1], reference.shape[1])
    check_count(len(features), LEAST)
    check_features("the reference", reference, 2)
    strata = np.zeros(len(features), dtype=np.int64) if strata is None else strata
    order = shuffled(len(features))
    order = order[np.argsort(strata[order], kind="stable")]
    count = math.ceil(len(features) / min(_BLOCK_LIMIT, len(reference)))
    size = len(features) // count
    generator = np.random.default_rng(seed)
    blocks, block_of = [], np.empty(len(features), dtype=np.int64)
    for first in range(count):
        block_of[order[first::count]] = first
        members = order[first::count][:size]
        chosen = reference[generator.choice(len(reference), size, replace=False)]
        blocks.append((members, _Kernels(features[members], chosen)))

    def value(keep: Mask) -> float:
        return float(np.mean([kernels.distance(keep[members]) for members, kernels in blocks]))

    return half_score(value, len(features), strata * count + block_of)


def precision_recall_scores(
    features: Features, reference: Features, strata: Strata | None = None
) -> tuple[Score, Score]:
    """Fraction of samples in the reference's manifold, and of the reference in the samples'.

    A manifold is the union of balls around all points; each ball reaches to the third neighbor of
    its point. Equally many samples of both sets are used, chosen at random, because the balls
    shrink as their number grows.

    Args:
        features: Shape (n, d).
        reference: Shape (m, d).
        strata: See :func:`half_splits`.

    Returns:
        Precision and recall, in [0, 1].

    Source: Kynkaanniemi et al. 2019, arXiv:1904.06991, section 2.
    """
    _check_widths(features.shape[1], reference.shape[1])
    from sklearn.metrics import pairwise_distances

    count = min(len(features), len(reference))
    chosen = shuffled(len(features))[:count]
    drawn = np.asarray(features[chosen], dtype=np.float32)
    real = np.asarray(reference[shuffled(len(reference))[:count]], dtype=np.float32)
    strata = None if strata is None else strata[chosen]
    between = pairwise_distances(drawn, real)
    radii = _radii(pairwise_distances(real), np.ones(count, dtype=bool))
    inside_real = (between <= radii).any(1)
    among = _Neighbors(pairwise_distances(drawn))

    def recall(keep: Mask) -> float:
        return float((between[keep] <= among.radii(keep)[:, None]).any(0).mean())

    precision = half_score(lambda keep: float(inside_real[keep].mean()), count, strata)
    # The halves of a split cover much of the reference both, so that their difference is small.
    masks = half_splits(count, strata)
    parts = np.array([recall(mask) for mask in (*masks, *~masks)])
    return precision, score_of(recall(np.ones(count, dtype=bool)), parts - parts.mean())


def inception_score(logits: Features, splits: int = 1, strata: Strata | None = None) -> Score:
    """exp(E KL(p(y|x) || p(y))), mean over ``splits`` parts of the samples; higher is better.

    Args:
        logits: Of the classifier, shape (n, classes).
        splits: Number of parts. Published values use ten, which needs many samples: the value
            grows with the number of samples.
        strata: See :func:`half_splits`.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """
    import torch
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its buffer, and about the spread of a single split
        metric = InceptionScore(feature=torch.nn.Identity(), splits=splits)

        def value(keep: Mask) -> float:
            metric.reset()
            metric.update(torch.from_numpy(np.asarray(logits[keep], dtype=np.float64)))
            with torch.random.fork_rng(devices=[]):  # it shuffles the samples
                torch.manual_seed(0)
                return float(metric.compute()[0])

        return half_score(value, len(logits), strata)


def modified_inception_score(logits: Features, strata: Strata | None = None) -> Score:
    """exp(E KL(p(y|x) || p(y|x'))) over pairs of different samples; higher is better.

    Source: Gurumurthy et al. 2017, arXiv:1706.02071, section 5.1.
    """
    probs, log_probs = _probabilities(logits)
    own = (probs * log_probs).sum(1)

    def value(keep: Mask) -> float:
        count = int(keep.sum())
        cross = (probs[keep].mean(0) * log_probs[keep].mean(0)).sum()
        return math.exp((own[keep].mean() - cross) * count / (count - 1))

    return half_score(value, len(logits), strata)


def am_score(logits: Features, reference_probs: Features, strata: Strata | None = None) -> Score:
    """KL(p_ref(y) || E p(y|x)) + E H(p(y|x)); lower is better.

    Args:
        logits: Shape (n, classes).
        reference_probs: Mean class probabilities of the reference, shape (classes,).
        strata: See :func:`half_splits`.

    Source: Zhou et al. 2018, arXiv:1703.02000, section 5.
    """
    from scipy.special import rel_entr

    _check_widths(logits.shape[1], reference_probs.size)
    probs, log_probs = _probabilities(logits)
    entropy = -(probs * log_probs).sum(1)

    def value(keep: Mask) -> float:
        apart = rel_entr(reference_probs, probs[keep].mean(0)).sum()
        return float(apart + entropy[keep].mean())

    return half_score(value, len(logits), strata)


def shuffled(count: int) -> NDArray[np.int64]:
    """Indices in a random order that is always the same, because data may be sorted by class."""
    return np.random.default_rng(0).permutation(count)


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


def _radii(distances: Features, keep: Mask) -> Features:
    """Distance of each kept point to its third kept neighbor, shape (kept points,)."""
    kept = distances[np.ix_(keep, keep)]
    nearest = min(NEIGHBORS, len(kept) - 1)  # a point itself is at place 0
    return np.asarray(np.partition(kept, nearest, axis=1)[:, nearest])


def polynomial_kernel(a: Array, b: Array) -> Array:
    """The kernel (x.y / d + 1)^3 of all pairs of rows, shapes (n, d) and (m, d)."""
    return np.asarray((a @ b.T / a.shape[1] + 1) ** 3)


class _Kernels:
    """Kernels of the pairs of a block, to compute the distance of any part of it."""

    def __init__(self, drawn: Features, real: Features) -> None:
        x, y = (np.asarray(part, dtype=np.float64) for part in (drawn, real))
        self.within = polynomial_kernel(x, x)
        np.fill_diagonal(self.within, 0.0)
        self.between = polynomial_kernel(x, y).mean(1)
        pairs = polynomial_kernel(y, y)
        self.real = (pairs.sum() - np.trace(pairs)) / (len(real) * (len(real) - 1))

    def distance(self, keep: Mask) -> float:
        """The distance of the kept samples to the real ones."""
        count = int(keep.sum())
        within = keep @ self.within @ keep / (count * (count - 1))
        return float(within + self.real - 2 * self.between[keep].mean())


class _Neighbors:
    """Radii of the balls around a part of some points, quickly for many parts.

    The third neighbor in a half is nearly always among the 24 nearest of all points.
    """

    _LISTED = 24

    def __init__(self, distances: Features) -> None:
        self.distances = distances
        listed = min(self._LISTED, len(distances) - 1)
        nearest = np.argpartition(distances, listed, axis=1)[:, : listed + 1]
        reach = np.take_along_axis(distances, nearest, axis=1)
        order = reach.argsort(axis=1, kind="stable")
        self.nearest = np.take_along_axis(nearest, order, axis=1)
        self.reach = np.take_along_axis(reach, order, axis=1)

    def radii(self, keep: Mask) -> Features:
        """See :func:`_radii`."""
        if keep.sum() <= NEIGHBORS + 1:
            return _radii(self.distances, keep)
        found = keep[self.nearest[keep]].cumsum(axis=1) == NEIGHBORS + 1
        radii = np.take_along_axis(self.reach[keep], found.argmax(axis=1)[:, None], axis=1)[:, 0]
        far = np.flatnonzero(~found.any(axis=1))
        if far.size:
            rows = self.distances[np.flatnonzero(keep)[far]][:, keep]
            radii[far] = np.partition(rows, NEIGHBORS, axis=1)[:, NEIGHBORS]
        return np.asarray(radii)


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
