"""Measuring many methods at many S on one network: the paper's grid.

Every cell is measured through the cache, so a comparison that was interrupted continues from
there.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, SamplingError, check_one_of
from fastdpm.core.recipe import CLIPS
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.evaluation.cache import versions
from fastdpm.evaluation.cells import ComparedModel
from fastdpm.evaluation.checks import check_sizes, check_tuned, check_used
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle
from fastdpm.evaluation.estimate import (
    CostEstimate,
    PlannedCell,
    count_cells,
    estimate_cost,
)
from fastdpm.evaluation.evaluating import MeasureOptions, open_measure, too_few
from fastdpm.evaluation.grid import Recipes, Scales, counts_of, guidances_of, make_grid, recipes_of
from fastdpm.evaluation.measure import Measure, S
from fastdpm.evaluation.methods import Method, choose_methods
from fastdpm.evaluation.metrics import check_count
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Metric, duration
from fastdpm.evaluation.trajectories import with_trajectories
from fastdpm.models.find import FoundModel
from fastdpm.models.load import find_device
from fastdpm.models.model import Model
from fastdpm.models.presets import CompareSettings

_PICTURED = 8
_REFERENCE = 1000
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy", "torchmetrics", "diffusers")


def _ignore(line: str) -> None:
    """Print nothing."""


@dataclass(frozen=True)
class Trial(Generic[S]):
    """One method at one S, to be measured.

    Attributes:
        cell: What is known before measuring, including why it cannot be drawn, if so.
        source: Draws the samples; None if nothing can.
    """

    cell: Cell
    source: S | None

    @property
    def planned(self) -> PlannedCell:
        """The cell as an estimate of the cost takes it."""
        cell = self.cell
        return PlannedCell(cell.name, cell.num_steps, cell.n, self.source, cell.failed)

    def measured(self, measure: Measure[S]) -> Cell:
        """Measure the cell; a sampler that fails is recorded in its own cell."""
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


@dataclass(frozen=True)
class PreparedComparison(Generic[S]):
    """A comparison whose arguments are checked; nothing is drawn or computed yet.

    Attributes:
        handle: The model.
        schedule: Its schedule.
        measure: Measures the samples.
        trials: The cells.
        draw: Seed, precision, batch size and device.
        clip: What is clipped; see :class:`fastdpm.Recipe`.
        notes: What a reader must know.
    """

    handle: ModelHandle
    schedule: VarianceSchedule
    measure: Measure[S]
    trials: tuple[Trial[S], ...]
    draw: DrawOptions
    clip: str
    notes: tuple[str, ...] = ()

    def estimate(self) -> CostEstimate:
        """Estimate what drawing the samples costs; see :func:`estimate_cost`."""
        return estimate_cost([trial.planned for trial in self.trials])

    @property
    def planned(self) -> Comparison:
        """The comparison before its cells are measured."""
        return self._comparison([trial.cell for trial in self.trials])

    def run(self, command: str = "", log: Callable[[str], object] = _ignore) -> Comparison:
        """Measure every cell; for the arguments, see :func:`compare`."""
        measure = self.measure
        began = time.monotonic()
        cells, pictures = [], {}
        clock = _Clock([trial.planned for trial in self.trials])
        for number, trial in enumerate(self.trials, 1):
            cell = trial.measured(measure)
            cells.append(cell)
            if cell.failed is None and trial.source is not None:
                pictures[cell.id] = trial.source.pictures(_PICTURED)
            left = clock.after(cell)
            log(f"{number} of {len(self.trials)}: {_line(cell, measure.metrics[0])}; {left}")
        return replace(
            self._comparison(cells),
            seconds=round(time.monotonic() - began, 1),
            command=command,
            pictures=pictures,
        )

    def _comparison(self, cells: Sequence[Cell]) -> Comparison:
        measure, config = self.measure, self.handle.config
        return Comparison(
            model=ComparedModel(
                config.name,
                self.handle.weights,
                self.schedule.num_train_steps,
                config.data.modality,
                config.data.sample_rate,
            ),
            features=measure.network,
            against=measure.against,
            n=measure.n,
            seed=self.draw.seed,
            clip=self.clip,
            precision=self.draw.precision,
            metrics=measure.metrics,
            left_out=(*measure.left_out, *self.notes),
            floor=measure.floor,
            cells=tuple(cells),
            seconds=None,
            versions=versions(*filter(importlib.util.find_spec, _PACKAGES)),
            command=None,
        )


@checked
def compare(
    model: str | Path | FoundModel | Model,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    *,
    kappas: Sequence[float] | None = None,
    guidance_scale: Scales | None = None,
    table: CompareSettings | None = None,
    measuring: MeasureOptions | None = None,
    options: DrawOptions | None = None,
    clip: str | None = None,
    reference_n: int | None = None,
    recipes: Recipes | None = None,
    command: str = "",
    log: Callable[[str], object] = _ignore,
) -> Comparison:
    """Measure methods at several S on one network, with the same seeds and the same metrics.

    To know the cost first, call :func:`prepare` with the same arguments, then ``estimate()`` of
    its result, a :class:`fastdpm.evaluation.CostEstimate`, and ``run()``.

    Args:
        model: A model, or anything that :func:`fastdpm.load_model` takes.
        steps: Values of S, or one; by default the table's, or those of 5, 10, 20 and 50 up to T.
        methods: Groups, keys or methods, as :func:`fastdpm.evaluation.methods.choose_methods`
            takes them; by default the table's, or all groups.
        kappas: Values of kappa for the group "paper"; 0 and 1 by default.
        guidance_scale: Scales of classifier-free guidance, one or several: every method is
            measured at each. By default that of the model's recipe.
        table: A table of the paper, as a preset describes it
            (:attr:`fastdpm.models.presets.Preset.compare`). It provides ``steps``, ``methods``
            and the number of samples where they are not set.
        measuring: Reference, number of samples, feature network and cache.
        options: Seed, precision, batch size, device and condition.
        clip: What is clipped (see :class:`fastdpm.Recipe`), the same for all methods; by default
            as in the model's recipe.
        reference_n: Samples of the standard T-step samplers; by default at most 1,000.
        recipes: Recipes of your own by name, or a TOML file of them, in addition to those of the
            model. One with custom levels is measured at its own number of steps, the others at
            every S; ``clip`` and ``guidance_scale`` apply to them too.
        command: The command line that reproduces this comparison, for the report.
        log: Called with one line of text after each cell.

    Raises:
        InvalidArgumentError: For the reasons of :func:`fastdpm.evaluation.evaluating.evaluate`, or
            if the table shows FID and the published statistics or the weights of Inception-v3 are
            missing.
    """
    prepared = prepare(
        model,
        steps,
        methods,
        kappas=kappas,
        guidance_scale=guidance_scale,
        table=table,
        measuring=measuring,
        options=options,
        clip=clip,
        reference_n=reference_n,
        recipes=recipes,
    )
    return prepared.run(command, log)


@checked
def prepare(
    model: str | Path | FoundModel | Model | ModelHandle,
    steps: Sequence[int] | int | None = None,
    methods: Sequence[str | Method] | str | None = None,
    *,
    kappas: Sequence[float] | None = None,
    guidance_scale: Scales | None = None,
    table: CompareSettings | None = None,
    measuring: MeasureOptions | None = None,
    options: DrawOptions | None = None,
    clip: str | None = None,
    reference_n: int | None = None,
    recipes: Recipes | None = None,
) -> PreparedComparison[Any]:
    """Check everything that :func:`compare` needs, to estimate its cost before it runs.

    The arguments are those of :func:`compare`.
    """
    settings, draw = measuring or MeasureOptions(), options or DrawOptions()
    steps = [steps] if isinstance(steps, int) else steps
    left_out = methods is None and importlib.util.find_spec("diffusers") is None
    if methods is None and table is not None:
        methods = table.methods
    kappas = None if kappas is None else [float(kappa) for kappa in kappas]
    if clip is not None:
        check_one_of("clip", clip, CLIPS)
    find_device(draw.device)
    if table is not None:
        settings = _from_table(table, settings)
    handle = model if isinstance(model, ModelHandle) else ModelHandle(model, draw.device)
    config = handle.config
    scales = guidances_of(guidance_scale, config.recipe)
    plans = handle.plans
    if methods is None:  # those that fit
        like = [config.recipe.replace(clip=clip, guidance_scale=scale) for scale in scales]
        plans = {
            count: tuned
            for count, tuned in plans.items()
            if (steps is None or count in steps) and not all(map(tuned.differences, like))
        }
    chosen = choose_methods(methods, kappas, recipes_of(recipes, config), plans)
    check_sizes(chosen, steps, settings.n, reference_n)
    check_used(config.data, settings, draw)
    check_tuned(chosen, handle)
    draw = draw.for_model(handle)
    # Without any condition, all scales are none, which is measured once.
    guidances = list(
        dict.fromkeys(handle.check_guidance(scale, draw.condition) for scale in scales)
    )
    schedule = VarianceSchedule.from_config(config.schedule)
    few = any(not method.has_own_steps for method in chosen)
    counts = counts_of(steps, table, schedule.num_train_steps) if few else []
    clip = config.recipe.clip if clip is None else clip
    measure = open_measure(config.data, settings)
    size = min(measure.n, _REFERENCE) if reference_n is None else reference_n
    check_count(size, measure.least)
    own = handle.check_guidance(None, draw.condition)
    guidance = guidances[0] if len(guidances) == 1 else own
    chosen = with_trajectories(chosen, handle, schedule, draw, clip, guidance, settings)
    trials = tuple(
        Trial(cell, None if drawer is None else measure.source(handle, drawer, draw))
        for cell, drawer in make_grid(chosen, counts, guidances, schedule, clip, measure.n, size)
    )
    notes = too_few(settings.n, measure)
    if left_out and table is None:
        notes += ("diffusers' samplers are left out: run `pip install 'fastdpm[diffusers]'`",)
    return PreparedComparison(handle, schedule, measure, trials, draw, clip, notes)


def _from_table(table: CompareSettings, settings: MeasureOptions) -> MeasureOptions:
    """Take the number of samples from a table of the paper if it is not set."""
    if table.metric == "fid" and (settings.against is None or settings.inception is None):
        raise InvalidArgumentError(
            "the paper's table shows FID: set `against` to the published statistics and"
            " `inception` to the weights of Inception-v3 (docs/published.md says where they are)"
        )
    return replace(settings, n=table.n if settings.n is None else settings.n)


def _line(cell: Cell, metric: Metric) -> str:
    name = f"S = {cell.num_steps}, {cell.name}"
    if cell.failed is not None:
        return f"{name}: failed: {cell.failed}"
    score = cell.metrics[metric.key]
    return f"{name}: {metric.name} {score.text}"


class _Clock:
    """Estimates the time left from what the samples of finished cells took to draw."""

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        costs = zip(cells, count_cells(cells), strict=True)
        self.left = [(cell.n * cost.evaluations, cost.total) for cell, cost in costs]
        self.cost = self.seconds = 0.0

    def after(self, cell: Cell) -> str:
        """One line to print when the next cell is finished."""
        whole, _ = self.left.pop(0)
        if cell.seconds is not None:
            self.cost += whole
            self.seconds += cell.seconds
        left = sum(total for _, total in self.left) * self.seconds / max(self.cost, 1)
        return f"about {duration(left, digits=2)} left"
