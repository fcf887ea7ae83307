"""Metrics as they are printed, and what they measured. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from fastdpm.core.errors import check_one_of

_MOST_DECIMALS = 6
_LARGE = 1e6


@dataclass(frozen=True)
class Metric:
    """A metric as it is printed.

    Attributes:
        key: For machines.
        name: For people, with its unit; "FID" and "KID" only where the features are
            Inception-v3's.
        better: "lower" or "higher".
    """

    key: str
    name: str
    better: str

    def __post_init__(self) -> None:
        check_one_of("better", self.better, ("lower", "higher"))

    @property
    def lower_is_better(self) -> bool:
        """Whether the least value is the best."""
        return self.better == "lower"

    @property
    def direction(self) -> str:
        """Which way is better, in words."""
        return f"{self.better} is better"


@dataclass(frozen=True)
class Score:
    """A measured value and its standard error; NaN where there is none."""

    value: float
    error: float = math.nan

    @property
    def spread(self) -> float:
        """The standard error; 0 where it is not known."""
        return self.error if math.isfinite(self.error) else 0.0

    @property
    def text(self) -> str:
        """``value ± error``, to the second significant digit of the error."""
        value, error = self.value, self.error
        if not math.isfinite(error):
            return f"{value:.4g}"
        if abs(value) >= _LARGE or not error:
            return f"{value:.4g} ± {error:.2g}"
        decimals = min(max(0, 1 - math.floor(math.log10(error))), _MOST_DECIMALS)
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"

    def meets(self, other: Score) -> bool:
        """Whether two values differ by at most their combined standard error."""
        return abs(self.value - other.value) <= math.hypot(self.spread, other.spread)


@dataclass(frozen=True)
class Evaluation:
    """What was measured, and how.

    Attributes:
        samples: Which samples, in words.
        n: How many.
        network: The feature network, or that pairs of sounds were compared.
        against: The reference, in words.
        metrics: Those below, in the order to print them; the first is the one to compare by.
        scores: Value and standard error by the metric's key; over the samples alone, the
            reference being taken as it is.
        notes: What a reader must know.
        seconds: Spent drawing the samples, whenever that was; None for a folder's.
        evaluations: Network evaluations of each sample; likewise.
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for a value that is not defined."""
        return {"format": "fastdpm-evaluation", "version": 1, **plain(self)}


@dataclass(frozen=True)
class Floor:
    """``n`` real samples, scored like drawn ones: what a perfect sampler would reach."""

    label: str
    n: int
    metrics: Mapping[str, Score]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Floor:
        """From the values of :func:`plain`; a KeyError, TypeError or ValueError if not."""
        return cls(str(record["label"]), int(record["n"]), read_scores(record["metrics"]))

    @property
    def scores(self) -> dict[str, Score]:
        """The finite ones of ``metrics``."""
        return finite(self.metrics)


def number(value: Any) -> float | None:
    """A number that JSON can hold; None for what is absent or not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def finite(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Those that have a finite value."""
    return {key: score for key, score in scores.items() if math.isfinite(score.value)}


def plain(record: Any) -> Any:
    """A copy that JSON can hold: records are mappings, and what is not finite is None."""
    if is_dataclass(record):
        record = {item.name: getattr(record, item.name) for item in fields(record)}
    if isinstance(record, Mapping):
        return {name: plain(value) for name, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [plain(value) for value in record]
    return number(record) if isinstance(record, float) else record


def read_scores(record: Mapping[str, Any]) -> dict[str, Score]:
    """From the values of :func:`plain`; what is absent is NaN."""

    def part(score: Mapping[str, Any] | None, name: str) -> float:
        value = (score or {}).get(name)
        return math.nan if value is None else float(value)

    return {key: Score(part(s, "value"), abs(part(s, "error"))) for key, s in record.items()}
