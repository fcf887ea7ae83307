"""Wrappers that turn a network's output into a prediction of eps.

Plans are linear in eps. Networks that predict v or x0, and clipping, are handled by wrapping the
network:

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

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.sampling.network import (
    Network,
    NoisePredictor,
    call_network,
    count_evaluations,
    predict_eps,
    split_variance,
)


def _sigma(level: float) -> float:
    return math.sqrt((1 - level) * (1 + level))


class _ConvertedPrediction(NoisePredictor):
    """Convert the output of a network or noise predictor to eps."""

    @checked
    def __init__(self, network: Network | NoisePredictor) -> None:
        self.network = network

    @abstractmethod
    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """Convert a prediction to eps."""

    def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
        """See :class:`NoisePredictor`."""
        out = predict_eps(self.network, x, t, level)
        prediction, learned = split_variance(out, x)
        eps = self.to_eps(prediction, x, level)
        return eps if learned is None else torch.cat([eps, learned], dim=1)

    def evaluations(self, level: float) -> int:
        """See :class:`NoisePredictor`."""
        return count_evaluations(self.network, level)


class VPrediction(_ConvertedPrediction):
    """Make a network that predicts v predict eps = r v + sqrt(1 - r^2) x."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """Convert v to eps."""
        return level * prediction + _sigma(level) * x


class X0Prediction(_ConvertedPrediction):
    """Make a network that predicts clean data predict eps = (x - r x0) / sqrt(1 - r^2)."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """Convert x0 to eps."""
        return (x - level * prediction) / _sigma(level)


def as_eps(network: Network | NoisePredictor, prediction: str) -> Network | NoisePredictor:
    """Wrap a network that predicts ``prediction`` so that it predicts eps."""
    kinds = {"v_prediction": VPrediction, "sample": X0Prediction}
    return kinds[prediction](network) if prediction in kinds else network


class _ModifiedX0(_ConvertedPrediction):
    """Change the implied clean data, and return the eps that corresponds to it."""

    @abstractmethod
    def change(self, x0: Tensor) -> Tensor:
        """Return the changed clean data."""

    def to_eps(self, prediction: Tensor, x: Tensor, level: float) -> Tensor:
        """Convert eps to the eps of the changed clean data."""
        sigma = _sigma(level)
        return (x - level * self.change((x - sigma * prediction) / level)) / sigma


class ClipX0(_ModifiedX0):
    """Clip the implied clean data to [-bound, bound].

    Args:
        network: A network or noise predictor that predicts eps.
        bound: Largest absolute value, above 0.
    """

    @checked
    def __init__(self, network: Network | NoisePredictor, bound: float = 1.0) -> None:
        super().__init__(network)
        if not bound > 0:
            raise InvalidArgumentError(f"`bound` must be above 0, got {bound}")
        self.bound = bound

    def change(self, x0: Tensor) -> Tensor:
        """Clip the clean data."""
        return x0.clamp(-self.bound, self.bound)


class DynamicThreshold(_ModifiedX0):
    """Clip the implied clean data of each sample at a quantile of ``|x0|``, and rescale it.

    Args:
        network: A network or noise predictor that predicts eps.
        quantile: Quantile of ``|x0|`` in (0, 1]. Values are clipped at this quantile, or at 1 if
            it is smaller, and then divided by it, so that they are in [-1, 1].
        maximum: Upper limit of the clipping value, at least 1.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    @checked
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
        """Clip the clean data at the quantile, and rescale it."""
        bound = torch.quantile(x0.abs().flatten(1), self.quantile, dim=1)
        bound = bound.clamp(1.0, self.maximum).reshape(-1, *[1] * (x0.ndim - 1))
        return torch.maximum(torch.minimum(x0, bound), -bound) / bound


class Autocast:
    """Evaluate a network in bf16 or fp16; the state and the step keep their type.

    Args:
        network: Called as ``network(x, t)``, or with a condition. It must compute its step
            embedding from ``t`` before any cast, as the networks of this package do: bf16 rounds
            step 999 to 1000.
        dtype: ``torch.bfloat16`` or ``torch.float16``.
    """

    @checked
    def __init__(self, network: Callable[..., Tensor], dtype: torch.dtype) -> None:
        if dtype not in (torch.bfloat16, torch.float16):
            raise InvalidArgumentError(f"`dtype` must be bfloat16 or float16, got {dtype}")
        self.network = network
        self.dtype = dtype

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the prediction in the type of ``x``."""
        with torch.autocast(x.device.type, self.dtype):
            return call_network(self.network, x, t, condition).to(x.dtype)
