"""Measuring a set of samples against reference statistics: the last stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np

from fastdpm.core.errors import InvalidArgumentError, check_installed
from fastdpm.evaluation import metrics
from fastdpm.evaluation.cache import Cache, digest
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, ModelSource, Sampler
from fastdpm.evaluation.extract import Extractor, extract, features_key
from fastdpm.evaluation.metrics import Features, Score
from fastdpm.evaluation.sources import Source, Values, to_samples
from fastdpm.evaluation.statistics import INCEPTION, Statistics

_DECIDING = ("numpy", "scipy", "scikit-learn", "torchmetrics")
_VERSION = 2  # of the metrics; a change of any number must change it


@dataclass(frozen=True)
class Metric:
    """A metric as it is printed.

    Attributes:
        key: For machines.
        name: For people; "FID" and "KID" only where the features are Inception-v3's.
        better: "lower" or "higher".
    """

    key: str
    name: str
    better: str


@dataclass(frozen=True)
class Measured:
    """What a set of samples scored.

    Attributes:
        n: Samples.
        scores: By the metric's key.
        notes: What a reader must know.
        seconds: Spent drawing the samples; None for samples that came from elsewhere.
        evaluations: Network evaluations that each of them took; likewise.
    """

    n: int
    scores: Mapping[str, Score]
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    evaluations: float | None = None


@dataclass
class FeatureMeasure:
    """Distances of features to those of a reference.

    Attributes:
        extractor: The feature network.
        reference: Statistics under the same network.
        n: Samples to measure.
        cache: Where every stage is kept.
        progress: Show a bar while a model draws.
        modality: "image" or "audio", which decides the metrics.
    """

    extractor: Extractor
    reference: Statistics
    n: int
    cache: Cache
    modality: str
    progress: bool = False
    metrics: tuple[Metric, ...] = field(init=False)
    left_out: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        check_installed("torchmetrics", "torchmetrics", "eval")
        check_installed("scikit-learn", "sklearn", "eval")
        self.check_count(self.n)
        self.reference.check_network(self.extractor.name, self.extractor.fingerprint)
        wanted = _metrics(self.modality, self.extractor.name)
        lacking = {
            "kernel_distance": self.reference.features,
            "precision": self.reference.features,
            "recall": self.reference.features,
            "am_score": self.reference.probs,
        }
        absent = [m for m in wanted if m.key in lacking and lacking[m.key] is None]
        self.metrics = tuple(m for m in wanted if m not in absent)
        self.left_out = ()
        if absent:
            names = ", ".join(m.name for m in absent)
            self.left_out = (
                f"{names} left out: {self.reference.label} holds a mean and a covariance alone;"
                " give the data itself to --against",
            )

    @staticmethod
    def check_count(n: int) -> None:
        """Raise InvalidArgumentError if so few samples cannot be measured."""
        if n < metrics.GROUPS:
            raise InvalidArgumentError(
                f"{n} samples are too few: the metrics need at least {metrics.GROUPS}"
            )

    def count_drawn(self, handle: ModelHandle, sampler: Sampler, options: DrawOptions) -> int:
        """Samples that are drawn already."""
        return ModelSource(handle, sampler, options, self.cache).shards.count

    @property
    def against(self) -> str:
        """The reference, in words."""
        return self.reference.label

    @property
    def network(self) -> str:
        """The feature network's name."""
        return self.extractor.name

    @property
    def floor(self) -> dict[str, Any] | None:
        """Metrics of real data against the same reference, where they are known."""
        return self.reference.held_out

    def measure(self, source: Source, n: int | None = None) -> Measured:
        """Measure a source's first ``n`` samples; what the cache knows is not computed again."""
        count = source.count(self.n if n is None else n)
        features = features_key(source, self.extractor)
        libraries = {name: version(name) for name in _DECIDING}
        key = digest(_VERSION, libraries, features, count, self.reference.digest)
        record = self.cache.record("metrics", key)
        if record is None:
            drawn = extract(source, self.extractor, count, self.cache, progress=self.progress)
            scores = self._scores(*drawn)
            record = {name: [score.value, score.error] for name, score in scores.items()}
            self.cache.write_record("metrics", key, record)
        scores = {m.key: Score(*record[m.key]) for m in self.metrics}
        cost = source.cost(count) if isinstance(source, ModelSource) else (None, None)
        return Measured(count, scores, self._notes(count), *cost)

    def measure_model(
        self, handle: ModelHandle, sampler: Sampler, options: DrawOptions, n: int | None = None
    ) -> Measured:
        """Draw ``n`` samples from a model and measure them."""
        return self.measure(ModelSource(handle, sampler, options, self.cache), n)

    def pictures(
        self, handle: ModelHandle, sampler: Sampler, options: DrawOptions, count: int
    ) -> Values:
        """The first samples: uint8 images (k, H, W, C), or float32 sounds (k, length)."""
        source = ModelSource(handle, sampler, options, self.cache)
        values = np.concatenate(list(source.batches(0, count)))
        if values.ndim == 4:
            return values.transpose(0, 2, 3, 1)
        return to_samples(values)[:, 0].numpy()

    def _scores(self, features: Features, logits: Features) -> dict[str, Score]:
        reference = self.reference
        scores = {"frechet_distance": metrics.frechet_score(features, reference.moments)}
        wanted = {metric.key for metric in self.metrics}
        if reference.features is not None and "kernel_distance" in wanted:
            scores["kernel_distance"] = metrics.kernel_score(features, reference.features)
        if reference.features is not None and "precision" in wanted:
            both = metrics.precision_recall_scores(features, reference.features)
            scores["precision"], scores["recall"] = both
        scores["inception_score"] = metrics.inception_score(logits, self.extractor.splits)
        if "modified_inception_score" in wanted:
            scores["modified_inception_score"] = metrics.modified_inception_score(logits)
        if reference.probs is not None and "am_score" in wanted:
            scores["am_score"] = metrics.am_score(logits, reference.probs)
        return scores

    def _notes(self, count: int) -> tuple[str, ...]:
        notes = []
        width = self.reference.moments.mean.size
        if count <= width:
            notes.append(
                f"{count:,} samples are no more than the {width:,} features: the Frechet distance"
                " is far above its value for many samples; compare it at equal counts alone"
            )
        known = self.reference.features
        if known is not None and len(known) < count and self.modality == "image":
            notes.append(
                f"precision and recall are over {len(known):,} of the samples, as many as the"
                " reference keeps; they depend on that count"
            )
        return tuple(notes)


def _metrics(modality: str, network: str) -> tuple[Metric, ...]:
    frechet, kernel, score = f"FD ({network})", f"KD ({network})", f"IS ({network})"
    if network == INCEPTION:
        frechet, kernel, score = "FID", "KID", "Inception score"
    first = Metric("frechet_distance", frechet, "lower")
    if modality == "image":
        return (
            first,
            Metric("kernel_distance", kernel, "lower"),
            Metric("precision", f"precision ({network})", "higher"),
            Metric("recall", f"recall ({network})", "higher"),
            Metric("inception_score", score, "higher"),
        )
    return (
        first,
        Metric("inception_score", score, "higher"),
        Metric("modified_inception_score", f"mIS ({network})", "higher"),
        Metric("am_score", f"AM ({network})", "lower"),
    )
