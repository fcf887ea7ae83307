"""Asking a network: the one place where what it returns is checked.

A network is called as ``network(x, t)`` with steps of shape (batch,); a :class:`NoisePredictor` as
``denoiser(x, t, level)``, because it needs the level to pass between clean data and eps. Of twice
the channels, the second half is a learned variance.
Source: Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.1, for the learned variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from fastdpm.core.errors import SamplingError

Network = Callable[[Tensor, Tensor], Tensor]


class _UnusableError(SamplingError):
    """A network returned something that is no prediction for its input."""


class NoisePredictor(ABC):
    """A prediction of eps that needs to know the level of its input."""

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """Predict eps for states ``x`` (batch, ...) at steps ``t`` (batch,) and ``level``."""


def ask(
    network: Network | NoisePredictor,
    x: Tensor,
    t: float,
    level: float,
    where: str,
    *,
    finite: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The eps that a network or denoiser predicts, and the learned variance if there is one.

    Args:
        network: What to ask.
        x: States, shape (batch, ...), float32 or float64.
        t: Their zero-based step.
        level: Their level.
        where: What an error names, such as "row 3 of 10".
        finite: Refuse values that are not finite; checking waits for a GPU.

    Returns:
        Both shaped like ``x``, in its type.

    Raises:
        SamplingError: If the answer is no tensor, of another shape, or not finite.
    """
    return checked(answer(network, x, t, level, where), x, where, finite=finite)


def answer(
    network: Network | NoisePredictor, x: Tensor, t: float, level: float, where: str
) -> Tensor:
    """What a network returns for ``x``, still to be split; arguments as in :func:`ask`."""
    try:
        return predict_eps(network, x, steps_like(x, t), level)
    except _UnusableError as error:
        raise SamplingError(f"{where}: {error}") from None


def checked(
    out: Tensor, x: Tensor, where: str, *, finite: bool = True
) -> tuple[Tensor, Tensor | None]:
    """What a network returned for ``x``, split and checked to be finite; see :func:`ask`."""
    eps, learned = split_variance(out, x)
    if finite and not torch.isfinite(eps).all():
        raise SamplingError(
            f"{where}: the network returned values that are not finite (NaN or infinity): check"
            " its weights and precision"
        )
    return eps, learned


def steps_like(x: Tensor, t: float) -> Tensor:
    """The step ``t`` for every state, shape (batch,), in the type and on the device of ``x``."""
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)


def predict_eps(network: Network | NoisePredictor, x: Tensor, t: Tensor, level: float) -> Tensor:
    """What a network or a denoiser returns for ``x``, in its type.

    Raises:
        SamplingError: If it is no tensor shaped like ``x``, or of twice the channels, or ``x`` was
            changed.
    """
    before = _version(x)
    denoises = isinstance(network, NoisePredictor)
    out = network(x, t, level) if denoises else call_network(network, x, t)  # type: ignore[call-arg]
    if _version(x) != before:
        raise _UnusableError(
            "the network changes its input in place: make it work on a copy, x.clone()"
        )
    return fitting(out, x)


def _version(x: Tensor) -> int:
    """How often a tensor was changed in place; in inference mode, nothing keeps count."""
    return 0 if x.is_inference() else x._version


def fitting(out: Tensor, x: Tensor) -> Tensor:
    """What a network returned for ``x``, in its type.

    Raises:
        SamplingError: If it is not shaped like ``x``, or of twice the channels.
    """
    if split_variance(out, x)[0].shape != x.shape:
        raise _UnusableError(
            f"the network returned shape {tuple(out.shape)} for a state of shape {tuple(x.shape)}"
        )
    return out.to(x.dtype)


def call_network(
    network: Callable[..., Tensor], x: Tensor, t: Tensor, condition: Tensor | None = None
) -> Tensor:
    """Call a network, with its condition if there is one.

    Raises:
        SamplingError: If it returns no tensor.
    """
    out = network(x, t) if condition is None else network(x, t, condition)
    if not isinstance(out, Tensor):
        raise _UnusableError(
            f"the network returned a {type(out).__name__}, not a tensor: wrap it in one that"
            " returns its prediction alone"
        )
    return out


def split_variance(out: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prediction for ``x``, and the learned variance if the network returned one behind it."""
    if out.ndim > 1 and out.shape == (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        prediction, variance = out.chunk(2, dim=1)
        return prediction, variance
    return out, None
