"""Measuring the samples of each class against the real samples of that class.

The features are those of the whole set, so that nothing more is drawn or computed by a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.spec import DataSpec
from fastdpm.evaluation.cache import digest, versions
from fastdpm.evaluation.class_statistics import ClassStatistics
from fastdpm.evaluation.extract import extract, features_key
from fastdpm.evaluation.halves import Mask, Strata, half_score
from fastdpm.evaluation.measure import FEATURE_METRICS, FeatureMeasure
from fastdpm.evaluation.metrics import (
    LEAST,
    Features,
    frechet_score,
    polynomial_kernel,
    shuffled,
)
from fastdpm.evaluation.scores import (
    ClassScores,
    Evaluation,
    Metric,
    Score,
    plain,
    read_scores,
)
from fastdpm.evaluation.sources import ALL, Source
from fastdpm.evaluation.statistics import MAX_FEATURES

KERNEL, FRECHET, ACCURACY = "kernel_distance", "frechet_distance", "accuracy"
_MANY = 10  # samples per feature, from which a Fréchet distance is close to that of many samples
_PERMUTATIONS = 50
_VERSION = 1  # increase it if a metric of the same features changes


@dataclass(frozen=True, eq=False)
class ClassMeasure:
    """Measures each class of a source; everything is checked, and nothing is computed yet.

    Attributes:
        measure: What the whole set is measured by.
        source: The samples.
        labels: Class label of each sample, shape (n,).
        names: Names of the classes, by label; those without a name are numbers.
        classifies: Whether the feature network was trained on these classes.
    """

    measure: FeatureMeasure
    source: Source
    labels: Strata
    names: Sequence[str]
    classifies: bool

    def add_to(self, found: Evaluation) -> Evaluation:
        """Add the scores of each class to an evaluation of the same samples."""
        extractor, cache = self.measure.extractor, self.measure.cache
        features, labels = features_key(self.source, extractor), self.labels.tolist()
        settings = (versions("numpy", "scipy"), self.classifies)
        reference = (self.measure.reference.digest, self.reference.digest)
        key = digest(_VERSION, settings, features, labels, reference)
        record = cache.record("metrics", key)
        if record is None:
            drawn = extract(self.source, extractor, len(labels), cache)
            record = {str(label): plain(self._scores(label, *drawn)) for label in self.counts}
            cache.write_record("metrics", key, record)
        classes = tuple(
            ClassScores(
                label,
                self.name_of(label),
                count,
                read_scores(record[str(label)]),
                self.reference.held_out.get(label, {}),
            )
            for label, count in self.counts.items()
        )
        notes = (*found.notes, *self._notes())
        return replace(found, class_metrics=self.metrics, classes=classes, notes=notes)

    @cached_property
    def counts(self) -> dict[int, int]:
        """Number of samples of each class that has any, by its label."""
        known, counts = np.unique(self.labels, return_counts=True)
        return dict(zip(known.tolist(), counts.tolist(), strict=True))

    @property
    def reference(self) -> ClassStatistics:
        """Statistics of the classes of the reference."""
        return cast("ClassStatistics", self.measure.reference.classes)

    def name_of(self, label: int) -> str:
        """The name of a class, or its label as text."""
        return self.names[label] if label < len(self.names) else str(label)

    def check(self, total: int) -> None:
        """Check that there are enough samples of each class.

        Args:
            total: How many classes there are; 0 if unknown.

        Raises:
            InvalidArgumentError: If there are not, here or in the reference, or a label is out of
                range.
        """
        highest = int(self.labels.max())
        if total and highest >= total:
            raise InvalidArgumentError(
                f"label {highest} of {self.source.label} is not one of the {total} classes, 0 to"
                f" {total - 1}, which `per_class` measures: leave those samples out"
            )
        label, least = min(self.counts.items(), key=lambda item: item[1])
        if least < LEAST:
            advice = "add samples of that class, or leave it out"
            if self.source.size == ALL:
                advice = f"use more, with `n` of {LEAST * len(self.counts):,} or above"
            raise InvalidArgumentError(
                f"{least} samples of class {self.name_of(label)} are too few: `per_class` needs at"
                f" least {LEAST} of every class, so {advice}"
            )
        real = self.measure.real_labels
        for label in self.counts:
            count = int(np.count_nonzero(real == label))
            if count < LEAST:
                raise InvalidArgumentError(
                    f"{count} features of class {self.name_of(label)} in {self.measure.against}"
                    f" are too few: `per_class` needs at least {LEAST}, so set `against` to data"
                    " with more of that class"
                )

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of each class, in the order they are printed."""
        printed = {m.key: m.printed(self.measure.network) for m in FEATURE_METRICS}
        found = [printed[KERNEL]]
        if self._large:
            found.append(printed[FRECHET])
        if self.classifies:
            found.append(Metric(ACCURACY, f"accuracy ({self.measure.network})", "higher"))
        return tuple(found)

    @property
    def _large(self) -> bool:
        """Whether every class has more samples than features, here and in the reference."""
        width = self.measure.reference.moments.mean.size
        known = self.reference.moments
        return min(self.counts.values()) > width and all(c in known for c in self.counts)

    def _scores(self, label: int, features: Features, logits: Features) -> dict[str, Score]:
        chosen = self.labels == label
        real = cast("Features", self.measure.reference.features)[self.reference.labels == label]
        found = {KERNEL: class_kernel_score(features[chosen], real)}
        if self._large:
            found[FRECHET] = frechet_score(features[chosen], self.reference.moments[label])
        if self.classifies:
            found[ACCURACY] = accuracy_score(logits[chosen].argmax(1) == label)
        return found

    def _notes(self) -> list[str]:
        notes = []
        least, width = min(self.counts.values()), self.measure.reference.moments.mean.size
        if self._large and least < _MANY * width:
            notes.append(
                "the Fréchet distances of classes are above their values for many samples; compare"
                " them only with distances of equally many samples"
            )
        elif least <= width:
            notes.append(
                f"the Fréchet distance of each class is left out: it needs over {width:,} samples"
                " of every class, one for each feature"
            )
        elif not self._large:
            notes.append(
                "the Fréchet distance of each class is left out:"
                f" {self.measure.against} holds no covariance of every class"
            )
        if not self.classifies:
            notes.append(
                f"the accuracy of each class is left out: {self.measure.network} was trained on"
                " other classes"
            )
        return notes


