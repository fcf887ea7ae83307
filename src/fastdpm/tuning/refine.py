"""Levels and coefficients together, by Levenberg-Marquardt with forward differences.

A plan has a few dozen numbers, so a Jacobian takes a few dozen partial runs: a number changes the
rows from its own on, and no others.
Source: Nocedal & Wright 2006, Numerical Optimization, sections 10.3 and 11.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from fastdpm.core.data_form import with_signal
from fastdpm.core.errors import SamplingError
from fastdpm.core.schedule import Array
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.rollout import (
    Learned,
    Rollout,
    gap,
    highest,
    levels_of,
    lowest,
    roll,
    theory,
)

_DIFFERENCE = 0.01
_DAMPING, _LEAST_DAMPING = 1e-2, 1e-6
_TRIES = 6
REUSED = 4
"""Steps with one Jacobian, at most."""
_WORTHWHILE = 0.98  # a step that lowers the loss to a larger share is the last one with a Jacobian
_TOLERANCE = 1e-3  # of the loss; an iteration that gains less is the last one
KINDS = ("level", "shift", "coefficient")
"""The numbers of a plan: its levels, the shifts of those that the network receives (see
:class:`fastdpm.tuning.rollout.Learned`), and its coefficients."""
Residual = Callable[[Rollout], Array]


@dataclass(frozen=True, eq=False)
class Step:
    """A refinement after an iteration.

    Attributes:
        learned: Levels and coefficients.
        rollout: The run with them.
        residual: What has to be small.
        damping: The damping of the next iteration.
        rejected: Tries of this iteration that gave values that are not finite.
    """

    learned: Learned
    rollout: Rollout
    residual: Array
    damping: float
    rejected: int = 0

    @property
    def loss(self) -> float:
        """The squared length of the residual."""
        return float(self.residual @ self.residual)


def refine(
    predict: DataPredictor,
    learned: Learned,
    residual: Residual,
    iterations: int,
    *,
    kinds: Collection[str] = KINDS,
    few: tuple[DataPredictor, Residual] | None = None,
    over: Callable[[], bool] = lambda: False,
) -> Iterator[Step]:
    """Improve a plan; generate it as it is, and after each iteration that improves it.

    Args:
        predict: The network, and the starts.
        learned: Levels and coefficients to start from.
        residual: What has to be small, of a run.
        iterations: The most iterations.
        kinds: What may change.
        few: The network for fewer starts, and a residual of their run that changes as the other
            one does: Jacobians are taken from these. By default from all.
        over: Whether the time is over; a Jacobian that is not done by then is dropped.
    """
    step = _start(predict, learned, residual)
    yield step
    for _ in range(iterations):
        around = _Around(step.learned, kinds)
        near = step if few is None else _start(few[0], step.learned, few[1])
        jacobian = _jacobian(*(few or (predict, residual)), around, near, over)
        found = None if jacobian is None else _descend(predict, step, jacobian, residual, kinds)
        if found is None:
            return
        enough = found.loss > (1 - _TOLERANCE) * step.loss
        step = found
        yield step
        if enough:
            return


def _start(predict: DataPredictor, learned: Learned, residual: Residual) -> Step:
    rollout = roll(predict, learned)
    return Step(learned, rollout, residual(rollout), _DAMPING)


def evaluations(num_steps: int, kinds: Collection[str] = KINDS) -> int:
    """Network evaluations of the partial runs of a Jacobian, for one sample."""
    return sum(num_steps - number.row for number in _numbers(num_steps, kinds))


def count_numbers(num_steps: int, kinds: Collection[str] = KINDS) -> int:
    """How many numbers a plan of S rows has."""
    return len(_numbers(num_steps, kinds))


@dataclass(frozen=True)
class _Number:
    """A number of a plan: a level, a shift, or a coefficient of a state.

    Attributes:
        kind: One of :data:`KINDS`.
        row: The first row whose prediction changes with it.
        column: The column of a coefficient in the table.
    """

    kind: str
    row: int
    column: int = 0


def _numbers(num_steps: int, kinds: Collection[str]) -> list[_Number]:
    """The numbers of a plan; the last coefficient of each state follows from its signal."""
    each = [_Number(kind, s) for kind in ("level", "shift") for s in range(num_steps)]
    table = [(s, j) for s in range(1, num_steps + 1) for j in range(s)]
    found = each + [_Number("coefficient", s, j) for s, j in table]
    return [number for number in found if number.kind in kinds]


class _Around:
    """Plans near some levels and coefficients."""

    def __init__(self, origin: Learned, kinds: Collection[str]) -> None:
        self.origin = origin
        self.numbers = _numbers(origin.num_rows, kinds)
        self._beyond = origin.table - theory(origin.schedule, origin.log_snr)

    def at(self, changes: Array) -> Learned | None:
        """The plan after a change of each number; None if a level is out of order or range."""
        schedule, log_snr = self.origin.schedule, self.origin.log_snr.copy()
        shift, beyond = self.origin.shift.copy(), self._beyond.copy()
        for number, change in zip(self.numbers, changes, strict=True):
            if number.kind == "level":
                log_snr[number.row] += change
            elif number.kind == "shift":
                shift[number.row] += change
            else:
                beyond[number.row, number.column] += change
        log_snr[0] = max(log_snr[0], lowest(schedule))
        near = np.any(np.diff(log_snr) < gap(schedule, len(log_snr)))
        received = (log_snr + shift)[shift != 0]
        beyond_ends = (received < lowest(schedule)) | (received > highest(schedule))
        if near or log_snr[-1] > highest(schedule) or np.any(beyond_ends):
            return None
        level = levels_of(schedule, log_snr).level
        table = with_signal(theory(schedule, log_snr) + beyond, level)
        return Learned(schedule, log_snr, table, shift)


def _descend(
    predict: DataPredictor,
    step: Step,
    jacobian: Array,
    residual: Residual,
    kinds: Collection[str],
) -> Step | None:
    """Damped steps with one Jacobian, which Broyden's updates keep in use while they help.

    None if no step lowers the loss.
    """
    step = first = replace(step, rejected=0)
    for _ in range(REUSED):
        found = _damped(predict, step, jacobian, residual, kinds)
        if found is None:
            break
        following, changes = found
        missed = following.residual - step.residual - jacobian @ changes
        jacobian += np.outer(missed, changes) / (changes @ changes)
        before, step = step.loss, following
        if step.loss > _WORTHWHILE * before:
            break
    return None if step is first else step


def _damped(
    predict: DataPredictor,
    step: Step,
    jacobian: Array,
    residual: Residual,
    kinds: Collection[str],
) -> tuple[Step, Array] | None:
    """The first damped step that lowers the loss, and its changes; None if there is none."""
    around = _Around(step.learned, kinds)
    gram, slope, damping = jacobian.T @ jacobian, jacobian.T @ step.residual, step.damping
    scale, rejected = np.diag(np.diag(gram) + 1e-9 * np.trace(gram)), step.rejected
    for _ in range(_TRIES):
        changes = np.asarray(-np.linalg.solve(gram + damping * scale, slope), dtype=np.float64)
        learned = around.at(changes)
        found = None if learned is None else _run(predict, learned, residual)
        rejected += learned is not None and found is None
        if learned is not None and found is not None:
            following = Step(learned, *found, max(damping / 5, _LEAST_DAMPING), rejected=rejected)
            if following.loss < step.loss:
                return following, changes
        damping = max(4 * damping, 1e-4)
    return None


def _jacobian(
    predict: DataPredictor,
    residual: Residual,
    around: _Around,
    step: Step,
    over: Callable[[], bool],
) -> Array | None:
    """Derivatives of the residual, shape (residuals, numbers); 0 where there are none.

    None if the time is over.
    """
    jacobian = np.zeros((len(step.residual), len(around.numbers)))
    for i, number in enumerate(around.numbers):
        if over():
            return None
        changes = np.zeros(len(around.numbers))
        for change in (_DIFFERENCE, -_DIFFERENCE):
            changes[i] = change
            learned = around.at(changes)
            known = step.rollout.data[: number.row]
            found = None if learned is None else _run(predict, learned, residual, known)
            if found is not None:
                jacobian[:, i] = (found[1] - step.residual) / change
                break
    return jacobian


def _run(
    predict: DataPredictor, learned: Learned, residual: Residual, known: Sequence[Tensor] = ()
) -> tuple[Rollout, Array] | None:
    """A run and its residual; None if they are not finite."""
    try:
        rollout = roll(predict, learned, known)
        found = residual(rollout)
    except SamplingError:
        return None
    return (rollout, found) if math.isfinite(float(found @ found)) else None
