"""Measuring many methods at many S on one network: the paper's grid.

Every cell is measured through the cache, so a comparison that was killed goes on where it was
when it is started again.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError, SamplingError, check_one_of
from fastdpm.core.recipe import CLIPS
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.cache import digest
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, PlanSampler, Sampler
from fastdpm.evaluation.evaluate import Measure, MeasureOptions, open_measure
from fastdpm.evaluation.measure import Measured
from fastdpm.evaluation.methods import Method, choose_methods
from fastdpm.evaluation.results import Cell, ComparedModel, Comparison
from fastdpm.evaluation.scores import Metric
from fastdpm.models.find import FoundModel
from fastdpm.models.model import Model

_PICTURED = 8
_REFERENCE = 1000
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy", "torchmetrics", "diffusers")


@dataclass(frozen=True)
class Trial:
    """One method at one S, to be measured.

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
    trials = _trials(chosen, steps, schedule, clip, measure.n, reference_n)
    began = time.monotonic()
    cells, pictures = [], {}
    clock = _Clock({trial.id: _cost_left(trial, measure, handle, draw) for trial in trials})
    for number, trial in enumerate(trials, 1):
        cell = _measured(trial, measure, handle, draw)
        cells.append(cell)
        if trial.sampler is not None and cell.failed is None:
            pictures[cell.id] = measure.pictures(handle, trial.sampler, draw, _PICTURED)
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
        left_out=(*measure.left_out, *_left_out(chosen)),
        floor=measure.floor,
        cells=tuple(cells),
        seconds=round(time.monotonic() - began, 1),
        versions=_versions(),
        command=command,
        pictures=pictures,
    )


def _trials(
    methods: Sequence[Method],
    steps: Sequence[int],
    schedule: VarianceSchedule,
    clip: str,
    n: int,
    reference_n: int,
) -> list[Trial]:
    """The grid: every method at every S, and the standard samplers, which take all T, once."""
    total = schedule.num_train_steps
    for count in steps:
        if not 2 <= count <= total:
            raise InvalidArgumentError(f"S must lie in [2, {total}] (T), got {count}")
    trials = []
    ordered = sorted(set(steps))
    for method in methods:
        standard = method.family == "standard"
        for count in (total,) if standard else ordered:
            size = reference_n if standard else n
            try:
                trials.append(Trial(method, count, size, method.sampler(schedule, count, clip)))
            except InvalidArgumentError as error:
                trials.append(Trial(method, count, size, failed=str(error)))
    if not trials:
        raise InvalidArgumentError("nothing to compare: give at least one S and one method")
    return trials


def _measured(trial: Trial, measure: Measure, handle: ModelHandle, options: DrawOptions) -> Cell:
    """Its cell; a sampler that breaks down says so in its own cell alone."""
    measured, failed = Measured(trial.n, {}), trial.failed
    if trial.sampler is not None:
        try:
            measured = measure.measure_model(handle, trial.sampler, options, trial.n)
        except SamplingError as error:
            failed = str(error)
    plan = trial.sampler.plan if isinstance(trial.sampler, PlanSampler) else None
    return Cell(
        id=trial.id,
        method=trial.method.key,
        family=trial.method.family,
        group=trial.method.group,
        choice=trial.method.choice,
        num_steps=trial.num_steps,
        evaluations=measured.evaluations,
        n=measured.n,
        seconds=measured.seconds,
        metrics=measured.scores,
        notes=(*(plan.notes if plan else ()), *measured.notes),
        plan=plan.fingerprint if plan else None,
        failed=failed,
    )


def _line(cell: Cell, metric: Metric) -> str:
    name = f"S = {cell.num_steps}, {cell.name}"
    if cell.failed is not None:
        return f"{name}: failed: {cell.failed}"
    score = cell.metrics[metric.key]
    return f"{name}: {metric.name} {score.value:.4g} ± {score.error:.2g}"


def _cost_left(trial: Trial, measure: Measure, handle: ModelHandle, options: DrawOptions) -> int:
    """Network evaluations of the samples that are not drawn yet."""
    if trial.sampler is None:
        return 0
    drawn = measure.count_drawn(handle, trial.sampler, options)
    return max(trial.n - drawn, 0) * trial.sampler.rows


def _left_out(methods: Sequence[Method]) -> list[str]:
    """What the reader would look for in vain."""
    if any(m.diffusers for m in methods) or importlib.util.find_spec("diffusers") is not None:
        return []
    return ["diffusers' samplers left out: run `pip install 'fastdpm[diffusers]'`"]


class _Clock:
    """Time left, by what the samples of the finished trials cost to draw, whenever that was."""

    def __init__(self, left: Mapping[str, int]) -> None:
        self.left = dict(left)
        self.cost = self.seconds = 0.0

    def after(self, trial: Trial, seconds: float | None) -> str:
        """What to say when a trial is finished."""
        del self.left[trial.id]
        if seconds is not None:
            self.cost += trial.cost
            self.seconds += seconds
        left = sum(self.left.values()) * self.seconds / max(self.cost, 1)
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES if importlib.util.find_spec(name)}
