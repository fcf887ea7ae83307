"""Statistics of a set of samples under a feature network: the reference of a distance.

They are kept as safetensors. Files of ``mu`` and ``sigma``, which pytorch-fid and the FastDPM
authors' code use, can be read too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import parse_json
from fastdpm.data.arrays import array_names, has_objects, read_arrays
from fastdpm.data.files import write_bytes
from fastdpm.data.tensors import bytes_digest, read_with_head
from fastdpm.evaluation.class_statistics import ClassStatistics
from fastdpm.evaluation.halves import Strata
from fastdpm.evaluation.metrics import Array, Features, Moments, shuffled
from fastdpm.evaluation.scores import Floor, plain

REFERENCE = "reference.safetensors"
MAX_FEATURES = 2000
INCEPTION = "inception-v3"
_FORMAT = "fastdpm-statistics"
_INCEPTION_WIDTH = 2048
_LARGEST = 1e60  # of features and their squares


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of a set of samples.

    Attributes:
        network: Name of the feature network.
        fingerprint: Digest of its weights; empty where a file does not record it.
        label: The samples, for people.
        moments: Mean and covariance of their features.
        features: At most 2,000 of the features, drawn at random, shape (m, d), float16; None if
            unknown.
        probs: Mean class probabilities, shape (classes,); None if unknown.
        held_out: Metrics of held-out real data against these statistics: the best value that
            samples can be expected to reach.
        classes: Statistics of each class; None if the samples had no labels.
    """

    network: str
    fingerprint: str
    label: str
    moments: Moments
    features: NDArray[np.float16] | None = None
    probs: Array | None = None
    held_out: Floor | None = None
    classes: ClassStatistics | None = None

    @classmethod
    def of(
        cls,
        network: str,
        fingerprint: str,
        label: str,
        features: Features,
        logits: Features,
        labels: Strata | None = None,
    ) -> Statistics:
        """Statistics of features, shape (n, d), logits, shape (n, classes), and labels, (n,)."""
        from scipy.special import softmax

        chosen = shuffled(len(features))[:MAX_FEATURES]
        return cls(
            network,
            fingerprint,
            label,
            Moments.of(features),
            np.asarray(features[chosen], dtype=np.float16),
            np.asarray(softmax(logits.astype(np.float64), axis=1).mean(0)),
            classes=None if labels is None else ClassStatistics.of(features, labels, chosen),
        )

    @property
    def digest(self) -> str:
        """Digest of all values but those of classes."""
        tables = (self.moments.mean, self.moments.cov, self.features, self.probs)
        return bytes_digest(*(b"-" if table is None else table.tobytes() for table in tables))

    def check_network(self, network: str, fingerprint: str) -> None:
        """Check that these statistics belong to a feature network.

        Raises:
            InvalidArgumentError: If they belong to another one.
        """
        same = not self.fingerprint or self.fingerprint == fingerprint
        if self.network != network or not same:
            theirs = f"{self.network} {self.fingerprint}".strip()
            raise InvalidArgumentError(
                f"{self.label}: statistics of feature network {theirs}, but the samples are"
                f" measured with {network} {fingerprint}: compute the statistics again from the"
                " data, or choose their network with `features` or `inception`"
            )

    def write(self, path: Path) -> None:
        """Write the statistics to a ``.safetensors`` file."""
        check_statistics_name(path)
        tensors: dict[str, NDArray[Any] | None] = {
            "mean": self.moments.mean,
            "cov": self.moments.cov,
            "features": self.features,
            "probs": self.probs,
        }
        record: dict[str, Any] = {
            "version": 1,
            "network": self.network,
            "fingerprint": self.fingerprint,
            "label": self.label,
            "count": self.moments.count,
            "held_out": plain(self.held_out),
        }
        if self.classes is not None:
            tensors |= self.classes.tensors()
            record["classes"] = self.classes.record()
        metadata = {"format": _FORMAT, "record": json.dumps(record)}
        whole = {n: np.ascontiguousarray(t) for n, t in tensors.items() if t is not None}
        write_bytes(path, save(whole, metadata=metadata))


def check_statistics_name(path: Path) -> None:
    """Raise InvalidArgumentError unless a file's name ends in ``.safetensors``."""
    if path.suffix != ".safetensors":
        raise InvalidArgumentError(
            f"statistics are saved as a .safetensors file, got {path.name!r}"
        )


