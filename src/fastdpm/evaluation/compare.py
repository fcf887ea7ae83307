"""Measuring many methods at many S on one network: the paper's grid.

Every cell is measured through the cache, so a comparison that was killed goes on where it was
when it is started again.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic

from fastdpm.core.errors import InvalidArgumentError, SamplingError, check_one_of
from fastdpm.core.recipe import CLIPS
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.cache import digest, versions
from fastdpm.evaluation.drawn import Drawer, DrawOptions, ModelHandle
from fastdpm.evaluation.evaluate import MeasureOptions, open_measure
from fastdpm.evaluation.measure import Measure, S
from fastdpm.evaluation.methods import Method, choose_methods, open_drawer
from fastdpm.evaluation.metrics import check_count
from fastdpm.evaluation.results import Cell, ComparedModel, Comparison
from fastdpm.evaluation.scores import Metric
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model
from fastdpm.models.presets import CompareSettings

_STEPS = (5, 10, 20, 50)
_PICTURED = 8
_REFERENCE = 1000
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy", "torchmetrics", "diffusers")


@dataclass(frozen=True)
class Trial(Generic[S]):
    """One method at one S, to be measured.

    Attributes:
        cell: What is known of it beforehand, and why it cannot be drawn, if so.
        source: What draws the samples, if anything can: one that the measure made.
    """

    cell: Cell
    source: S | None

    def left(self) -> int:
        """Network evaluations of the samples that are not drawn yet."""
        return max(self.cell.n - self.source.drawn, 0) * self.source.rows if self.source else 0

    def measured(self, measure: Measure[S]) -> Cell:
        """Its cell; a sampler that breaks down says so in its own cell alone."""
        if self.source is None:
            return self.cell
        try:
            found = measure.measure(self.source, self.cell.n)
        except SamplingError as error:
            return replace(self.cell, failed=str(error))
        return replace(
            self.cell,
            evaluations=found.evaluations,
            n=found.n,
            seconds=found.seconds,
            metrics=found.scores,
            notes=(*self.cell.notes, *found.notes),
        )


def compare(
    model: str | Path | FoundModel | Model,
    steps: Sequence[int] | None = None,
    methods: Sequence[str | Method] | None = None,
    *,
    kappas: Sequence[float] | None = None,
    table: CompareSettings | None = None,
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
        steps: Values of S; 5, 10, 20 and 50, or the table's, by default.
        methods: As :func:`fastdpm.evaluation.methods.choose_methods` takes them, or what it chose;
            all groups, or the table's methods, by default.
        kappas: Of the groups that take it; 0 and 1 by default.
        table: What the paper compares on this model, as a preset has it
            (:attr:`fastdpm.models.presets.Preset.compare`): what is not stated, the number of
            samples included, is taken from there.
        measuring: Reference, number of samples, feature network and cache.
        options: Seed, precision, batch size and device.
        clip: What is done to the implied clean data, alike for all methods; by default what the
            model's recipe does.
        reference_n: Samples of the standard T-step sampler; at most 1,000 by default.
        command: How to do it again, for the report.
        tell: Takes a line after each cell.

    Raises:
        InvalidArgumentError: As :func:`fastdpm.evaluation.evaluate.evaluate` does, or if the table
            shows FID and the published statistics or the weights of Inception-v3 are not given.
    """
    settings, draw = measuring or MeasureOptions(), options or DrawOptions()
    if table is not None:
        steps, methods, settings = _from_table(table, steps, methods, settings)
    chosen = choose_methods(methods, kappas)
    handle = ModelHandle(model, draw.device)
    schedule = VarianceSchedule.from_config(handle.config.schedule)
    measure = open_measure(handle.config.data, settings)
    if reference_n is None:
        reference_n = min(measure.n, _REFERENCE)
    elif not any(method.takes_all_steps for method in chosen):
        raise InvalidArgumentError(
            "no standard sampler is compared, so `reference_n` changes nothing: drop it"
        )
    check_count(min(measure.n, reference_n), measure.least)
    clip = handle.config.recipe.clip if clip is None else clip
    check_one_of("clip", clip, CLIPS)
    steps = _STEPS if steps is None else steps
    grid = _grid(chosen, steps, schedule, clip, measure.n, reference_n)
    trials = [
        Trial(cell, None if drawer is None else measure.source(handle, drawer, draw))
        for cell, drawer in grid
    ]
    left_out = list(measure.left_out)
    if importlib.util.find_spec("diffusers") is None:
        left_out.append("diffusers' samplers left out: run `pip install 'fastdpm[diffusers]'`")
    began = time.monotonic()
    cells, pictures = [], {}
    clock = _Clock(trials)
    for number, trial in enumerate(trials, 1):
        cell = trial.measured(measure)
        cells.append(cell)
        if cell.failed is None and trial.source is not None:
            pictures[cell.id] = trial.source.pictures(_PICTURED)
        left = clock.after(trial, cell.seconds)
        tell(f"{number} of {len(trials)}: {_line(cell, measure.metrics[0])}; {left}")
    return Comparison(
        model=ComparedModel(
            handle.config.name,
            handle.weights,
            schedule.num_train_steps,
            handle.config.data.modality,
            handle.config.data.sample_rate,
        ),
        features=measure.network,
        against=measure.against,
        n=measure.n,
        seed=draw.seed,
        clip=clip,
        precision=draw.precision,
        metrics=measure.metrics,
        left_out=tuple(left_out),
        floor=measure.floor,
        cells=tuple(cells),
        seconds=round(time.monotonic() - began, 1),
        versions=versions(*filter(importlib.util.find_spec, _PACKAGES)),
        command=command,
        pictures=pictures,
    )


