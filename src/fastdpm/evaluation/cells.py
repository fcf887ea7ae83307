"""The model and the cells of a comparison, and the rows that they form. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastdpm.core import samplers
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import LEFT_OUT, build
from fastdpm.evaluation.scores import Score, finite, number, read_scores

STANDARD = "standard"


@dataclass(frozen=True)
class ComparedModel:
    """The model; ``T`` is its number of training steps, ``sample_rate`` is in Hz."""

    name: str
    weights_sha256: str | None
    T: int
    modality: str | None
    sample_rate: int | None

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> ComparedModel:
        """Read the values of :func:`plain`; raises KeyError, TypeError or ValueError."""
        weights, modality, rate = map(record.get, ("weights_sha256", "modality", "sample_rate"))
        return cls(str(record["name"]), weights, int(record["T"]), modality, rate)


@dataclass(frozen=True)
class Cell:
    """One method at one S, measured.

    Attributes:
        method: The key that the method is chosen by, such as "var-linear-k0".
        num_steps: S, the number of steps that the method was set to.
        evaluations: Network evaluations per sample; None if nothing was drawn.
        n: Number of samples measured.
        seconds: Time to draw them; None if it was not recorded.
        metrics: Every score, by the metric's key.
        plan: The plan's fingerprint; None if there is no plan.
        failed: Why the cell failed, or None.
        guidance: The guidance, in words, such as "guidance 1.5"; empty without it.
        recipe: The recipe that draws the same samples; None if there is none, or if the file is
            older.
    """

    id: str
    method: str
    family: str
    group: str
    choice: str
    num_steps: int
    evaluations: float | None = None
    n: int = 0
    seconds: float | None = None
    metrics: Mapping[str, Score] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plan: str | None = None
    failed: str | None = None
    guidance: str = field(default="", metadata=LEFT_OUT)
    recipe: Recipe | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Cell:
        """Read the values of :func:`plain`; raises KeyError, TypeError or ValueError."""
        return cls(
            id=str(record["id"]),
            method=record.get("method") or "",
            family=record["family"],
            group=record["group"],
            choice=record.get("choice") or "",
            num_steps=int(record["num_steps"]),
            evaluations=number(record.get("evaluations")),
            n=int(record.get("n") or 0),
            seconds=number(record.get("seconds")),
            metrics=read_scores(record.get("metrics") or {}),
            notes=tuple(map(str, record.get("notes") or ())),
            plan=record.get("plan"),
            failed=None if record.get("failed") is None else str(record["failed"]),
            guidance=record.get("guidance") or "",
            recipe=record.get("recipe") and build(Recipe, record["recipe"], "recipe"),
        )

    @property
    def scores(self) -> dict[str, Score]:
        """The finite values of ``metrics``; empty if the cell failed."""
        return {} if self.failed is not None else finite(self.metrics)

    @property
    def name(self) -> str:
        """The method, in words."""
        return f"{self.group}, {self.choice}" if self.choice else self.group

    @property
    def takes_all_steps(self) -> bool:
        """Whether the method is a standard sampler, which always takes all T steps."""
        row = samplers.SAMPLERS.get(self.method)
        return self.family == STANDARD if row is None else row.all_steps

    @property
    def num_evaluations(self) -> float:
        """Network evaluations per sample; S if nothing was drawn."""
        return self.num_steps if self.evaluations is None else self.evaluations

    @property
    def cost(self) -> str:
        """The network evaluations, in words."""
        count = self.num_evaluations
        return "1 evaluation" if count == 1 else f"{count:,.10g} evaluations"

    @property
    def seconds_per_sample(self) -> float | None:
        """Time to draw one sample; None if it was not recorded."""
        return None if self.seconds is None or not self.n else self.seconds / self.n

    @property
    def costs_more(self) -> bool:
        """Whether a sample took more than S evaluations, or 2 S with guidance."""
        return self.num_evaluations > self.num_steps * (2 if self.guidance else 1)

    @property
    def reason(self) -> str | None:
        """Why the cell failed, in one line, or None."""
        return None if self.failed is None else " ".join(self.failed.split())

    @property
    def missing(self) -> str:
        """What a table shows where a metric has no value."""
        return "not finite or not measured" if self.failed is None else f"failed: {self.reason}"


@dataclass
class Row:
    """A method and its cells, by S."""

    family: str
    group: str
    choice: str
    cells: dict[int, Cell] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The method, in words."""
        return next(iter(self.cells.values())).name