def check_has_classes(name: str, data: DataSpec) -> None:
    """Raise InvalidArgumentError unless a model of ``data`` has classes."""
    if data.classes is None:
        raise InvalidArgumentError(f"{name} has no classes, which `per_class` measures: drop it")


def open_classes(
    measure: FeatureMeasure, source: Source, model: DataSpec | None, against_own: bool
) -> ClassMeasure:
    """Check that each class of a source can be measured.

    Args:
        measure: What the whole set is measured by.
        source: The samples.
        model: The data of the model that draws them, with its classes; None for files.
        against_own: Whether the reference is the one that the feature network comes with.

    Raises:
        InvalidArgumentError: If labels are missing or out of range, the classes of the model are
            not those of the reference, or a class has too few samples.
    """
    labels = source.labels(min(measure.n, source.size))
    if labels is None:
        raise _without_labels(source.label)
    if measure.real_labels is None:
        raise _without_labels(measure.against)
    known = measure.extractor.classes
    classifies = _same_classes(known, model)
    if against_own and not classifies:
        raise InvalidArgumentError(
            f"the classes of {source.label} are not those of {measure.network}"
            f" ({', '.join(known)}): set `against` to labeled data of the same classes"
        )
    names, total = (known if classifies else ()), len(known)
    if model is not None:
        names, total = model.class_names or names, model.classes or 0
    found = ClassMeasure(measure, source, labels, names, classifies)
    found.check(total)
    return found


def class_kernel_score(features: Features, real: Features) -> Score:
    """Kernel distance of few samples: unbiased squared MMD with the kernel (x.y / d + 1)^3.

    Unlike :func:`fastdpm.evaluation.metrics.kernel_score`, it compares the samples with all
    features of the reference, whose number is small as well. So the halves of the error are halves
    of both. A part of the variance falls with the square of the number of samples, and halves show
    it twice; it is the variance where both have the same distribution, so that of samples that
    change sides at random. Of more than 2,000 samples, 2,000 are used, chosen at random.

    Args:
        features: Shape (n, d).
        real: Shape (m, d).

    Source: Gretton et al. 2012, "A kernel two-sample test", JMLR 13, eq. 3.
    """
    drawn = features[shuffled(len(features))[:MAX_FEATURES]]
    both = np.concatenate([drawn, real]).astype(np.float64)
    kernel = polynomial_kernel(both, both)
    np.fill_diagonal(kernel, 0.0)
    side = np.repeat([0, 1], [len(drawn), len(real)])

    def distance(x: Mask, y: Mask) -> float:
        n, m = int(x.sum()), int(y.sum())
        to_x, to_y = x @ kernel, y @ kernel
        within = to_x @ x / (n * (n - 1)) + to_y @ y / (m * (m - 1))
        return float(within - 2 * (to_x @ y) / (n * m))

    found = half_score(
        lambda keep: distance((side == 0) & keep, (side == 1) & keep), len(both), side
    )
    generator = np.random.default_rng(0)
    mixed = (generator.permutation(side) == 0 for _ in range(_PERMUTATIONS))
    squared = float(np.mean([distance(x, ~x) ** 2 for x in mixed]))
    error = math.sqrt(max(found.error**2 - squared, squared))
    halves = tuple(half * error / found.error for half in found.halves) if found.error else ()
    return Score(found.value, error, halves)


def accuracy_score(correct: Mask) -> Score:
    """The share of correct ones, shape (n,), in [0, 1].

    The error is half the width of Wilson's interval at one standard error. Unlike that of a mean,
    it is not 0 where all or none are correct.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22(158).
    """
    n = len(correct)
    score = half_score(lambda keep: float(correct[keep].mean()), n)
    error = math.sqrt(n * score.value * (1 - score.value) + 0.25) / (n + 1)
    return Score(score.value, error, score.halves)


def _same_classes(known: Sequence[str], model: DataSpec | None) -> bool:
    """Whether a feature network was trained on the classes of a model, or of files (None)."""
    if model is None:
        return bool(known)
    names = model.class_names or known
    same = [name.lower() for name in names] == [name.lower() for name in known]
    return same and model.classes == len(known)


def _without_labels(name: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"no class labels in {name}, which `per_class` needs: choose a folder that `fastdpm"
        " sample` wrote for a model with classes, a Parquet file with a column 'label', or an .npz"
        " file with arrays 'samples' and 'labels'"
    )
