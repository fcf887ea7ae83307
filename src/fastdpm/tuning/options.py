"""The options of a tuning."""

from __future__ import annotations

from dataclasses import dataclass

from fastdpm.core.arguments import checked_class
from fastdpm.core.errors import InvalidArgumentError, check_one_of, positive_or_none
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.recipe import PRECISIONS

STAGES = ("levels", "paths", "moments")
"""The stages of a tuning, in their order; the first one is always done."""


@checked_class
@dataclass(frozen=True)
class TuneOptions:
    """Options of a tuning.

    Attributes:
        n: Noises to learn from. Half as many fresh ones choose among the stages.
        seed: Seed of the noises.
        seeds: Sets of `n` noises to learn from, one after the other. The plan that is best on the
            same fresh noises counts.
        stages: Up to where to go: ("levels",), ("levels", "paths") or all of :data:`STAGES`.
        teacher_steps: Network evaluations of the teacher, above S; by default 24, doubled until
            more make no difference.
        teacher_end: Noise scale sqrt(1 - r^2) / r where the teacher ends.
        evaluations: Network evaluations for each S and each set of noises, at most, without those
            of the teacher. The search for levels takes up to an eighth of them.
        minutes: Time for each S, at most, without that of the teacher; the best plan so far
            counts. None is no limit.
        precision: Precision of the network: "float32", "bf16" or "fp16".
        batch_size: Samples at a time; by default chosen by their size.

    Raises:
        InvalidArgumentError: If a value is out of range.
    """

    n: int = 1536
    seed: int = 0
    seeds: int = 1
    stages: tuple[str, ...] = STAGES
    teacher_steps: int | None = None
    teacher_end: float = 0.15
    evaluations: int = 400_000
    minutes: float | None = None
    precision: str = "float32"
    batch_size: int | None = None

    @property
    def chosen_by(self) -> str:
        """The loss that chooses among the stages."""
        return "moments" if "moments" in self.stages else "paths"

    def __post_init__(self) -> None:
        check_one_of("precision", self.precision, PRECISIONS)
        if not self.stages or self.stages != STAGES[: len(self.stages)]:
            raise InvalidArgumentError(
                f"`stages` must be the first ones of {', '.join(STAGES)}, got"
                f" {', '.join(self.stages) or 'none'}"
            )
        if not 0 <= self.seed < 2**64:
            raise InvalidArgumentError(f"`seed` must be in [0, 2^64), got {self.seed}")
        if not 0.001 <= self.teacher_end <= 1:
            raise InvalidArgumentError(
                f"`teacher_end` must be in [0.001, 1], got {self.teacher_end:g}"
            )
        if self.evaluations < 1:
            raise InvalidArgumentError(f"`evaluations` must be at least 1, got {self.evaluations}")
        if self.minutes is not None and not self.minutes > 0:
            raise InvalidArgumentError(f"`minutes` must be above 0, got {self.minutes:g}")
        check_limit("`n`", self.n, MAX_SAMPLES)
        if self.seeds < 1:
            raise InvalidArgumentError(f"`seeds` must be at least 1, got {self.seeds}")
        steps = positive_or_none("teacher_steps", self.teacher_steps)
        object.__setattr__(self, "teacher_steps", steps)
        object.__setattr__(self, "batch_size", positive_or_none("batch_size", self.batch_size))