def _from_table(
    table: CompareSettings,
    steps: Sequence[int] | None,
    methods: Sequence[str | Method] | None,
    settings: MeasureOptions,
) -> tuple[Sequence[int], Sequence[str | Method], MeasureOptions]:
    """What was not stated of steps, methods and n, as a table of the paper has it."""
    if table.metric == "fid" and (settings.against is None or settings.inception is None):
        raise InvalidArgumentError(
            "the paper's table shows FID: give the statistics to `against` and the weights of"
            " Inception-v3 to `inception` (docs/published.md says where they are)"
        )
    return (
        table.steps if steps is None else steps,
        table.methods if methods is None else methods,
        replace(settings, n=table.n if settings.n is None else settings.n),
    )


def _grid(
    methods: Sequence[Method],
    steps: Sequence[int],
    schedule: VarianceSchedule,
    clip: str,
    n: int,
    reference_n: int,
) -> list[tuple[Cell, Drawer | None]]:
    """Every method at every S, and the standard samplers, which take all T, once."""
    total = schedule.num_train_steps
    for count in steps:
        if not 2 <= count <= total:
            raise InvalidArgumentError(f"S must lie in [2, {total}] (T), got {count}")
    grid = []
    ordered = sorted(set(steps))
    for method in methods:
        all_steps = method.takes_all_steps
        for count in (total,) if all_steps else ordered:
            drawer, failed = None, None
            try:
                drawer = open_drawer(method, schedule, count, clip)
            except InvalidArgumentError as error:
                failed = str(error)
            plan = drawer.plan if drawer else None
            size = reference_n if all_steps else n
            cell = Cell(
                id=digest(method.key, count, size)[:12],
                method=method.key,
                family=method.family,
                group=method.group,
                choice=method.choice,
                num_steps=count,
                n=size,
                notes=plan.notes if plan else (),
                plan=plan.fingerprint if plan else None,
                failed=failed,
            )
            grid.append((cell, drawer))
    if not grid:
        raise InvalidArgumentError("nothing to compare: give at least one S and one method")
    return grid


def _line(cell: Cell, metric: Metric) -> str:
    name = f"S = {cell.num_steps}, {cell.name}"
    if cell.failed is not None:
        return f"{name}: failed: {cell.failed}"
    score = cell.metrics[metric.key]
    return f"{name}: {metric.name} {score.value:.4g} ± {score.error:.2g}"


class _Clock:
    """Time left, by what the samples of the finished trials cost to draw, whenever that was."""

    def __init__(self, trials: Sequence[Trial[S]]) -> None:
        self.left = {trial.cell.id: trial.left() for trial in trials}
        self.cost = self.seconds = 0.0

    def after(self, trial: Trial[S], seconds: float | None) -> str:
        """What to say when a trial is finished."""
        del self.left[trial.cell.id]
        if seconds is not None and trial.source is not None:
            self.cost += trial.cell.n * trial.source.rows
            self.seconds += seconds
        left = sum(self.left.values()) * self.seconds / max(self.cost, 1)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