def read_statistics(path: Path) -> Statistics:
    """Read statistics: ``.safetensors`` as written here, or ``.npz`` with ``mu`` and ``sigma``.

    The latter are taken to be statistics of Inception-v3, as published files of this kind are.

    Raises:
        DataError: If the file is damaged, or does not hold statistics.
    """
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.suffix.lower() == ".npy":
        raise DataError(
            f"{path} is a pickled array, which could execute code and is not read: convert it to"
            " .npz with mu and sigma, as docs/published.md shows"
        )
    metadata, found = read_with_head(path, DataError)
    if metadata.get("format") != _FORMAT:
        raise DataError(f"{path} does not hold statistics: it is another kind of safetensors file")
    try:
        tensors = {name: tensor.numpy() for name, tensor in found.items()}
        record = parse_json(metadata["record"])
        moments = Moments(int(record["count"]), tensors["mean"], tensors["cov"])
        statistics = Statistics(
            str(record["network"]),
            str(record["fingerprint"]),
            str(record["label"]),
            moments,
            tensors.get("features"),
            tensors.get("probs"),
            Floor.from_dict(record["held_out"]) if record["held_out"] else None,
            ClassStatistics.read(tensors, record["classes"]) if "classes" in record else None,
        )
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path} is damaged: {error}: save the statistics again") from None
    _check_whole(path, moments, statistics.features, statistics.probs)
    if statistics.classes is not None:
        _check_classes(path, statistics, statistics.classes)
    return statistics


def is_statistics(path: Path) -> bool:
    """Whether a file holds statistics, judged by its name and, for arrays, by their names."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return is_pickled(path)
    if suffix != ".npz":
        return suffix == ".safetensors"
    return path.is_file() and {"mu", "sigma"} <= set(array_names(path))


def is_pickled(path: Path) -> bool:
    """Whether a ``.npy`` file holds Python objects, which are not read."""
    try:
        return path.is_file() and has_objects(path)
    except DataError:
        return False


def check_not_statistics(samples: str | Path) -> None:
    """Raise InvalidArgumentError if ``samples`` is a file that :meth:`Statistics.write` wrote."""
    path = Path(samples)
    if path.suffix == ".safetensors" and path.is_file() and _is_written_here(path):
        raise InvalidArgumentError(
            f"{path} holds statistics, which cannot be measured: choose samples, and set `against`"
            " to this file"
        )


def _is_written_here(path: Path) -> bool:
    """Whether a safetensors file holds statistics, and not a model."""
    try:
        with safe_open(path, framework="numpy") as file:
            return bool((file.metadata() or {}).get("format") == _FORMAT)
    except (SafetensorError, OSError):
        return False


def _read_npz(path: Path) -> Statistics:
    arrays = read_arrays(path, ("mu", "sigma"))
    if any(table.dtype.kind not in "fiu" for table in arrays.values()):
        raise DataError(f"{path} is damaged, or does not hold mu and sigma")
    mean, cov = (arrays[name].astype(np.float64) for name in ("mu", "sigma"))
    moments = Moments(0, mean, cov)
    _check_whole(path, moments)
    if mean.size != _INCEPTION_WIDTH:
        raise DataError(
            f"{path} has {mean.size} features, Inception-v3 has {_INCEPTION_WIDTH}: compute the"
            " statistics again from the data with `save_statistics`"
        )
    return Statistics(INCEPTION, "", path.name, moments)


def _check_classes(path: Path, whole: Statistics, classes: ClassStatistics) -> None:
    for moments in classes.moments.values():
        _check_whole(path, moments)
    counts = {len(classes.labels), len([] if whole.features is None else whole.features)}
    widths = {whole.moments.mean.size, *(m.mean.size for m in classes.moments.values())}
    if len(counts) > 1 or len(widths) > 1:
        raise DataError(
            f"{path} holds labels or classes that do not fit its features: compute the statistics"
            " again"
        )


def _check_whole(path: Path, moments: Moments, *tables: NDArray[Any] | None) -> None:
    width = moments.mean.size
    if moments.mean.shape != (width,) or moments.cov.shape != (width, width):
        raise DataError(
            f"{path} holds a mean of shape {moments.mean.shape} and a covariance of shape"
            f" {moments.cov.shape}, which do not fit together: compute the statistics again"
        )
    known = [table for table in (moments.mean, moments.cov, *tables) if table is not None]
    if not all(float(np.abs(table).max(initial=0)) < _LARGEST for table in known):
        raise DataError(
            f"{path} holds values that are not finite or too large: compute the statistics again"
        )
