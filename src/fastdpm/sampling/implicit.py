"""Inverting a plan row by row: the state that decodes to the one that is given.

A first-order row without noise decodes x to a x + b eps(x, t). Its inverse solves

    x = (x' - b eps(x, t)) / a

by Anderson's acceleration of that fixed point: the next iterate combines the last ones so that
their steps, combined alike, are shortest. Most rows contract, and need a few evaluations from the
eps of the row before. The last row of a trained network need not: what it makes of x as clean data
hardly moves with x in some directions and moves backwards in others. The safeguard is a new start,
from other noise, where the residual no longer falls. That row may have no inverse at all: in
silence, a network returns almost the same for every x.
Source: Walker & Ni 2011, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal.
49(4), in its unconstrained form with one step undamped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.plan import Plan
from fastdpm.sampling.ask import Network, NoisePredictor, ask
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.run import combine
from fastdpm.sampling.state import RowCallback

Select = Callable[[Tensor], Network | NoisePredictor]

# Decoding amplifies what a noisy row misses, 500-fold in some digits: a row that is good enough is
# still solved to the rounding of float32, unless its residual settled before.
_AIM = 1e-7
_SETTLED = 2
_PATIENCE = 20
_REACH = 100.0
_RIDGE = 1e-10
_FAINT = 1e-3  # silence has no relative error


@dataclass(frozen=True)
class ImplicitOptions:
    """How rows are solved.

    Attributes:
        tolerance: Largest relative residual of a row, in (0, 1).
        max_evaluations: Network evaluations that one row may take for a sample, at least 1.
        memory: How many differences of iterates are combined, from 1; 3 to 5 suit most networks.
        keep_best: Go on from the best iterate of a row that does not converge.

    Raises:
        InvalidArgumentError: If a value is out of range.
    """

    tolerance: float = 2e-5
    max_evaluations: int = 1000
    memory: int = 5
    keep_best: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InvalidArgumentError(
                f"`tolerance` must lie between 0 and 1, got {self.tolerance:g}"
            )
        if self.max_evaluations < 1 or self.memory < 1:
            raise InvalidArgumentError(
                "`max_evaluations` and `memory` must be at least 1, got"
                f" {self.max_evaluations} and {self.memory}"
            )

    def describe(self) -> str:
        """The options that differ from their defaults."""
        stated = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return " and ".join(f"`{name}`" for name in stated or ["solver"])


@dataclass(frozen=True)
class Inversion:
    """What :func:`invert` found.

    Attributes:
        x: Latents, shaped like the data; NaN for samples that did not converge, unless the best
            iterates were asked for.
        evaluations: Network evaluations of each sample, shape (batch,).
        residual: The relative residual of the row below, or the largest of a sample's rows where
            all converged, shape (batch,): the distance of what the latent of a row decodes to
            from what it should, over the latter's norm, or that of a constant 1e-3 for what is
            fainter.
        row: For each sample the row of the plan that did not converge, the cleanest if several,
            -1 if all did; shape (batch,).
    """

    x: Tensor
    evaluations: Tensor
    residual: Tensor
    row: Tensor


DEFAULTS = ImplicitOptions()


@torch.no_grad()
def invert(
    plan: Plan,
    select: Select,
    x: Tensor,
    options: ImplicitOptions = DEFAULTS,
    *,
    callback: RowCallback | None = None,
) -> Inversion:
    """Encode data so that ``plan`` decodes it, row by row from the clean end.

    Each row is solved to the tolerance, and on to rounding as long as that halves the residual,
    which is measured in decoding's own arithmetic. A sample that is done with a row is not
    evaluated again in it. What it decodes to does not depend on the others, to the tolerance; its
    latent may, where decoding hardly depends on it.

    Args:
        plan: Of first order and without noise, as :func:`fastdpm.ddim_rev` makes it.
        select: ``select(indices)`` is the network for these samples of the batch, shape (n,).
        x: Data at the plan's last level, shape (batch, ...), float32 or float64; not changed.
        options: How rows are solved.
        callback: Called as ``callback(row, x)`` after each row, the last row of the plan first.

    Raises:
        InvalidArgumentError: If the plan is another, or the data not finite.
        SamplingError: If the network returns the wrong shape, or is not finite at a row's first
            iterate; the row is named.
    """
    _check(plan, x)
    tolerance, keep_best = options.tolerance, options.keep_best
    size, device = len(x), x.device
    state, eps = x.clone(), torch.zeros_like(x)
    evaluations = torch.zeros(size, dtype=torch.int64, device=device)
    residual = torch.zeros(size, dtype=x.dtype, device=device)
    failed = torch.full((size,), -1, dtype=torch.int64, device=device)
    for row in reversed(range(plan.num_rows)):
        going = torch.nonzero((failed < 0) | keep_best).flatten()
        if not len(going):
            break
        search = _Search(
            _Equation(plan, row, select, going, state[going]), eps[going], options.memory
        )
        search.run(tolerance, options.max_evaluations)
        state[going], eps[going] = search.best, search.best_eps
        evaluations[going] += search.evaluations
        worst = torch.maximum(residual[going], search.residual)
        residual[going] = torch.where(failed[going] < 0, worst, residual[going])
        lost = going[search.residual > tolerance]
        failed[lost] = torch.where(failed[lost] < 0, row, failed[lost])
        if not keep_best:
            state[lost] = torch.nan
        if callback is not None:
            callback(row, state)
    return Inversion(state, evaluations, residual, failed)


def _check(plan: Plan, x: Tensor) -> None:
    if plan.a.shape[1] > 1 or plan.b.shape[1] > 1 or plan.draws_noise:
        raise InvalidArgumentError(
            f"only the rows of first-order plans without noise have an inverse to solve for, got"
            f" {plan.label}: use ddim_rev with kappa=0"
        )
    if x.dtype not in (torch.float32, torch.float64) or not torch.isfinite(x).all():
        raise InvalidArgumentError(
            f"data to invert must be float32 or float64 and finite, got {x.dtype}"
        )


class _Equation:
    """A row's equation for some samples: a x + b eps(x, t) = target."""

    def __init__(
        self, plan: Plan, row: int, select: Select, indices: Tensor, target: Tensor
    ) -> None:
        self.plan = plan
        self.a, self.b = float(plan.a[row, 0]), float(plan.b[row, 0])
        self.t, self.level = float(plan.t[row]), float(plan.level[row])
        self.name, self.row = f"row {row} of {plan.num_rows}", row
        self.select, self.indices, self.target = select, indices, target
        self.network = select(indices)

    def keep(self, which: Tensor) -> None:
        """Leave the other samples out."""
        self.indices, self.target = self.indices[which], self.target[which]
        self.network = self.select(self.indices)

    def solved_for(self, eps: Tensor) -> Tensor:
        """The x of the equation if this were its eps."""
        return (self.target - self.b * eps) / self.a

    def eps(self, x: Tensor, *, finite: bool) -> Tensor:
        """One evaluation; of iterates that went astray, values need not be ``finite``."""
        return ask(self.network, x, self.t, self.level, self.name, finite=finite)[0]

    def step(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """The step to the image of ``x``, and the relative size of what decoding misses.

        That is infinite where it is not finite, and far beyond any noise: what rounding leaves of
        so large a state could pass for a solution.
        """
        off = self.target - combine(self.plan, self.row, [x], [eps])
        norm, unit = _norm(self.target), math.sqrt(x[0].numel())
        size = _norm(off) / norm.clamp_min(_FAINT * unit)
        noise = abs(self.b) * unit
        near = _norm(x) <= _REACH * (norm + noise) / abs(self.a)
        return off / self.a, torch.where(torch.isfinite(size) & near, size, torch.inf)


class _Search:
    """The iteration of one row for a batch, and the best iterates so far."""

    def __init__(self, equation: _Equation, eps: Tensor, memory: int) -> None:
        size, device = len(eps), eps.device
        self.equation = equation
        self.best, self.best_eps = equation.solved_for(eps), eps
        self.residual = torch.full((size,), torch.inf, dtype=eps.dtype, device=device)
        self.evaluations = torch.zeros(size, dtype=torch.int64, device=device)
        self.active = torch.arange(size, device=device)
        self.history = _Anderson(self.best, memory)
        # Of the active samples: how many starts, evaluations since the residual last halved, and
        # what it had fallen to.
        self.starts, self.idle = torch.zeros_like(self.active), torch.zeros_like(self.active)
        self.mark = torch.full_like(self.residual, torch.inf)

    def run(self, tolerance: float, max_evaluations: int) -> None:
        """Iterate until every sample converged or had its evaluations."""
        x = self.best.clone()
        for count in range(max_evaluations):
            eps = self.equation.eps(x, finite=count == 0)
            step, residual = self.equation.step(x, eps)
            self._record(x, eps, residual)
            going = residual > min(tolerance, _AIM)
            going &= (self.residual[self.active] > tolerance) | (self.idle < _SETTLED)
            if not going.any():
                return
            if not going.all():
                self._keep(going)
                x, step, residual = x[going], step[going], residual[going]
            x = self._next(x, step, residual)

    def _record(self, x: Tensor, eps: Tensor, residual: Tensor) -> None:
        self.evaluations[self.active] += 1
        better = residual < self.residual[self.active]
        at = self.active[better]
        self.best[at], self.best_eps[at] = x[better], eps[better]
        self.residual[at] = residual[better]
        halved = residual < 0.5 * self.mark
        self.mark = torch.where(halved, residual, self.mark)
        self.idle = torch.where(halved, 0, self.idle + 1)

    def _keep(self, which: Tensor) -> None:
        self.equation.keep(which)
        self.history.keep(which)
        self.active, self.starts = self.active[which], self.starts[which]
        self.idle, self.mark = self.idle[which], self.mark[which]

    def _next(self, x: Tensor, step: Tensor, residual: Tensor) -> Tensor:
        """Anderson's iterates; new starts for samples whose residual no longer falls."""
        lost = ~torch.isfinite(residual)
        x = self.history.next(x, torch.where(_like(lost, step), 0.0, step))
        stuck = lost | (self.idle >= _PATIENCE)
        if stuck.any():
            self.starts[stuck] += 1
            self.idle[stuck], self.mark[stuck] = 0, torch.inf
            self.history.forget(stuck)
            eps = torch.zeros_like(x)
            eps[stuck] = SampleNoise(0, self.starts[stuck].tolist())(self.equation.row, x[stuck])
            x = torch.where(_like(stuck, x), self.equation.solved_for(eps), x)
        return x


class _Anderson:
    """Differences of the last iterates and of their steps; zero where there are none yet."""

    def __init__(self, like: Tensor, memory: int) -> None:
        flat = like.flatten(1)
        self.x, self.step = torch.zeros_like(flat), torch.zeros_like(flat)
        self.dx = flat.new_zeros(len(flat), memory, flat.shape[1])
        self.dstep = torch.zeros_like(self.dx)
        self.fresh = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        self.count = 0

    def next(self, x: Tensor, step: Tensor) -> Tensor:
        """The iterates after ``x``, which lie a ``step`` from their images."""
        flat, off = x.flatten(1), step.flatten(1)
        slot = self.count % self.dx.shape[1]
        known = ~self.fresh[:, None]
        self.dx[:, slot] = torch.where(known, flat - self.x, 0.0)
        self.dstep[:, slot] = torch.where(known, off - self.step, 0.0)
        self.x, self.step, self.count = flat, off, self.count + 1
        self.fresh = torch.zeros_like(self.fresh)
        weight = self._weights(off)[:, None].to(flat.dtype)
        moved: Tensor = flat + off - (weight @ (self.dx + self.dstep))[:, 0]
        return moved.reshape(x.shape)

    def _weights(self, step: Tensor) -> Tensor:
        """What of each difference of steps to take from ``step`` to make it shortest."""
        norm = torch.linalg.vector_norm(self.dstep, dim=2, dtype=torch.float64)
        norm = torch.where(norm > 0, norm, 1.0)
        unit = self.dstep.double() / norm[:, :, None]
        ridge = _RIDGE * torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
        right = unit @ step.double()[:, :, None]
        weights: Tensor = torch.linalg.solve(unit @ unit.mT + ridge, right)[:, :, 0] / norm
        return weights

    def keep(self, which: Tensor) -> None:
        """Leave the other samples out."""
        self.x, self.step, self.fresh = self.x[which], self.step[which], self.fresh[which]
        self.dx, self.dstep = self.dx[which], self.dstep[which]

    def forget(self, which: Tensor) -> None:
        """Start these samples anew."""
        self.dx[which], self.dstep[which], self.fresh[which] = 0.0, 0.0, True


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm


def _like(flags: Tensor, x: Tensor) -> Tensor:
    """Flags (batch,) in as many dimensions as ``x``."""
    return flags.reshape(-1, *[1] * (x.ndim - 1))
