"""Features of samples from the network's own activations, for the moments of a set of samples.

Slightly noised samples are shown to the network. The outputs of the blocks in its middle, which
know best what a sample shows, are reduced to the mean and standard deviation of each channel. Of a
network without such blocks, its predictions at two levels are the features. No metric that judges
the result is used.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdpm.core.errors import SamplingError
from fastdpm.core.schedule import Array
from fastdpm.sampling.noise import SampleNoise
from fastdpm.tuning.predictor import DataPredictor

_NOISE, _MORE_NOISE = 0.05, 1.0  # noise scales of the samples that the network is shown
_LIMIT = 128
_SEED = 2**63 + 1


class Features:
    """The features of all samples of a predictor, shape (n, K).

    Args:
        predict: The network.
        samples: The samples that fix the scale and the principal components: the teacher's.
        limit: Components K that are kept, at most.

    Attributes:
        own: The features of these samples.
    """

    def __init__(self, predict: DataPredictor, samples: Tensor, limit: int = _LIMIT) -> None:
        self.predict = predict
        self._noise = SampleNoise(_SEED, range(len(samples))).start(tuple(samples.shape[1:]))
        seen = self._seen(samples)
        outside = -(-len(seen) // 3) if len(seen) > 2 else 0
        self._names = list(seen)[outside : len(seen) - outside]
        raw = [seen[name] for name in self._names]
        self._sizes = [part.var(0).sum().sqrt().clamp_min(1e-12) for part in raw]
        joined = self._joined(raw)
        self._mean = joined.mean(0)
        count = min(limit, len(samples) // 4, joined.shape[1])
        _, _, basis = torch.linalg.svd(joined - self._mean, full_matrices=False)
        self._basis = basis[: max(count, 1)].T
        self.own: Tensor = (joined - self._mean) @ self._basis

    def of(self, predict: DataPredictor) -> Features:
        """The same features of fewer samples, the first ones."""
        found = copy.copy(self)
        found.predict, found._noise = predict, self._noise[: len(predict)]
        return found

    def __call__(self, samples: Tensor) -> Tensor:
        """Features of samples, float64.

        Raises:
            SamplingError: If an activation is not finite.
        """
        seen = self._seen(samples)
        if not all(name in seen for name in self._names):
            raise SamplingError("the network's activations are not finite")
        raw = [seen[name] for name in self._names]
        found: Tensor = (self._joined(raw) - self._mean) @ self._basis
        return found

    def _joined(self, raw: list[Tensor]) -> Tensor:
        parts = zip(raw, self._sizes, strict=True)
        return torch.cat([part / size for part, size in parts], dim=1)

    def _seen(self, samples: Tensor) -> dict[str, Tensor]:
        """The pooled outputs of blocks by name, or else the predictions, float64; finite ones."""
        with _watched(self.predict.model.network) as seen:
            prediction = self._predicted(samples, _NOISE)
        found = {name: torch.cat(calls).double() for name, calls in seen.items() if _alike(calls)}
        found = {name: part for name, part in found.items() if len(part) == len(samples)}
        if not found:
            more = self._predicted(samples, _MORE_NOISE)
            found = {"low": prediction.flatten(1).double(), "high": more.flatten(1).double()}
        return {name: part for name, part in found.items() if part.isfinite().all()}

    def _predicted(self, samples: Tensor, scale: float) -> Tensor:
        """The prediction of clean data for samples with noise of this scale."""
        level = 1 / (1 + scale**2) ** 0.5
        return self.predict(level * (samples + scale * self._noise), level)


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """Collect the pooled outputs of all blocks while the network is evaluated."""
    seen: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in network.named_modules():
        if not name or not any(True for _ in module.children()):
            continue

        def keep(module: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            found = _pooled(output)
            if found is not None:
                seen.setdefault(name, []).append(found)

        hooks.append(module.register_forward_hook(keep))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _pooled(output: Any) -> Tensor | None:
    """Mean and standard deviation of each channel, shape (n, 2 C); None for other outputs."""
    while isinstance(output, list | tuple) and output:
        output = output[-1]
    if not isinstance(output, Tensor) or output.ndim < 3:
        return None
    flat = output.detach().float().flatten(2)
    return torch.cat([flat.mean(2), flat.std(2, correction=0)], dim=1).cpu()


def _alike(calls: list[Tensor]) -> bool:
    """Whether the calls of a block, one for each batch, have the same channels."""
    return len({call.shape[1] for call in calls}) == 1


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of features, in the basis where the teacher's covariance is diagonal.

    The squared length of :meth:`residual` is, to second order, the Fréchet distance between the
    Gaussians of both sets of features, by the total variance of the teacher's.
    """

    mean: Array
    covariance: Array
    variance: Array
    total: float

    @classmethod
    def of(cls, features: Tensor, floor: float = 1e-3) -> Moments:
        """The moments of the teacher's features, which are principal components."""
        mean, covariance = _moments(features)
        total = float(np.trace(covariance))
        variance = np.diag(covariance) + floor * total / len(covariance)
        return cls(mean, covariance, variance, total)

    def residual(self, features: Tensor) -> Array:
        """What has to be small."""
        mean, covariance = _moments(features)
        sums = self.variance[:, None] + self.variance[None, :]
        shape = (covariance - self.covariance) / np.sqrt(2 * sums)
        twice = np.triu(shape, 1) * 2**0.5 + np.diag(np.diag(shape))
        found = np.concatenate([mean - self.mean, twice[np.triu_indices(len(mean))]])
        return np.asarray(found / self.total**0.5)


def _moments(features: Tensor) -> tuple[Array, Array]:
    x = features.double().numpy()
    mean = x.mean(0)
    return mean, (x - mean).T @ (x - mean) / len(x)
