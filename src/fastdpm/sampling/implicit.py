"""Numerical inversion of a plan: for each row, solve for the state that it maps to a known one.

A first-order row without noise maps x to x' = a x + b eps(x, t). Encoding solves this equation for
x, which is the fixed point of

    g(x) = (x' - b eps(x, t)) / a.

The solver is Anderson acceleration. With the residual f(x) = g(x) - x, and dX and dF the last m
differences of iterates and of their residuals, one iteration is

    x <- x + f(x) - (dX + dF) gamma,    gamma = argmin |f(x) - dF gamma|.

For most rows g is a contraction, and the solver converges in a few evaluations from the eps of the
previous row. For the last row of a trained network it may not be one: in some directions the
implied clean data barely changes with x, and in others it changes in the opposite direction. If
the residual stops decreasing, the solver restarts from other noise. The last row may also have no
inverse at all: for silent audio, a network returns almost the same output for every x.
Source: Walker & Ni 2011, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal.
49(4), in its unconstrained form without damping.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fastdpm.core.arguments import checked_class
from fastdpm.core.deprecation import renamed
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.plan import Plan
from fastdpm.sampling.loop import combine
from fastdpm.sampling.network import (
    Network,
    NoisePredictor,
    count_evaluations,
    evaluate_network,
)
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import RowCallback

Select = Callable[[Tensor], Network | NoisePredictor]

# Decoding can amplify the residual of a noisy row 500 times. A row that meets the tolerance is
# therefore iterated further, down to the rounding of float32, while its residual keeps halving.
_ROUNDING = 1e-7
# Evaluations without halving the residual, after which a row within the tolerance is done, and any
# other row restarts.
_STALLED_DONE = 2
_STALLED_RESTART = 20
# An iterate is rejected if its norm exceeds that of any plausible solution by this factor.
_MAX_NORM_RATIO = 100.0
# Tikhonov regularization of the least-squares problem, for normalized differences.
_RIDGE = 1e-10
# Residuals are relative to the state, or to a constant of this value if the state is smaller.
_MIN_MAGNITUDE = 1e-3


@renamed("most", "max_evaluations")
@checked_class
@dataclass(frozen=True)
class ImplicitOptions:
    """Options of the solver for implicit encoding.

    Attributes:
        tolerance: Largest relative residual of a converged row, in (0, 1).
        max_evaluations: Maximum number of network evaluations per row and sample, at least 1.
        memory: Number of past differences that Anderson acceleration combines, at least 1; 3 to 5
            suit most networks.
        keep_best: If a row does not converge, continue from its best iterate.

    Raises:
        InvalidArgumentError: If a value is out of range.
    """

    tolerance: float = 2e-5
    max_evaluations: int = 1000
    memory: int = 5
    keep_best: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.tolerance < 1:
            raise InvalidArgumentError(f"`tolerance` must be in (0, 1), got {self.tolerance:g}")
        if self.max_evaluations < 1 or self.memory < 1:
            raise InvalidArgumentError(
                "`max_evaluations` and `memory` must be at least 1, got"
                f" {self.max_evaluations} and {self.memory}"
            )

    def describe(self) -> str:
        """List the options that differ from their defaults."""
        changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return " and ".join(f"`{name}`" for name in changed or ["solver"])


@dataclass(frozen=True)
class Inversion:
    """Result of :func:`invert`.

    Attributes:
        x: Latents, in the shape of the data; NaN for samples that did not converge, unless
            ``keep_best`` is set.
        evaluations: Number of network evaluations of each sample, shape (batch,).
        residual: Relative residual of each sample, shape (batch,): that of the row ``row``, or the
            largest of all rows if every row converged. It is the distance from the decoded state
            to the known state, divided by the norm of the known state, or by the norm of a
            constant 1e-3 if that is larger.
        row: First row that did not converge, counting from the clean end; -1 if all rows
            converged. A row index of the plan for each sample, shape (batch,).
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
    """Solve for the latents that ``plan`` decodes to ``x``, row by row from the clean end.

    Each row is iterated until its residual reaches the tolerance, and then down to rounding while
    the residual keeps halving. The residual is computed with the arithmetic of decoding. A
    converged sample is not evaluated again in the same row. Up to the tolerance, what a sample
    decodes to does not depend on the rest of the batch; its latent may, in directions that barely
    affect decoding.

    Args:
        plan: A first-order plan without noise, such as :func:`fastdpm.ddim_rev` with kappa = 0.
        select: ``select(indices)`` returns the network for these samples of the batch, shape (n,).
        x: Data at the plan's last level, shape (batch, ...), float32 or float64. It is not
            modified.
        options: Options of the solver.
        callback: Called as ``callback(row, x)`` after each row; the plan's last row comes first.

    Raises:
        InvalidArgumentError: If the plan is of another kind, or the data is not finite.
        SamplingError: If the network's output has the wrong shape, or is not finite at the first
            iterate of a row. The message names the row.
    """
    _check(plan, x)
    tolerance, keep_best = options.tolerance, options.keep_best
    size, device = len(x), x.device
    state, eps = x.clone(), torch.zeros_like(x)
    evaluations = torch.zeros(size, dtype=torch.int64, device=device)
    residual = torch.zeros(size, dtype=x.dtype, device=device)
    failed_row = torch.full((size,), -1, dtype=torch.int64, device=device)
    for row in reversed(range(plan.num_rows)):
        active = torch.nonzero((failed_row < 0) | keep_best).flatten()
        if not len(active):
            break
        equation = _Equation(plan, row, select, active, state[active])
        solver = _Solver(equation, eps[active], options.memory)
        solver.run(tolerance, options.max_evaluations)
        state[active], eps[active] = solver.best, solver.best_eps
        evaluations[active] += solver.evaluations
        largest = torch.maximum(residual[active], solver.residual)
        residual[active] = torch.where(failed_row[active] < 0, largest, residual[active])
        failed = active[solver.residual > tolerance]
        failed_row[failed] = torch.where(failed_row[failed] < 0, row, failed_row[failed])
        if not keep_best:
            state[failed] = torch.nan
        if callback is not None:
            callback(row, state)
    return Inversion(state, evaluations, residual, failed_row)


