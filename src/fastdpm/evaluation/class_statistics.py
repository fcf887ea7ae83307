"""Statistics of the classes of labeled samples, as a part of :class:`Statistics`.

Covariances are stored as the upper triangles of symmetric matrices, in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.data.tensors import bytes_digest
from fastdpm.evaluation.halves import Strata
from fastdpm.evaluation.metrics import Array, Features, Moments
from fastdpm.evaluation.scores import Score, plain, read_scores

_MAX_VALUES = 2**22  # of the covariances of all classes, 16 MiB


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Statistics of each class of labeled samples.

    Attributes:
        labels: Class label of each of the features that the statistics hold, shape (m,).
        moments: Mean and covariance of a class, by its label: of classes with more samples than
            features, and of none if those of all classes would take over 16 MiB.
        held_out: Scores of held-out real samples of a class, by its label and the metric's key.
    """

    labels: Strata
    moments: Mapping[int, Moments]
    held_out: Mapping[int, Mapping[str, Score]] = field(default_factory=dict)

    @classmethod
    def of(cls, features: Features, labels: Strata, chosen: NDArray[np.int64]) -> ClassStatistics:
        """Statistics of features, shape (n, d), and their labels, shape (n,).

        ``chosen`` are the indices of the features that the statistics hold, shape (m,).
        """
        width = features.shape[1]
        known, counts = np.unique(labels, return_counts=True)
        large = known[counts > width]
        if len(large) * width**2 > 2 * _MAX_VALUES:
            large = large[:0]
        moments = {int(label): Moments.of(features[labels == label]) for label in large}
        return cls(labels[chosen], moments)

    @property
    def digest(self) -> str:
        """Digest of labels and moments, as a file holds them."""
        tensors = [tensor.tobytes() for tensor in self.tensors().values()]
        return bytes_digest(repr(self.record()["counts"]).encode(), *tensors)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The tensors of a file."""
        found: dict[str, NDArray[Any]] = {"labels": self.labels}
        if self.moments:
            stored = self.moments.values()
            found["class_mean"] = np.array([m.mean for m in stored], dtype=np.float32)
            found["class_cov"] = np.array([_packed(m.cov) for m in stored], dtype=np.float32)
        return found

    def record(self) -> dict[str, Any]:
        """The values for JSON of a file."""
        counts = [[label, moments.count] for label, moments in self.moments.items()]
        held_out = [[label, plain(scores)] for label, scores in self.held_out.items()]
        return {"counts": counts, "held_out": held_out}

    @classmethod
    def read(
        cls, tensors: Mapping[str, NDArray[Any]], record: Mapping[str, Any]
    ) -> ClassStatistics:
        """Read :meth:`tensors` and :meth:`record`; raises KeyError, ValueError or TypeError."""
        moments = {}
        for row, (label, count) in enumerate(record["counts"]):
            mean = tensors["class_mean"][row].astype(np.float64)
            cov = _unpacked(tensors["class_cov"][row].astype(np.float64), mean.size)
            moments[int(label)] = Moments(int(count), mean, cov)
        held_out = {int(label): read_scores(scores) for label, scores in record["held_out"]}
        return cls(tensors["labels"].astype(np.int64), moments, held_out)


def _packed(cov: Array) -> Array:
    return cov[np.triu_indices(len(cov))]


def _unpacked(triangle: Array, width: int) -> Array:
    cov = np.zeros((width, width))
    cov[np.triu_indices(width)] = triangle
    return cov + np.triu(cov, 1).T
