"""What a measurement will cost: network evaluations, counted, and seconds, from a short timing.

Only samples that are not in the cache count. Computing features and metrics is not included.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastdpm.evaluation.drawn import ModelSource
from fastdpm.evaluation.scores import duration
from fastdpm.evaluation.sources import Source
from fastdpm.sampling.network import evaluate_network
from fastdpm.sampling.noise import SampleNoise

_LIMIT = 2.0  # seconds; a network that takes longer for one sample is called once
_REPEATS = 5


class PlannedCell(NamedTuple):
    """A method at one S that is to be measured.

    Attributes:
        method: Its name.
        num_steps: S.
        n: Samples to measure.
        source: Draws them; None if nothing can.
        failed: Why nothing can draw them, or None.
    """

    method: str
    num_steps: int
    n: int
    source: Source | None
    failed: str | None = None


@dataclass(frozen=True)
class CellCost:
    """The cost of one cell: a method at one S.

    Attributes:
        method: Its name.
        num_steps: S.
        n: Samples of the cell.
        left: Samples of the cell that still have to be drawn.
        evaluations: Network evaluations of each sample; 0 if the cell cannot be drawn.
        noise_rows: Steps of each sample that draw noise.
        failed: Why the cell cannot be drawn, or None.
    """

    method: str
    num_steps: int
    n: int
    left: int
    evaluations: int
    noise_rows: int = 0
    failed: str | None = None

    @property
    def total(self) -> int:
        """Network evaluations that are left, over all samples."""
        return self.left * self.evaluations


@dataclass(frozen=True)
class Timing:
    """Seconds for one sample, measured on this device.

    Attributes:
        evaluation: Of one network evaluation.
        noise: To draw the noise of one step.
        finish: To decode and store the sample.
        batch_size: Samples that were evaluated at a time.
        device: Where.
    """

    evaluation: float
    noise: float
    finish: float
    batch_size: int
    device: str

    def seconds(self, cell: CellCost) -> float:
        """What a cell takes."""
        rows = cell.evaluations * self.evaluation + cell.noise_rows * self.noise
        return cell.left * (rows + self.finish)


@dataclass(frozen=True)
class CostEstimate:
    """The cost of a measurement that has not started; ``str`` of it is one line for people.

    Attributes:
        cells: The cost of each cell, in order.
        timing: How fast the network is; None if there is nothing left to draw.
    """

    cells: tuple[CellCost, ...]
    timing: Timing | None

    @property
    def evaluations(self) -> int:
        """Network evaluations that are left, over all cells."""
        return sum(cell.total for cell in self.cells)

    @property
    def seconds(self) -> float:
        """Seconds to draw what is left; computing features and metrics is not included."""
        return 0.0 if self.timing is None else sum(map(self.timing.seconds, self.cells))

    def __str__(self) -> str:
        timing = self.timing
        if timing is None:
            return "estimate: 0 network evaluations, there is nothing left to draw"
        cells = f" in {len(self.cells)} cells" if len(self.cells) > 1 else ""
        return (
            f"estimate: {self.evaluations:,} network evaluations{cells},"
            f" about {duration(self.seconds, digits=2)} on {timing.device} (measured:"
            f" {duration(timing.evaluation, digits=2)} per evaluation of one sample, in batches of"
            f" {timing.batch_size}); features and metrics are not included"
        )


def count_cells(cells: Iterable[PlannedCell]) -> tuple[CellCost, ...]:
    """Count what each cell still has to draw; cells that share their samples draw them once."""
    counted: dict[str, int] = {}
    costs = []
    for method, num_steps, n, source, failed in cells:
        if source is None:
            costs.append(CellCost(method, num_steps, n, 0, 0, failed=failed))
            continue
        wanted = min(n, source.size)
        there = max(counted.get(source.key, 0), source.drawn)
        counted[source.key] = max(wanted, there)
        left = max(wanted - there, 0)
        costs.append(CellCost(method, num_steps, n, left, source.rows, source.noise_rows))
    return tuple(costs)


def estimate_cost(cells: Sequence[PlannedCell]) -> CostEstimate:
    """Count the network evaluations that are left, and time the network if there are any.

    The timing takes about a second, or one call of a network that is slower than that. Nothing is
    drawn and nothing is written.
    """
    costs = count_cells(cells)
    for cost, cell in zip(costs, cells, strict=True):
        probe = None if cell.source is None else cell.source.probe
        if cost.left and probe is not None:
            return CostEstimate(costs, time_network(probe, cost.left))
    return CostEstimate(costs, None)


def time_network(source: ModelSource, n: int) -> Timing:
    """Time a few evaluations at the batch size that drawing ``n`` samples would use.

    Where a whole batch would take too long, fewer samples are evaluated at a time.
    """
    model, options = source.handle.model, source.drawing
    size = 1
    times = [_time_row(source, size)]
    if times[0][0] < _LIMIT or model.device.type != "cpu":  # a GPU's first call is a slow one
        each = _time_row(source, size).sum()
        condition = model.check_condition(options.condition)
        batch = min(model.batch_size(options.batch_size, condition), n, source.size)
        size = min(batch, max(1, int(_LIMIT / 2 / each)))
        times, began = [], time.perf_counter()
        while len(times) < _REPEATS and time.perf_counter() - began < _LIMIT / 2:
            times.append(_time_row(source, size))
    evaluation, noise, finish = np.median(times, axis=0).tolist()
    return Timing(evaluation, noise, finish, size, str(model.device))


@torch.no_grad()
def _time_row(source: ModelSource, size: int) -> NDArray[Any]:
    """Seconds per sample of an evaluation, of drawing noise and of decoding, shape (3,)."""
    model, options, samples = source.handle.model, source.drawing, range(size)
    condition = model.check_condition(options.condition)
    chosen = model.condition_of(condition, samples)
    network = model.noise_predictor(chosen, clip=source.drawer.clip, precision=options.precision)
    noise = SampleNoise(options.seed, samples)
    x = noise.start(model.sample_shape(condition), device=model.device)
    step = model.schedule.num_train_steps // 2
    level = float(model.schedule.R(step + 1))
    marks = [time.perf_counter()]
    eps, _ = evaluate_network(network, x, step, level, "timing the network", finite=False)
    eps.flatten()[0].item()  # waits for a GPU
    marks.append(time.perf_counter())
    noise(0, x).flatten()[0].item()
    marks.append(time.perf_counter())
    model.finished(x).cpu()
    marks.append(time.perf_counter())
    return np.diff(marks) / size
