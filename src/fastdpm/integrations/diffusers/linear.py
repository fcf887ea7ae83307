"""Plans of the schedulers of diffusers, read off by running them on basis vectors.

The next state of a deterministic scheduler is a linear combination of the states that it received
and of the predictions of eps. So a scheduler takes each step from a unit vector of its own, with
a unit vector as the prediction, and returns the coefficients of a row. Schedulers of x / r (Euler,
Heun ...) scale their states for the network; the states of the plan are the scaled ones.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, first_line
from fastdpm.core.levels import check_num_steps
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.integrations.diffusers.base import PlanScheduler
from fastdpm.models.formats.diffusers_config import schedule_of
from fastdpm.sampling.loop import run

_MANY = 4  # states in a row, above which it is written with fewer
_SAME = 1e-6  # levels
_EXACT = 1e-9  # relative, of states
_ELIMINATED = 1e-12  # relative, of weights
_NOTHING = 1e-14  # relative, of weights
_AS_PLANS = {"prediction_type": "epsilon", "clip_sample": False, "thresholding": False}
# How diffusers fails with steps and settings that it does not support.
_FAILURES = (ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RuntimeError)


@checked
def plan_of(scheduler: SchedulerMixin, num_steps: int, *, label: str | None = None) -> Plan:
    """Read the plan of a deterministic scheduler of diffusers.

    Sampling by the plan gives the samples of the scheduler, to float32 rounding, from the same
    noise. Networks of plans predict eps, so ``prediction_type`` has no effect: models convert v
    and x0. Nothing is clipped: pass ``clip`` when you sample.

    Args:
        scheduler: A scheduler with a variance schedule, such as DDIM, PNDM, DEIS, DPM-Solver,
            UniPC, Euler, Heun or LMS. Only its configuration is used, and it is not changed.
        num_steps: S, as in ``scheduler.set_timesteps``. The plan has one row for each network
            evaluation, of which some schedulers make more than S.
        label: A description of the plan; by default the class of the scheduler and S.

    Returns:
        The plan. ``notes`` say where the network receives other steps than those of the levels.

    Raises:
        InvalidArgumentError: If the scheduler draws noise, leads from data to noise, has no
            variance schedule, is not linear, or cannot take S steps.
    """
    name = type(scheduler).__name__
    if isinstance(scheduler, PlanScheduler):
        raise InvalidArgumentError(
            f"`scheduler` must be one of diffusers, got a {name}, which executes a plan: call"
            " set_timesteps and read scheduler.plan"
        )
    config: Any = getattr(scheduler, "config", {})
    schedule = VarianceSchedule.from_config(schedule_of({"_class_name": name, **config}))
    check_num_steps(schedule, num_steps)
    steps = _Steps(scheduler, num_steps)
    with torch.random.fork_rng([]), steps.in_one_line():
        drawn = steps.draw()
        states, scales = steps.take(*drawn)
        if not np.array_equal(states, steps.take(*drawn)[0], equal_nan=True):
            raise InvalidArgumentError(
                "it draws noise of its own: choose a deterministic scheduler"
            )
        plan = _compile(steps, schedule, label or f"{name}, S = {num_steps}")
        expected = states * np.append(scales[1:], 1.0)[:, None]
        _check_linear(plan, drawn[0] * scales[0], drawn[1], expected)
    return plan


class _InDouble(TorchFunctionMode):
    """Keep states in float64 where a scheduler converts them to float32."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        to_single = func is Tensor.to and torch.float32 in (*args[1:], *options.values())
        if to_single and args[0].dtype == torch.float64:
            return args[0]
        return func(*args, **options)


