"""Evaluating a network and checking its output; all sampling code goes through this module.

A network is called as ``network(x, t)`` with steps of shape (batch,). A :class:`NoisePredictor` is
called as ``predictor(x, t, level)``, because it needs the level to convert between clean data and
eps. Each call receives its own copy of ``x``, which it may overwrite: the states of a loop never
change. If the output has twice the channels of ``x``, its second half is a learned variance.
Source: Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.1, for the learned variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from fastdpm.core.errors import SamplingError

Network = Callable[[Tensor, Tensor], Tensor]


class _OutputError(SamplingError):
    """The output of a network is not a prediction for its input."""


class NoisePredictor(ABC):
    """Base class of callables that predict eps and need the noise level of their input."""

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """Predict eps for states ``x`` (batch, ...) at steps ``t`` (batch,) and ``level``."""

    def evaluations(self, level: float) -> int:
        """Network evaluations of a prediction at this level: 1, or 2 with guidance."""
        return 1


def count_evaluations(network: Network | NoisePredictor, level: float) -> int:
    """Network evaluations of a prediction for one state at this level."""
    return network.evaluations(level) if isinstance(network, NoisePredictor) else 1


def evaluate_network(
    network: Network | NoisePredictor,
    x: Tensor,
    t: float,
    level: float,
    where: str,
    *,
    finite: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Predict eps, and the learned variance if there is one.

    Args:
        network: A network or noise predictor that predicts eps.
        x: States, shape (batch, ...), float32 or float64.
        t: Zero-based step of the states.
        level: Level of the states.
        where: Start of an error message, such as "row 3 of 10".
        finite: Check that the prediction is finite, which waits for a GPU.

    Returns:
        Both in the shape and type of ``x``.

    Raises:
        SamplingError: If the output is not a tensor, has the wrong shape, or is not finite.
    """
    return check_output(network_output(network, x, t, level, where), x, where, finite=finite)


def network_output(
    network: Network | NoisePredictor, x: Tensor, t: float, level: float, where: str
) -> Tensor:
    """Evaluate a network without splitting its output; arguments as in :func:`evaluate_network`.

    A GPU may still be computing the output when this function returns.
    """
    try:
        return predict_eps(network, x, steps_like(x, t), level)
    except _OutputError as error:
        raise SamplingError(f"{where}: {error}") from None


def check_output(
    out: Tensor, x: Tensor, where: str, *, finite: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Split the output for ``x`` and check that it is finite; see :func:`evaluate_network`."""
    eps, learned = split_variance(out, x)
    if finite and not torch.isfinite(eps).all():
        raise SamplingError(
            f"{where}: the network returned values that are not finite (NaN or infinity): check"
            " its weights and precision"
        )
    return eps, learned


def steps_like(x: Tensor, t: float) -> Tensor:
    """Repeat the step ``t`` for every state, shape (batch,), in the type and device of ``x``."""
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)


def predict_eps(network: Network | NoisePredictor, x: Tensor, t: Tensor, level: float) -> Tensor:
    """Call a network or noise predictor; return its output for ``x`` in the type of ``x``.

    The output may be a buffer that the network overwrites at its next call: whoever keeps it until
    then makes a copy.

    Raises:
        SamplingError: If the output is not a tensor, or its shape, type or device is wrong.
    """
    own = x.clone()
    if isinstance(network, NoisePredictor):
        return cast_output(_tensor(network(own, t, level)), x)
    return cast_output(call_network(network, own, t), x)


def cast_output(out: Tensor, x: Tensor) -> Tensor:
    """Check a network's output for ``x``, and cast it to the type of ``x``.

    Raises:
        SamplingError: If it has neither the shape of ``x`` nor twice its channels, is on another
            device, or its numbers are not real floating-point numbers.
    """
    if split_variance(out, x)[0].shape != x.shape:
        raise _OutputError(
            f"the network returned shape {tuple(out.shape)} for a state of shape {tuple(x.shape)}"
        )
    if not out.is_floating_point():
        raise _OutputError(
            f"the network returned {out.dtype} for a state of {x.dtype}: return floating-point"
            " numbers"
        )
    if out.device != x.device:
        raise _OutputError(
            f"the network returned a tensor on {out.device} for a state on {x.device}: put both"
            " on one device"
        )
    return out.to(x.dtype)


def call_network(
    network: Callable[..., Tensor], x: Tensor, t: Tensor, condition: Tensor | None = None
) -> Tensor:
    """Call a network, with a copy of its condition if there is one.

    Raises:
        SamplingError: If it does not return a tensor.
    """
    return _tensor(network(x, t) if condition is None else network(x, t, condition.clone()))


def _tensor(out: object) -> Tensor:
    if not isinstance(out, Tensor):
        raise _OutputError(
            f"the network returned a {type(out).__name__}, not a tensor: wrap it so that it"
            " returns only its prediction"
        )
    return out


def split_variance(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split an output into the prediction for ``x`` and the learned variance, None if absent."""
    if out.ndim > 1 and out.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        prediction, variance = out.chunk(2, dim=1)
        return prediction, variance
    return out, None