def _check(plan: Plan, x: Tensor) -> None:
    if plan.a.shape[1] > 1 or plan.b.shape[1] > 1 or plan.draws_noise:
        raise InvalidArgumentError(
            f"only first-order plans without noise can be inverted, got {plan.label}: use ddim_rev"
            " with kappa=0"
        )
    if x.dtype not in (torch.float32, torch.float64) or not torch.isfinite(x).all():
        raise InvalidArgumentError(
            f"`x` to invert must be float32 or float64 and finite, got {x.dtype}"
        )


class _Equation:
    """The equation of a row, a x + b eps(x, t) = target, for some samples of a batch."""

    def __init__(
        self, plan: Plan, row: int, select: Select, indices: Tensor, target: Tensor
    ) -> None:
        self.plan = plan
        self.a, self.b = float(plan.a[row, 0]), float(plan.b[row, 0])
        self.t, self.level = float(plan.t[row]), float(plan.level[row])
        self.name, self.row = f"row {row} of {plan.num_rows}", row
        self.select, self.indices, self.target = select, indices, target
        self.network = select(indices)
        self.cost = count_evaluations(self.network, self.level)

    def keep(self, mask: Tensor) -> None:
        """Drop all samples that ``mask`` does not select."""
        self.indices, self.target = self.indices[mask], self.target[mask]
        self.network = self.select(self.indices)

    def solve_linear(self, eps: Tensor) -> Tensor:
        """Solve for x with a fixed eps: the value of g."""
        return (self.target - self.b * eps) / self.a

    def eps(self, x: Tensor, *, finite: bool) -> Tensor:
        """Evaluate the network; ``finite`` checks its output, which diverged iterates may fail."""
        return evaluate_network(self.network, x, self.t, self.level, self.name, finite=finite)[0]

    def residual(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Compute f(x) = g(x) - x, and the relative residual of the equation.

        The relative residual is infinite if it is not finite, or if x is so large that its
        rounding error could pass for a solution.
        """
        error = self.target - combine(self.plan, self.row, [x], [eps])
        target_norm, root_size = _norm(self.target), math.sqrt(x[0].numel())
        relative = _norm(error) / target_norm.clamp_min(_MIN_MAGNITUDE * root_size)
        noise_norm = abs(self.b) * root_size
        in_range = _norm(x) <= _MAX_NORM_RATIO * (target_norm + noise_norm) / abs(self.a)
        return error / self.a, torch.where(
            torch.isfinite(relative) & in_range, relative, torch.inf
        )


class _Solver:
    """Solves the equation of one row for a batch, and keeps the best iterate of each sample."""

    def __init__(self, equation: _Equation, eps: Tensor, memory: int) -> None:
        size, device = len(eps), eps.device
        self.equation = equation
        self.best, self.best_eps = equation.solve_linear(eps), eps
        self.residual = torch.full((size,), torch.inf, dtype=eps.dtype, device=device)
        self.evaluations = torch.zeros(size, dtype=torch.int64, device=device)
        self.active = torch.arange(size, device=device)
        self.anderson = _Anderson(self.best, memory)
        # For each active sample: the number of restarts, the number of evaluations since the
        # residual last halved, and the residual at that time.
        self.restarts = torch.zeros_like(self.active)
        self.stalled = torch.zeros_like(self.active)
        self.reference = torch.full_like(self.residual, torch.inf)

    def run(self, tolerance: float, max_evaluations: int) -> None:
        """Iterate until every sample has converged or used its evaluations."""
        x = self.best.clone()
        for count in range(max(1, max_evaluations // self.equation.cost)):
            eps = self.equation.eps(x, finite=count == 0)
            f, residual = self.equation.residual(x, eps)
            self._record(x, eps, residual)
            unfinished = residual > min(tolerance, _ROUNDING)
            above_tolerance = self.residual[self.active] > tolerance
            unfinished &= above_tolerance | (self.stalled < _STALLED_DONE)
            if not unfinished.any():
                return
            if not unfinished.all():
                self._keep(unfinished)
                x, f, residual = x[unfinished], f[unfinished], residual[unfinished]
            x = self._next(x, f, residual)

    def _record(self, x: Tensor, eps: Tensor, residual: Tensor) -> None:
        self.evaluations[self.active] += self.equation.cost
        better = residual < self.residual[self.active]
        improved = self.active[better]
        self.best[improved], self.best_eps[improved] = x[better], eps[better]
        self.residual[improved] = residual[better]
        halved = residual < 0.5 * self.reference
        self.reference = torch.where(halved, residual, self.reference)
        self.stalled = torch.where(halved, 0, self.stalled + 1)

    def _keep(self, mask: Tensor) -> None:
        self.equation.keep(mask)
        self.anderson.keep(mask)
        self.active, self.restarts = self.active[mask], self.restarts[mask]
        self.stalled, self.reference = self.stalled[mask], self.reference[mask]

    def _next(self, x: Tensor, f: Tensor, residual: Tensor) -> Tensor:
        """Compute the next iterates; restart samples whose residual no longer decreases."""
        invalid = ~torch.isfinite(residual)
        x = self.anderson.next(x, torch.where(_expand(invalid, f), 0.0, f))
        restart = invalid | (self.stalled >= _STALLED_RESTART)
        if restart.any():
            self.restarts[restart] += 1
            self.stalled[restart], self.reference[restart] = 0, torch.inf
            self.anderson.reset(restart)
            noise = SampleNoise(0, self.restarts[restart].tolist())
            eps = torch.zeros_like(x)
            eps[restart] = noise(self.equation.row, x[restart])
            x = torch.where(_expand(restart, x), self.equation.solve_linear(eps), x)
        return x


class _Anderson:
    """Anderson acceleration for a batch: the last iterate, its f, and past differences of both.

    Differences are zero until there are enough iterates.
    """

    def __init__(self, like: Tensor, memory: int) -> None:
        flat = like.flatten(1)
        self.x, self.f = torch.zeros_like(flat), torch.zeros_like(flat)
        self.dx = flat.new_zeros(len(flat), memory, flat.shape[1])
        self.df = torch.zeros_like(self.dx)
        self.is_first = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        self.count = 0

    def next(self, x: Tensor, f: Tensor) -> Tensor:
        """Compute the iterates after ``x``, where ``f`` is g(x) - x."""
        flat_x, flat_f = x.flatten(1), f.flatten(1)
        slot = self.count % self.dx.shape[1]
        has_previous = ~self.is_first[:, None]
        self.dx[:, slot] = torch.where(has_previous, flat_x - self.x, 0.0)
        self.df[:, slot] = torch.where(has_previous, flat_f - self.f, 0.0)
        self.x, self.f, self.count = flat_x, flat_f, self.count + 1
        self.is_first = torch.zeros_like(self.is_first)
        gamma = self._gamma(flat_f)[:, None].to(flat_x.dtype)
        x_next: Tensor = flat_x + flat_f - (gamma @ (self.dx + self.df))[:, 0]
        return x_next.reshape(x.shape)

    def _gamma(self, f: Tensor) -> Tensor:
        """Solve the least-squares problem for gamma by normal equations in float64."""
        norm = torch.linalg.vector_norm(self.df, dim=2, dtype=torch.float64)
        norm = torch.where(norm > 0, norm, 1.0)
        unit = self.df.double() / norm[:, :, None]
        ridge = _RIDGE * torch.eye(unit.shape[1], dtype=unit.dtype, device=unit.device)
        right = unit @ f.double()[:, :, None]
        gamma: Tensor = torch.linalg.solve(unit @ unit.mT + ridge, right)[:, :, 0] / norm
        return gamma

    def keep(self, mask: Tensor) -> None:
        """Drop all samples that ``mask`` does not select."""
        self.x, self.f, self.is_first = self.x[mask], self.f[mask], self.is_first[mask]
        self.dx, self.df = self.dx[mask], self.df[mask]

    def reset(self, mask: Tensor) -> None:
        """Forget the past of the samples that ``mask`` selects."""
        self.dx[mask], self.df[mask], self.is_first[mask] = 0.0, 0.0, True


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norm


def _expand(mask: Tensor, x: Tensor) -> Tensor:
    """Reshape a mask (batch,) to broadcast to the shape of ``x``."""
    return mask.reshape(-1, *[1] * (x.ndim - 1))