class _Steps:
    """The steps of a scheduler, taken in float64.

    Attributes:
        where: Class and S, for errors.
    """

    def __init__(self, scheduler: Any, num_steps: int) -> None:
        own = {key: value for key, value in _AS_PLANS.items() if key in scheduler.config}
        self._kind, self._config = type(scheduler), {**scheduler.config, **own}
        # The names of settings that another class may replace by its own defaults.
        self._config.pop("_use_default_values", None)
        self._num_steps = num_steps
        self.where = f"{type(scheduler).__name__} with S = {num_steps}"

    def open(self) -> Any:
        """A scheduler that starts; a used one can keep states of the last run."""
        return copy.deepcopy(self._fresh)

    @cached_property
    def _fresh(self) -> Any:
        scheduler: Any = self._kind.from_config(self._config)
        scheduler.set_timesteps(self._num_steps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)  # or a repeated first step is mistaken for the second
        for name, table in list(vars(scheduler).items()):
            if isinstance(table, Tensor) and table.is_floating_point() and name != "timesteps":
                setattr(scheduler, name, table.double())
        return scheduler

    def take(self, states: Tensor, predictions: Tensor) -> tuple[Array, Array]:
        """Take all steps.

        Args:
            states: States before the first steps, (at least 1, width); later steps start where the
                one before them ended.
            predictions: What the network returns, (rows, width).

        Returns:
            The states after the steps, (rows, width), and the scales of states for the network,
            (rows,).
        """
        scheduler, found, scales = self.open(), list[Tensor](), []
        one = torch.ones((), dtype=torch.float64)
        with _InDouble():
            for row, t in enumerate(scheduler.timesteps):
                x = states[row, None] if row < len(states) else found[-1]  # batch of one
                scales.append(float(scheduler.scale_model_input(one, t)))
                eps = predictions[row, None].clone()  # schedulers keep it
                found.append(scheduler.step(eps, t, x, return_dict=False)[0])
        return torch.cat(found).numpy(), np.array(scales)

    @contextmanager
    def in_one_line(self) -> Iterator[None]:
        """Name the scheduler in errors, of one line, and hide the warnings of diffusers."""
        try:
            with warnings.catch_warnings(), torch.no_grad(), torch.device("cpu"):
                warnings.simplefilter("ignore")
                yield
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"{self.where} has no plan: {error}") from None
        except _FAILURES as error:
            raise InvalidArgumentError(
                f"{self.where} has no plan: diffusers fails ({first_line(error)}): choose another"
                " `num_steps` or scheduler"
            ) from None

    def check_exist(self, t: Array, schedule: VarianceSchedule) -> None:
        """Raise InvalidArgumentError unless all steps are of the schedule."""
        outside = t[(t < 0) | (t > schedule.num_train_steps - 1)]
        if outside.size:
            raise InvalidArgumentError(
                f"it takes step {outside[0]:g}, which does not exist: choose another `num_steps`"
                " or spacing"
            )

    def draw(self) -> tuple[Tensor, Tensor]:
        """A random start, (1, 4), and a random prediction for each row, (rows, 4)."""
        rows = len(self.open().timesteps)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randn(rows + 1, 4, dtype=torch.float64, generator=generator)
        return drawn[:1], drawn[1:]


def _check_linear(plan: Plan, start: Tensor, predictions: Tensor, expected: Array) -> None:
    """Raise InvalidArgumentError unless the plan leads to the states of the scheduler."""
    found: list[Array] = []
    outputs = iter(predictions)
    run(
        plan,
        lambda x, t: next(outputs)[None],
        start,
        callback=lambda _, x: found.append(x.numpy()[0]),
    )
    apart = np.abs(np.stack(found) - expected[: plan.num_rows]).max()
    if not apart <= _EXACT * np.abs(expected).max():
        raise InvalidArgumentError(
            "it is not linear in its states and predictions: choose another scheduler"
        )


def _compile(steps: _Steps, schedule: VarianceSchedule, label: str) -> Plan:
    """The plan of a scheduler."""
    scheduler = steps.open()
    t = scheduler.timesteps.double().numpy()
    steps.check_exist(t, schedule)
    basis = torch.eye(2 * t.size, dtype=torch.float64)
    found, scales = steps.take(basis[: t.size], basis[t.size :])
    if not np.isfinite(found).all():
        raise InvalidArgumentError(
            "it returns values that are not finite: choose another `num_steps`"
        )
    found[np.abs(found) < _NOTHING * np.abs(found).max(axis=1, keepdims=True)] = 0
    after = np.append(scales[1:], 1.0)[:, None]
    a, b = _tables(after * found[:, : t.size] / scales, after * found[:, t.size :])
    network_level = _network_levels(scheduler, t, scales)
    level = _levels(network_level[0], a)
    if level[-1] <= level[0]:
        raise InvalidArgumentError(
            "it leads from data to noise: use fastdpm.encode or FastDPMInverseScheduler"
        )
    idle = bool(a[-1, 0] == 1 and not a[-1, 1:].any() and not b[-1].any())
    rows = slice(0, t.size - idle)
    rounding = _rounding(schedule, t[rows], network_level[rows])
    unmatched = int((np.abs(level[:-1] - network_level)[rows] > _SAME).sum())
    start = float(scheduler.init_noise_sigma) * scales[0]
    return Plan(
        level[: rows.stop + 1],
        t[rows],
        a[rows],
        b[rows],
        np.zeros(rows.stop),
        label,
        _notes(rounding, unmatched, start, idle=idle),
        network_level=(network_level if unmatched else level)[rows],
        rounding=rounding,
    )


