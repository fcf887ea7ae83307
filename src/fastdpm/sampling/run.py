"""Running a plan: the only loop that samples.

Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3; the plan holds the mathematics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, SamplingError
from fastdpm.core.plan import Plan
from fastdpm.sampling.ask import Network, NoisePredictor, answer, checked
from fastdpm.sampling.state import RowCallback

Noise = Callable[[int, Tensor], Tensor]


@torch.no_grad()
def run(
    plan: Plan,
    network: Network | NoisePredictor,
    x: Tensor,
    *,
    noise: Noise | None = None,
    callback: RowCallback | None = None,
    past: Sequence[Tensor] = (),
) -> Tensor:
    """Sample by ``plan``, one network evaluation a row.

    Args:
        plan: The sampler.
        network: ``network(x, t) -> eps`` with ``t`` zero-based, real-valued, shape (batch,), in
            the type of ``x``; or a denoiser. It must return a new tensor each time: a plan may
            still need the last ones. Of twice the channels, the second half is a learned
            variance, which only a plan with ``log_variance`` uses.
        x: States at the plan's first level, shape (batch, ...), float32 or float64; not changed.
        noise: ``noise(row, x) -> z``, standard normal and shaped like ``x``, row 0 first; asked
            only for rows that draw noise, and while a GPU still works on the network.
        callback: Called as ``callback(row, x)`` with the state after each row.
        past: The states before ``x`` at the levels of ``plan.past``, newest first.

    Returns:
        States at the plan's last level, in the shape, type and device of ``x``.

    Raises:
        InvalidArgumentError: If ``x`` is not float32 or float64, the plan draws noise and none is
            given, or it needs other earlier states than are given.
        SamplingError: If the network returns the wrong shape or values that are not finite; the
            row is named.
    """
    _check_start(plan, x, noise, past)
    states = deque([x, *past], maxlen=plan.a.shape[1])
    predictions: deque[Tensor] = deque(maxlen=plan.b.shape[1])
    for row in range(plan.num_rows):
        if len(predictions) == plan.b.shape[1]:
            predictions.pop()  # free the oldest before the network needs its memory
        where = f"row {row} of {plan.num_rows}"
        out = answer(network, states[0], float(plan.t[row]), float(plan.network_level[row]), where)
        z = noise(row, states[0]) if noise is not None and plan.c[row] > 0 else None
        eps, learned = checked(out, x, where)
        del out
        predictions.appendleft(eps)
        del eps
        new = combine(plan, row, states, predictions)
        if z is not None:
            add_noise(new, z, plan, row, learned)
        states.appendleft(new)
        del z, learned, new
        if callback is not None:
            callback(row, states[0])
    return states[0]


def _check_start(plan: Plan, x: Tensor, noise: Noise | None, past: Sequence[Tensor]) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        raise InvalidArgumentError(
            f"the state must be float32 or float64, got {x.dtype}: wrap the network in Autocast"
            " to evaluate it in half precision"
        )
    if [state.shape for state in past] != [x.shape] * plan.num_past:
        raise InvalidArgumentError(
            f"this plan needs {plan.num_past} states before the first, shaped like it, got"
            f" {[tuple(state.shape) for state in past]} beside {tuple(x.shape)}"
        )
    if plan.draws_noise and noise is None:
        raise InvalidArgumentError(
            "this plan draws noise: pass noise=SampleNoise(seed, range(batch)), or use kappa=0"
        )


def combine(
    plan: Plan, row: int, states: Sequence[Tensor], predictions: Sequence[Tensor]
) -> Tensor:
    """One row but for its noise, of what it needs of the past, newest first.

    Accumulated in place, so that it costs one new state.
    """
    new = states[0] * float(plan.a[row, 0])
    for column in range(1, len(states)):
        new.add_(states[column], alpha=float(plan.a[row, column]))
    for column, prediction in enumerate(predictions):
        new.add_(prediction, alpha=float(plan.b[row, column]))
    return new


def add_noise(new: Tensor, z: Tensor, plan: Plan, row: int, learned: Tensor | None) -> None:
    """Add the row's noise in place, at the plan's scale or at the one that the network learned."""
    if z.shape != new.shape:
        raise InvalidArgumentError(
            f"row {row}: noise has shape {tuple(z.shape)}, the state {tuple(new.shape)}"
        )
    if plan.log_variance is None:
        new.add_(z, alpha=float(plan.c[row]))
        return
    if learned is None:
        raise SamplingError(
            f"row {row} of {plan.num_rows}: this plan takes its variances from the network, which"
            " learned none: use the standard sampler of fixed variance"
        )
    low, high = (float(bound) for bound in plan.log_variance[row])
    new.add_(z * torch.exp(0.25 * (low + high) + 0.25 * (high - low) * learned))
