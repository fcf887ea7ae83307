"""Measuring many methods at many S on one network: the paper's grid.

Every cell is measured through the cache, so a comparison that was killed goes on where it was
when it is started again.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastdpm.core.errors import InvalidArgumentError, SamplingError, check_one_of
from fastdpm.core.recipe import CLIPS
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.cache import digest
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, PlanSampler, Sampler
from fastdpm.evaluation.evaluate import Measure, MeasureOptions, open_measure
from fastdpm.evaluation.measure import Measured
from fastdpm.evaluation.methods import Method, choose_methods
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model

_PICTURED = 8
_REFERENCE = 1000
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy", "torchmetrics", "diffusers")


@dataclass(frozen=True)
class Cell:
    """One method at one S.

    Attributes:
        method: The method.
        num_steps: S; T for the standard samplers.
        n: Samples to draw.
        sampler: What draws them, or None where the method cannot take S.
        failed: Why it cannot.
    """

    method: Method
    num_steps: int
    n: int
    sampler: Sampler | None = None
    failed: str | None = None

    @property
    def id(self) -> str:
        """Short and stable."""
        return digest(self.method.key, self.num_steps, self.n)[:12]

    @property
    def cost(self) -> int:
        """Network evaluations of all samples."""
        return self.n * self.sampler.rows if self.sampler else 0

    def describe(self) -> str:
        """In a few words."""
        choice = f", {self.method.choice}" if self.method.choice else ""
        return f"S = {self.num_steps}, {self.method.group}{choice}"


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        results: Plain values for JSON; the fields are those of ``results.json``.
        pictures: The first samples of each cell, by its id: uint8 images of shape (k, H, W, C) or
            float32 sounds of shape (k, length).
    """

    results: Mapping[str, Any]
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def compare(
    model: str | Path | FoundModel | Model,
    steps: Sequence[int] = (5, 10, 20, 50),
    methods: Sequence[Method] | None = None,
    *,
    measuring: MeasureOptions | None = None,
    options: DrawOptions | None = None,
    clip: str | None = None,
    reference_n: int | None = None,
    command: str = "",
    tell: Callable[[str], object] = lambda line: None,
) -> Comparison:
    """Measure methods at several S on one network, with the same seeds and the same metric.

    Args:
        model: Whatever :func:`fastdpm.load_model` takes, or a model.
        steps: Values of S.
        methods: From :func:`fastdpm.evaluation.methods.choose_methods`; all by default.
        measuring: Reference, number of samples, feature network and cache.
        options: Seed, precision, batch size and device.
        clip: What is done to the implied clean data, alike for all methods; by default what the
            model's recipe does.
        reference_n: Samples of the standard T-step sampler; at most 1,000 by default.
        command: How to do it again, for the report.
        tell: Takes a line after each cell.

    Raises:
        InvalidArgumentError: As :func:`fastdpm.evaluation.evaluate.evaluate` does.
    """
    settings, draw = measuring or MeasureOptions(), options or DrawOptions()
    handle = ModelHandle(model, draw.device)
    schedule = VarianceSchedule.from_config(handle.config.schedule)
    measure = open_measure(handle.config.data, settings)
    chosen = choose_methods() if methods is None else methods
    if reference_n is None:
        reference_n = min(measure.n, _REFERENCE)
    elif not any(method.family == "standard" for method in chosen):
        raise InvalidArgumentError(
            "no standard sampler is compared, so the number of its samples changes nothing"
        )
    measure.check_count(min(measure.n, reference_n))
    clip = handle.config.recipe.clip if clip is None else clip
    check_one_of("clip", clip, CLIPS)
    cells = _cells(chosen, steps, schedule, clip, measure.n, reference_n)
    began = time.monotonic()
    records, pictures = [], {}
    clock = _Clock({cell.id: _cost_left(cell, measure, handle, draw) for cell in cells})
    for number, cell in enumerate(cells, 1):
        record = _measure_cell(cell, measure, handle, draw)
        records.append(record)
        if cell.sampler is not None and record["failed"] is None:
            pictures[cell.id] = measure.pictures(handle, cell.sampler, draw, _PICTURED)
        left = clock.after(cell, record["seconds"])
        tell(f"{number} of {len(cells)}: {_line(cell, record, measure)}; {left}")
    results = {
        "format": "fastdpm-comparison",
        "version": 1,
        "model": {
            "name": handle.config.name,
            "weights_sha256": handle.weights,
            "T": schedule.num_train_steps,
            "modality": handle.config.data.modality,
            "sample_rate": handle.config.data.sample_rate,
        },
        "features": measure.network,
        "against": measure.against,
        "n": measure.n,
        "seed": draw.seed,
        "clip": clip,
        "precision": draw.precision,
        "metrics": [vars(metric) for metric in measure.metrics],
        "left_out": [*measure.left_out, *_left_out(chosen)],
        "floor": measure.floor,
        "cells": records,
        "seconds": round(time.monotonic() - began, 1),
        "versions": _versions(),
        "command": command,
    }
    return Comparison(results, pictures)