def _rounding(schedule: VarianceSchedule, t: Array, network_level: Array) -> float:
    """The largest distance of steps from those of their levels; 0 where the levels agree."""
    apart = np.abs(schedule.T(np.clip(network_level, schedule.levels[-1], 1)) - 1 - t)
    agree = np.abs(schedule.R(t + 1) - network_level) <= _SAME
    return float(np.where(agree, 0, apart).max())


def _notes(rounding: float, unmatched: int, start: float, *, idle: bool) -> tuple[str, ...]:
    """Remarks on what the scheduler does that plans of our own do not."""
    notes = []
    if rounding:
        notes.append(
            f"the network receives steps up to {rounding:.2g} from those of the levels, as in"
            " diffusers"
        )
    if unmatched:
        notes.append(
            f"in {unmatched} rows the network receives a step that does not match the level of the"
            " state, as in diffusers; `level` follows the weights of the states"
        )
    if idle:
        notes.append(
            "the last step of diffusers changes nothing and is left out, with its evaluation"
        )
    if abs(start - 1) > _SAME:
        notes.append(
            f"diffusers scales the noise that it starts from by {start:.6g}; the plan does not"
        )
    return tuple(notes)


def _network_levels(scheduler: Any, t: Array, scales: Array) -> Array:
    """The levels that the scheduler assumes where the network is evaluated."""
    if (scales != 1).any():  # states of the network are r times states of the scheduler
        return scales
    if hasattr(scheduler, "sigmas"):
        sigma = scheduler.sigmas.double().numpy()[: t.size]
        return np.asarray(1 / np.sqrt(1 + sigma**2))
    return np.asarray(np.sqrt(scheduler.alphas_cumprod.numpy()[t.astype(np.int64)]))


def _levels(first: float, a: Array) -> Array:
    """The levels to which weights of the states lead from the first one."""
    level = [first]
    for row in a:
        past = np.array(level[::-1][: row.size])
        reached = float(row[: past.size] @ past)
        level.append(1.0 if abs(reached - 1) < 1e-10 else reached)
    return np.array(level)


def _tables(of_states: Array, of_predictions: Array) -> tuple[Array, Array]:
    """The tables of a plan from weights of all states and predictions, each (rows, rows)."""
    rows = len(of_states)
    # By the start (column 0) and the predictions (columns 1 ... rows) alone.
    states = np.eye(1, rows + 1)
    tables: tuple[list[Array], list[Array]] = ([], [])
    for row in range(rows):
        a, b = of_states[row, : row + 1], of_predictions[row, : row + 1]
        new = a @ states
        new[1 : row + 2] += b
        states = np.vstack([states, new])
        if np.count_nonzero(a) > _MANY:
            a, b = _with_few(states)
        for table, weights in zip(tables, (a, b), strict=True):
            table.append(np.trim_zeros(weights, "f")[::-1])
    return _padded(tables[0]), _padded(tables[1])


def _with_few(states: Array) -> tuple[Array, Array]:
    """Weights by which the last state follows from as few states and predictions as possible.

    UniPC keeps a corrected state, which depends on all earlier ones, but which the last states
    and predictions determine.
    """
    past, new = states[:-1], states[-1]
    for count in range(1, len(past) + 1):
        last, earlier = past[-count:], len(past) - count + 1  # columns that `last` must explain
        a = np.linalg.lstsq(last[:, :earlier].T, new[:earlier], rcond=None)[0]
        rest = new - a @ last
        if np.abs(rest[:earlier]).max() <= _ELIMINATED * np.abs(new).max():
            break
    return a, rest[earlier : len(past) + 1]


def _padded(rows: list[Array]) -> Array:
    table = np.zeros((len(rows), max(1, *(row.size for row in rows))))
    for row, weights in zip(table, rows, strict=True):
        row[: weights.size] = weights
    return table
