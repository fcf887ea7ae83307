"""The sampling loop: runs any plan.

Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3; plans contain the mathematics.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, SamplingError
from fastdpm.core.plan import Plan
from fastdpm.sampling.network import Network, NoisePredictor, check_output, network_output
from fastdpm.sampling.noise import Noise, draw
from fastdpm.sampling.state import RowCallback


@torch.no_grad()
@checked
def run(
    plan: Plan,
    network: Network | NoisePredictor,
    x: Tensor,
    *,
    noise: Noise | None = None,
    callback: RowCallback | None = None,
    past: Sequence[Tensor] = (),
    clip_state: bool = False,
) -> Tensor:
    """Run a plan: sample, or encode, with one network evaluation per row.

    Args:
        plan: The plan to run.
        network: ``network(x, t) -> eps``, with zero-based real-valued ``t`` of shape (batch,) in
            the type of ``x``; or a :class:`fastdpm.sampling.network.NoisePredictor`. It may write
            into its input and return the same tensor at every call. If the output has twice the
            channels of ``x``, its second half is a learned variance, which only plans with
            ``log_variance`` use.
        x: States at the plan's first level, shape (batch, ...), float32 or float64. They are not
            modified.
        noise: ``noise(row, x) -> z``, standard normal in the shape of ``x``, with zero-based rows.
            It is called only for rows that draw noise, while a GPU may still run the network.
        callback: Called as ``callback(row, x)`` with the states after each row.
        past: The states before ``x``, at the levels ``plan.past``, newest first.
        clip_state: Clip the states to [-1, 1] after each row, as LMNT's DiffWave does. Plans that
            encode cannot be clipped, because clipping has no inverse.

    Returns:
        States at the plan's last level, in the shape, type and device of ``x``.

    Raises:
        InvalidArgumentError: If ``x`` is not float32 or float64, the plan draws noise but
            ``noise`` is None, ``past`` does not match the plan, or ``clip_state`` is set for a
            plan that encodes.
        SamplingError: If the network's output has the wrong shape or is not finite. The message
            names the row.
    """
    _check_start(plan, x, noise, past)
    if clip_state and plan.level[0] > plan.level[-1]:
        raise InvalidArgumentError(
            "`clip_state` must not be set for a plan that encodes: clipping has no inverse"
        )
    states = deque([x, *past], maxlen=plan.a.shape[1])
    predictions: deque[Tensor] = deque(maxlen=plan.b.shape[1])
    for row in range(plan.num_rows):
        if len(predictions) == plan.b.shape[1]:
            predictions.pop()  # free the oldest before the network needs its memory
        where = f"row {row} of {plan.num_rows}"
        out = network_output(
            network, states[0], float(plan.t[row]), float(plan.network_level[row]), where
        )
        z = draw(noise, row, states[0]) if noise is not None and plan.c[row] > 0 else None
        eps, learned = check_output(out, x, where)
        del out
        # The network may overwrite its output at the next call.
        predictions.appendleft(eps if plan.b.shape[1] == 1 else eps.clone())
        del eps
        new = combine(plan, row, states, predictions)
        if z is not None:
            add_noise(new, z, plan, row, learned)
        if clip_state:
            new.clamp_(-1, 1)
        states.appendleft(new)
        del z, learned, new
        if callback is not None:
            callback(row, states[0])
    return states[0]


def _check_start(plan: Plan, x: Tensor, noise: Noise | None, past: Sequence[Tensor]) -> None:
    if x.dtype not in (torch.float32, torch.float64) or x.ndim == 0:
        raise InvalidArgumentError(
            f"the state `x` must be float32 or float64, got {x.dtype} of shape {tuple(x.shape)}:"
            " wrap the network in Autocast to evaluate it in half precision"
        )
    if not torch.isfinite(x).all():
        raise InvalidArgumentError("the state `x` must be finite, got NaN or infinity")
    if [state.shape for state in past] != [x.shape] * plan.num_past:
        raise InvalidArgumentError(
            f"this plan needs {plan.num_past} states in `past`, of shape {tuple(x.shape)}, got"
            f" shapes {[tuple(state.shape) for state in past]}"
        )
    if plan.draws_noise and noise is None:
        raise InvalidArgumentError(
            "this plan draws noise: pass noise=SampleNoise(seed, range(batch)), or use kappa=0"
        )


def combine(
    plan: Plan, row: int, states: Sequence[Tensor], predictions: Sequence[Tensor]
) -> Tensor:
    """Combine states and predictions, newest first, by the weights of a row, without noise.

    The sum is accumulated in place, so it allocates one new state.
    """
    new = states[0] * float(plan.a[row, 0])
    for column in range(1, len(states)):
        new.add_(states[column], alpha=float(plan.a[row, column]))
    for column, prediction in enumerate(predictions):
        new.add_(prediction, alpha=float(plan.b[row, column]))
    return new


def add_noise(new: Tensor, z: Tensor, plan: Plan, row: int, learned: Tensor | None) -> None:
    """Add the noise of a row in place, with the scale of the plan or the learned variance."""
    if plan.log_variance is None:
        new.add_(z, alpha=float(plan.c[row]))
        return
    if learned is None:
        raise SamplingError(
            f"row {row} of {plan.num_rows}: this plan needs learned variances, but the network"
            " returns none: use a standard sampler with fixed variance"
        )
    low, high = (float(bound) for bound in plan.log_variance[row])
    new.add_(z * torch.exp(0.25 * (low + high) + 0.25 * (high - low) * learned))
