"""Metrics, their values, and how both are printed. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from fastdpm.core.errors import check_one_of
from fastdpm.core.structure import LEFT_OUT, shown_fields

_MAX_DECIMALS = 6
_LARGE = 1e6


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        key: Its name in files, such as "frechet_distance".
        name: Its name in reports, with the unit or the feature network. "FID" and "KID" are used
            only with the features of Inception-v3.
        better: "lower" or "higher".
    """

    key: str
    name: str
    better: str

    def __post_init__(self) -> None:
        check_one_of("better", self.better, ("lower", "higher"))

    @property
    def lower_is_better(self) -> bool:
        """Whether the lowest value is the best."""
        return self.better == "lower"

    @property
    def direction(self) -> str:
        """``better`` in words."""
        return f"{self.better} is better"


@dataclass(frozen=True)
class Score:
    """A measured value and its standard error; NaN if unknown.

    Attributes:
        halves: Half the difference between the values of the two halves of the samples, for each
            of some random splits; see :mod:`fastdpm.evaluation.metrics`. Empty if unknown.
    """

    value: float
    error: float = math.nan
    halves: tuple[float, ...] = ()

    @property
    def spread(self) -> float:
        """The standard error; 0 if unknown."""
        return self.error if math.isfinite(self.error) else 0.0

    @property
    def text(self) -> str:
        """``value ± error``, to the second significant digit of the error."""
        value, error = self.value, self.error
        if not math.isfinite(error):
            return f"{value:.4g}"
        if abs(value) >= _LARGE or not error:
            return f"{value:.4g} ± {error:.2g}"
        decimals = min(max(0, 1 - math.floor(math.log10(error))), _MAX_DECIMALS)
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"

    def minus(self, other: Score, *, paired: bool = True) -> Score:
        """The difference of two values, with its standard error.

        Args:
            other: The value to subtract.
            paired: Whether both belong to samples of the same seeds and number, so that their
                errors partly cancel.
        """
        value = self.value - other.value
        if not (paired and self.halves and len(self.halves) == len(other.halves)):
            return Score(value, math.hypot(self.error, other.error))
        halves = tuple(a - b for a, b in zip(self.halves, other.halves, strict=True))
        error = math.sqrt(math.fsum(half * half for half in halves) / len(halves))
        return Score(value, error, halves)


@dataclass(frozen=True)
class ClassScores:
    """The scores of the samples of one class, against the real samples of that class.

    Attributes:
        label: The class, from 0.
        name: Its name, or its label as text.
        n: Number of samples.
        scores: Value and standard error by the metric's key.
        real: The same of held-out real samples of the class, where they are known.
    """

    label: int
    name: str
    n: int
    scores: Mapping[str, Score]
    real: Mapping[str, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The scores of one set of samples.

    Attributes:
        samples: Which samples, in words.
        n: Number of samples.
        network: The feature network, or a note that pairs of sounds were compared.
        against: The reference data, in words.
        metrics: The metrics of ``scores`` in the order to print; the first is the primary one.
        scores: Value and standard error by the metric's key. The error is that over the samples,
            with the reference data taken as exact.
        notes: What a reader must know.
        seconds: Time to draw the samples, also if they were cached; None for files.
        evaluations: Network evaluations per sample; None for files.
        class_metrics: The metrics of ``classes``.
        classes: The scores of each class, by its label, if they were measured.
    """

    samples: str
    n: int
    network: str
    against: str
    metrics: tuple[Metric, ...]
    scores: Mapping[str, Score]
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    evaluations: float | None = None
    class_metrics: tuple[Metric, ...] = field(default=(), metadata=LEFT_OUT)
    classes: tuple[ClassScores, ...] = field(default=(), metadata=LEFT_OUT)

    @property
    def class_means(self) -> dict[str, Score]:
        """The mean of ``classes`` by the metric's key; every class counts the same."""
        count = len(self.classes)
        found = {m.key: [c.scores[m.key] for c in self.classes] for m in self.class_metrics}
        return {
            key: Score(
                math.fsum(score.value for score in scores) / count,
                math.hypot(*(score.error for score in scores)) / count,
            )
            for key, scores in found.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for a value that is not defined."""
        return {"format": "fastdpm-evaluation", "version": 1, **plain(self)}


@dataclass(frozen=True)
class Floor:
    """The scores of ``n`` real samples: what a perfect sampler would reach."""

    label: str
    n: int
    metrics: Mapping[str, Score]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Floor:
        """Read the values of :func:`plain`; raises KeyError, TypeError or ValueError."""
        return cls(str(record["label"]), int(record["n"]), read_scores(record["metrics"]))

    @property
    def scores(self) -> dict[str, Score]:
        """The finite values of ``metrics``."""
        return finite(self.metrics)


def duration(seconds: float, digits: int = 3) -> str:
    """A time in the unit that suits it: "1.31 ms", "24.5 s", "3.2 min"."""
    if not seconds:
        return "0 s"
    units = (("µs", 1e-6, 1e-3), ("ms", 1e-3, 1), ("s", 1, 120), ("min", 60, 7200))
    unit, size = next(((unit, size) for unit, size, end in units if seconds < end), ("h", 3600))
    return f"{float(f'{seconds / size:.{digits}g}'):g} {unit}"


def number(value: Any) -> float | None:
    """A number for JSON; None if it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def finite(scores: Mapping[str, Score]) -> dict[str, Score]:
    """The scores with a finite value."""
    return {key: score for key, score in scores.items() if math.isfinite(score.value)}


def plain(record: Any) -> Any:
    """A copy for JSON: records become mappings, and numbers that are not finite None."""
    if isinstance(record, Score) and not record.halves:
        record = {"value": record.value, "error": record.error}
    if is_dataclass(record):
        record = shown_fields(record)
    if isinstance(record, Mapping):
        return {name: plain(value) for name, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(value) for value in record]
    return number(record) if isinstance(record, float) else record


def read_scores(record: Mapping[str, Any]) -> dict[str, Score]:
    """Read the values of :func:`plain`; missing numbers become NaN."""

    def part(score: Mapping[str, Any] | None, name: str) -> float:
        value = (score or {}).get(name)
        return math.nan if value is None else float(value)

    return {
        key: Score(part(s, "value"), abs(part(s, "error")), _halves(s))
        for key, s in record.items()
    }


def _halves(score: Mapping[str, Any] | None) -> tuple[float, ...]:
    values = (score or {}).get("halves") or ()
    return tuple(math.nan if value is None else float(value) for value in values)
