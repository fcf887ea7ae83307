"""Options of measuring."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.arguments import checked_class
from fastdpm.core.errors import positive_or_none
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.evaluation.cache import Cache, default_cache


@checked_class
@dataclass(frozen=True)
class MeasureOptions:
    """Options of measuring; see :func:`fastdpm.evaluate`.

    ``batch_size`` is the number of samples that the feature network reads at a time from files.
    """

    against: str | Path | Tensor | NDArray[Any] | None = None
    n: int | None = None
    features: str | None = None
    inception: str | None = None
    device: str = "auto"
    cache: Cache = field(default_factory=default_cache)
    progress: bool = False
    scale_to_peak: bool = False
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("n", "batch_size"):
            object.__setattr__(self, name, positive_or_none(name, getattr(self, name)))
        check_limit("`n`", self.n or 0, MAX_SAMPLES)
