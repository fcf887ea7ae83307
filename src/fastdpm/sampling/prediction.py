"""Noise predictors: wrappers that turn a network's output into a consistent prediction of eps.

A plan is linear in eps. Clipping and guidance are not, and some networks predict v or x0 instead;
these are handled by wrapping the network:

    x = r x0 + sqrt(1 - r^2) eps,    v = r eps - sqrt(1 - r^2) x0.

A learned variance in the second half of the channels is passed through unchanged.
Source: Ho et al. 2020, arXiv:2006.11239; Salimans & Ho 2022, arXiv:2202.00512, for v.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.sampling.ask import (
    Network,
    NoisePredictor,
    call_network,
    fitting,
    predict_eps,
    split_variance,
)


def _sigma(level: float) -> float:
    return math.sqrt((1 - level) * (1 + level))


class _Converts(NoisePredictor):
    """Turn what a network or noise predictor returns into eps."""

    def __init__(self, network: Network | NoisePredictor) -> None:
        self.network = network

    @abstractmethod
    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """The eps of a prediction."""

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """See :class:`NoisePredictor`."""
        out = predict_eps(self.network, x, t, level)
        prediction, learned = split_variance(out, x)
        eps = self.to_eps(prediction, x, level)
        return eps if learned is None else torch.cat([eps, learned], dim=1)


class VPrediction(_Converts):
    """Wrap a network that predicts v: eps = r v + sqrt(1 - r^2) x."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """The eps of v."""
        return level * prediction + _sigma(level) * x


class X0Prediction(_Converts):
    """Wrap a network that predicts clean data: eps = (x - r x0) / sqrt(1 - r^2)."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """The eps of x0."""
        return (x - level * prediction) / _sigma(level)


def as_eps(network: Network, prediction: str) -> Network | NoisePredictor:
    """Make a network that predicts eps from one that predicts ``prediction``."""
    kinds = {"v_prediction": VPrediction, "sample": X0Prediction}
    return kinds[prediction](network) if prediction in kinds else network


class _ChangesX0(_Converts):
    """Change the implied clean data and return the eps that matches it."""

    @abstractmethod
    def change(self, x0: Tensor) -> Tensor:
        """The changed clean data."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """The eps of the changed clean data."""
        sigma = _sigma(level)
        return (x - level * self.change((x - sigma * prediction) / level)) / sigma


class ClipX0(_ChangesX0):
    """Clip the implied clean data to [-bound, bound]."""

    def __init__(self, network: Network | NoisePredictor, bound: float = 1.0) -> None:
        super().__init__(network)
        if not bound > 0:
            raise InvalidArgumentError(f"`bound` must be above 0, got {bound}")
        self.bound = bound

    def change(self, x0: Tensor) -> Tensor:
        """Clip."""
        return x0.clamp(-self.bound, self.bound)


class DynamicThreshold(_ChangesX0):
    """Clip the implied clean data of each sample at a quantile of ``|x0|`` and rescale it.

    Args:
        network: A network or noise predictor that predicts eps.
        quantile: In (0, 1]. Values are clipped at this quantile of ``|x0|``, but at 1 or above;
            then they are divided by it, so they lie in [-1, 1].
        maximum: Upper bound of the clipping value, at least 1.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    def __init__(
        self, network: Network | NoisePredictor, quantile: float = 0.995, maximum: float = math.inf
    ) -> None:
        super().__init__(network)
        if not 0 < quantile <= 1:
            raise InvalidArgumentError(f"`quantile` must be in (0, 1], got {quantile}")
        if not maximum >= 1:
            raise InvalidArgumentError(f"`maximum` must be at least 1, got {maximum}")
        self.quantile = quantile
        self.maximum = maximum

    def change(self, x0: Tensor) -> Tensor:
        """Clip at the quantile and rescale."""
        bound = torch.quantile(x0.abs().flatten(1), self.quantile, dim=1)
        bound = bound.clamp(1.0, self.maximum).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.maximum(torch.minimum(x0, bound), -bound) / bound


class Guidance:
    """Classifier-free guidance: eps_u + scale (eps_c - eps_u), in one network call.

    It works on eps, v and x0 predictions alike, because all are linear in eps for a fixed state.
    Apply it to the network first and the other wrappers to the result. A learned variance is taken
    from the conditional half.

    Args:
        network: Called as ``network(x, t, condition)`` on twice the batch.
        condition: Condition of each sample, shape (batch, ...).
        unconditional: The null condition, of the same shape.
        guidance_scale: 0 samples without the condition, 1 without guidance; larger is stronger.

    Raises:
        InvalidArgumentError: If the two conditions differ in shape.

    Source: Ho & Salimans 2022, arXiv:2207.12598, eq. 6 with scale = 1 + w.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Tensor], Tensor],
        condition: Tensor,
        unconditional: Tensor,
        guidance_scale: float,
    ) -> None:
        if condition.shape != unconditional.shape:
            raise InvalidArgumentError(
                "`condition` and `unconditional` must have the same shape, got"
                f" {tuple(condition.shape)} and {tuple(unconditional.shape)}"
            )
        self.network = network
        self.conditions = torch.cat([unconditional, condition])
        self.guidance_scale = guidance_scale

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The guided prediction, shaped like ``x``."""
        twice, steps = torch.cat([x, x]), torch.cat([t, t])
        both = fitting(call_network(self.network, twice, steps, self.conditions), twice)
        (empty, _), (wanted, learned) = (split_variance(half, x) for half in both.chunk(2))
        guided = torch.lerp(empty, wanted, self.guidance_scale)
        return guided if learned is None else torch.cat([guided, learned], dim=1)


class Autocast:
    """Evaluate a network in bf16 or fp16. The state and the step keep their type.

    Args:
        network: Called as ``network(x, t)``. It must compute its step embedding from ``t`` before
            any cast, as the networks of this package do: in bf16, step 999 becomes 1000.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """

    def __init__(self, network: Network, dtype: torch.dtype) -> None:
        if dtype not in (torch.bfloat16, torch.float16):
            raise InvalidArgumentError(f"`dtype` must be bfloat16 or float16, got {dtype}")
        self.network = network
        self.dtype = dtype

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The prediction in the type of ``x``."""
        with torch.autocast(x.device.type, self.dtype):
            return call_network(self.network, x, t).to(x.dtype)
