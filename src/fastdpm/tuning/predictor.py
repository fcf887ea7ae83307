"""The network of a tuning: it predicts clean data for all noises at once, and counts its work."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.guidance import GuidanceScale
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.models.model import Model
from fastdpm.sampling.network import evaluate_network
from fastdpm.sampling.noise import SampleNoise

_FIRST = 2**63


class DataPredictor:
    """Predictions of clean data for a set of samples, in batches.

    Args:
        model: The model.
        seed: Seed of the starts.
        samples: Indices of the samples.
        condition: Conditions, checked, shape (m, ...), or None; sample i has condition i mod m.
        guidance: How the network is guided.
        clip: What is clipped.
        precision: Precision of the network.
        batch_size: Samples per evaluation; by default it depends on their size.

    Attributes:
        start: States at the highest noise level, shape (n, ...), on the CPU.
        evaluations: Network evaluations so far, of one sample each.
    """

    def __init__(
        self,
        model: Model,
        seed: int,
        samples: range,
        *,
        condition: Tensor | None,
        guidance: GuidanceScale,
        clip: str,
        precision: str,
        batch_size: int | None,
    ) -> None:
        self.model, self.samples, self.guidance, self.clip = model, samples, guidance, clip
        own = [_FIRST + sample for sample in samples]  # no one draws samples of these indices
        self.start = SampleNoise(seed, own).start(model.sample_shape(condition))
        self.evaluations = 0
        self._parts = [
            (
                slice(first, first + len(batch)),
                model.noise_predictor(
                    model.condition_of(condition, batch),
                    clip=clip,
                    precision=precision,
                    guidance_scale=self._scale_at if guidance.enabled else 1.0,
                    guidance_rescale=guidance.rescale,
                ),
            )
            for first, batch in model.split(samples, batch_size, condition)
        ]

    @property
    def schedule(self) -> VarianceSchedule:
        """The schedule of the network."""
        return self.model.schedule

    def __len__(self) -> int:
        return len(self.start)

    @property
    def evaluations_each(self) -> int:
        """Network evaluations of a prediction: two with guidance."""
        return 2 if self.guidance.enabled else 1

    @torch.no_grad()
    def __call__(self, x: Tensor, level: float) -> Tensor:
        """Predict clean data D = (x - sigma eps) / r for all states at a level, on the CPU."""
        t = float(self.schedule.T(level)) - 1
        sigma = (1 - level**2) ** 0.5
        found = torch.empty_like(x)
        for part, predictor in self._parts:
            batch = x[part].to(self.model.device)
            eps, _ = evaluate_network(predictor, batch, t, level, f"level {level:.4g}")
            found[part] = ((batch - sigma * eps) / level).cpu()
        self.evaluations += len(x) * self.guidance.evaluations(np.array([level]))
        return found

    def clipped(self, x: Tensor) -> Tensor:
        """A state as the recipe leaves it, clipped in place if it clips states."""
        return x.clamp_(-1, 1) if self.clip == "state" else x

    def _scale_at(self, level: float) -> float:
        return float(self.guidance.per_row(np.array([level]))[0])