def _cells(
    methods: Sequence[Method],
    steps: Sequence[int],
    schedule: VarianceSchedule,
    clip: str,
    n: int,
    reference_n: int,
) -> list[Cell]:
    """The grid: every method at every S, and the standard samplers, which take all T, once."""
    total = schedule.num_train_steps
    for count in steps:
        if not 2 <= count <= total:
            raise InvalidArgumentError(f"S must lie in [2, {total}] (T), got {count}")
    cells = []
    ordered = sorted(set(steps))
    for method in methods:
        standard = method.family == "standard"
        for count in (total,) if standard else ordered:
            size = reference_n if standard else n
            try:
                cells.append(Cell(method, count, size, method.sampler(schedule, count, clip)))
            except InvalidArgumentError as error:
                cells.append(Cell(method, count, size, failed=str(error)))
    if not cells:
        raise InvalidArgumentError("nothing to compare: give at least one S and one method")
    return cells


def _measure_cell(
    cell: Cell, measure: Measure, handle: ModelHandle, options: DrawOptions
) -> dict[str, Any]:
    """A cell's record; a sampler that breaks down says so in its own cell alone."""
    measured, failed = Measured(cell.n, {}), cell.failed
    if cell.sampler is not None:
        try:
            measured = measure.measure_model(handle, cell.sampler, options, cell.n)
        except SamplingError as error:
            failed = str(error)
    plan = cell.sampler.plan if isinstance(cell.sampler, PlanSampler) else None
    return {
        "id": cell.id,
        "method": cell.method.key,
        "family": cell.method.family,
        "group": cell.method.group,
        "choice": cell.method.choice,
        "num_steps": cell.num_steps,
        "evaluations": measured.evaluations,
        "n": measured.n,
        "seconds": measured.seconds,
        "metrics": {
            key: {"value": score.value, "error": score.error}
            for key, score in measured.scores.items()
        },
        "notes": [*(plan.notes if plan else ()), *measured.notes],
        "plan": plan.fingerprint if plan else None,
        "failed": failed,
    }


def _line(cell: Cell, record: Mapping[str, Any], measure: Measure) -> str:
    if record["failed"] is not None:
        return f"{cell.describe()}: failed: {record['failed']}"
    first = measure.metrics[0]
    score = record["metrics"][first.key]
    return f"{cell.describe()}: {first.name} {score['value']:.4g} ± {score['error']:.2g}"


def _cost_left(cell: Cell, measure: Measure, handle: ModelHandle, options: DrawOptions) -> int:
    """Network evaluations of the samples that are not drawn yet."""
    if cell.sampler is None:
        return 0
    drawn = measure.count_drawn(handle, cell.sampler, options)
    return max(cell.n - drawn, 0) * cell.sampler.rows


def _left_out(methods: Sequence[Method]) -> list[str]:
    """What the reader would look for in vain."""
    if any(m.diffusers for m in methods) or importlib.util.find_spec("diffusers") is not None:
        return []
    return ["diffusers' samplers left out: run `pip install 'fastdpm[diffusers]'`"]


class _Clock:
    """Time left, by what the samples of the finished cells cost to draw, whenever that was."""

    def __init__(self, left: Mapping[str, int]) -> None:
        self.left = dict(left)
        self.cost = self.seconds = 0.0

    def after(self, cell: Cell, seconds: float | None) -> str:
        """What to say when a cell is finished."""
        del self.left[cell.id]
        if seconds is not None:
            self.cost += cell.cost
            self.seconds += seconds
        left = sum(self.left.values()) * self.seconds / max(self.cost, 1)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
