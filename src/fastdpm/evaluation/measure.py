"""Measuring a set of samples against reference statistics: the last stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Generic, Literal, Self, TypeVar, cast

from fastdpm.core.errors import check_installed
from fastdpm.evaluation import metrics
from fastdpm.evaluation.cache import Cache, digest, versions
from fastdpm.evaluation.drawn import Drawer, DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.extract import Extractor, extract, features_key, statistics_of
from fastdpm.evaluation.halves import Strata
from fastdpm.evaluation.metrics import Array, Features
from fastdpm.evaluation.scores import Evaluation, Floor, Metric, Score
from fastdpm.evaluation.sources import DataSource, Source
from fastdpm.evaluation.statistics import INCEPTION, MAX_FEATURES, Statistics

_VERSION = 3  # increase it if a metric of the same features changes
S = TypeVar("S", bound=Source)


class Measure(ABC, Generic[S]):
    """Measures samples against a reference.

    Attributes:
        n: Samples to measure.
        least: The smallest number of samples it can measure.
        network: Name of the feature network, or "pairs of sounds".
        against: The reference, for people.
        metrics: The metrics, in the order they are printed.
        left_out: One line for each usual metric that is not measured, with the reason.
        floor: Metrics of real data against the same reference, where they are known.
    """

    n: int
    least: int
    network: str
    against: str
    metrics: tuple[Metric, ...]
    left_out: Sequence[str] = ()
    floor: Floor | None = None

    @property
    def label(self) -> str:
        """What samples are compared with and by which features, in one line."""
        return f"measured against {self.against} ({self.network})"

    def primary(self) -> Self:
        """This, but with the primary metric alone where that is quicker."""
        return self

    @abstractmethod
    def source(self, handle: ModelHandle, drawer: Drawer, options: DrawOptions) -> S:
        """The samples that a model draws, to be measured."""

    @abstractmethod
    def measure(self, source: S, n: int | None = None) -> Evaluation:
        """Measure the first ``n`` samples; results in the cache are not computed again."""


@dataclass(frozen=True, eq=False)
class Sets:
    """The inputs of a metric.

    Attributes:
        features: Of the samples, shape (n, d).
        logits: Of the samples, shape (n, classes).
        reference: Statistics of real samples; parts that a metric does not need may be None.
        splits: Runs that the Inception score is averaged over.
        strata: Class or condition of each sample, shape (n,); None for samples drawn at random.
    """

    features: Features
    logits: Features
    reference: Statistics
    splits: int
    strata: Strata | None = None

    @property
    def real(self) -> Features:
        """Features of the reference, for metrics that need them."""
        return cast("Features", self.reference.features)

    @cached_property
    def precision_recall(self) -> tuple[Score, Score]:
        """Precision and recall, from the same distances."""
        return metrics.precision_recall_scores(self.features, self.real, self.strata)


@dataclass(frozen=True)
class FeatureMetric(Metric):
    """A metric of the features or classes of samples; printed with the network's name.

    Attributes:
        score: Computes it.
        modalities: "image", "audio" or both: the samples it is measured for.
        needs: The part of the reference's statistics that it needs.
        fid_name: Its name where the features are Inception-v3's.
        note: Returns a warning for readers at a number of samples, or None.
    """

    score: Callable[[Sets], Score]
    modalities: tuple[str, ...] = ("image", "audio")
    needs: Literal["moments", "features", "probs"] = "moments"
    fid_name: str | None = None
    note: Callable[[int, Statistics], str | None] = lambda count, reference: None

    def printed(self, network: str) -> Metric:
        """The metric with the name that it has for a feature network."""
        own = self.fid_name if network == INCEPTION else None
        return Metric(self.key, own or f"{self.name} ({network})", self.better)


def _frechet_note(count: int, reference: Statistics) -> str | None:
    width = reference.moments.mean.size
    note = (
        f"{count:,} samples for {width:,} features: the Fréchet distance is far above its value"
        " for many samples; compare it only with distances of equally many samples"
    )
    return note if count <= width else None


def _manifold_note(count: int, reference: Statistics) -> str | None:
    if reference.features is None or len(reference.features) >= count:
        return None
    return (
        f"precision and recall use {len(reference.features):,} of the samples, because the"
        " reference holds that number; they depend on it"
    )


FEATURE_METRICS: tuple[FeatureMetric, ...] = (
    FeatureMetric(
        "frechet_distance",
        "FD",
        "lower",
        lambda s: metrics.frechet_score(s.features, s.reference.moments, s.strata),
        fid_name="FID",
        note=_frechet_note,
    ),
    FeatureMetric(
        "kernel_distance",
        "KD",
        "lower",
        lambda s: metrics.kernel_score(s.features, s.real, s.strata),
        ("image",),
        "features",
        fid_name="KID",
    ),
    FeatureMetric(
        "precision",
        "precision",
        "higher",
        lambda s: s.precision_recall[0],
        ("image",),
        "features",
        note=_manifold_note,
    ),
    FeatureMetric(
        "recall", "recall", "higher", lambda s: s.precision_recall[1], ("image",), "features"
    ),
    FeatureMetric(
        "inception_score",
        "IS",
        "higher",
        lambda s: metrics.inception_score(s.logits, s.splits, s.strata),
        fid_name="Inception score",
    ),
    FeatureMetric(
        "modified_inception_score",
        "mIS",
        "higher",
        lambda s: metrics.modified_inception_score(s.logits, s.strata),
        ("audio",),
    ),
    FeatureMetric(
        "am_score",
        "AM",
        "lower",
        lambda s: metrics.am_score(s.logits, cast("Array", s.reference.probs), s.strata),
        ("audio",),
        "probs",
    ),
)


class FeatureMeasure(Measure[Source]):
    """Measures samples by the distances of their features to those of a reference.

    Attributes:
        table: The metrics that are measured.

    Args:
        extractor: The feature network.
        reference: Statistics under the same network, or real samples; their statistics are
            computed when they are first needed.
        n: Samples to measure.
        cache: Where every stage is kept.
        modality: "image" or "audio", which decides the metrics.
        progress: Show a progress bar while a model draws.
    """

    least = metrics.LEAST

    def __init__(
        self,
        extractor: Extractor,
        reference: Statistics | DataSource,
        n: int,
        cache: Cache,
        modality: str,
        progress: bool = False,
    ) -> None:
        check_installed("torchmetrics", "torchmetrics", "eval")
        check_installed("scikit-learn", "sklearn", "eval")
        self.extractor, self.n = extractor, n
        self.cache, self.progress = cache, progress
        self.network, self._reference = extractor.name, reference
        wanted = [row for row in FEATURE_METRICS if modality in row.modalities]
        self.table = wanted
        if isinstance(reference, Statistics):
            reference.check_network(extractor.name, extractor.fingerprint)
            self.against, self.floor = reference.label, reference.held_out
            self.table = [m for m in wanted if getattr(reference, m.needs) is not None]
        else:
            self.against = reference.counted
        self.metrics = tuple(m.printed(self.network) for m in self.table)
        absent = [m.printed(self.network).name for m in wanted if m not in self.table]
        if absent:
            self.left_out = [
                f"{', '.join(absent)} are left out: {self.against} holds only a mean and a"
                " covariance; measure against the data itself to get them"
            ]

    def primary(self) -> Self:
        """See :class:`Measure`."""
        found = copy(self)
        found.table, found.metrics = self.table[:1], self.metrics[:1]
        return found

    @cached_property
    def reference(self) -> Statistics:
        """Statistics of the reference."""
        if isinstance(self._reference, Statistics):
            return self._reference
        return statistics_of(self._reference, self.extractor, self.cache)

    @property
    def real_labels(self) -> Strata | None:
        """Class labels of the features that the reference holds; None if unknown."""
        if isinstance(self._reference, Statistics):
            classes = self._reference.classes
            return None if classes is None else classes.labels
        labels = self._reference.labels(self._reference.size)
        return None if labels is None else labels[metrics.shuffled(len(labels))[:MAX_FEATURES]]

    def source(self, handle: ModelHandle, drawer: Drawer, options: DrawOptions) -> ModelSource:
        """See :class:`Measure`."""
        return ModelSource(handle, drawer, options, self.cache)

    def measure(self, source: Source, n: int | None = None) -> Evaluation:
        """See :class:`Measure`."""
        count = min(self.n if n is None else n, source.size)
        libraries = versions("numpy", "scipy", "scikit-learn", "torchmetrics")
        features = features_key(source, self.extractor)
        strata = source.strata(count)  # the errors depend on them
        classes = [] if strata is None else [strata.tolist()]
        key = digest(_VERSION, libraries, features, count, self.reference.digest, *classes)
        record = self.cache.record("metrics", key) or {}
        if lacking := [m for m in self.table if m.key not in record]:
            drawn = extract(source, self.extractor, count, self.cache, progress=self.progress)
            sets = Sets(*drawn, self.reference, self.extractor.splits, strata)
            record |= {m.key: astuple(m.score(sets)) for m in lacking}
            self.cache.write_record("metrics", key, record)
        scores = {m.key: _score(*record[m.key]) for m in self.table}
        notes = tuple(note for m in self.table if (note := m.note(count, self.reference)))
        names = (source.label, count, self.network, self.against)
        return Evaluation(*names, self.metrics, scores, notes, *source.cost(count))


def _score(value: float, error: float, halves: Sequence[float]) -> Score:
    """A score as the cache holds it."""
    return Score(value, error, tuple(halves))
