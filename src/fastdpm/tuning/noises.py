"""Sets of noises: those a plan is learned on, and fresh ones to measure it on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import SamplingError
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceScale
from fastdpm.core.schedule import Array
from fastdpm.tuning.features import Features, Moments
from fastdpm.tuning.paths import Paths, distance, draw_paths
from fastdpm.tuning.predictor import DataPredictor
from fastdpm.tuning.rollout import Learned, Rollout, roll, state_of

_BOUND, _WITHIN = 1.2, 0.99
_VALUES = 256  # of each sample that the residual of paths holds
Make = Callable[[range, GuidanceScale], DataPredictor]
"""``make(samples, guidance)`` returns the network for some samples."""


class Noises:
    """Some noises, and the teacher's trajectories from them.

    Args:
        make: Makes the predictor of some samples.
        predict: That of these noises.
        paths: The trajectories.
    """

    def __init__(self, make: Make, predict: DataPredictor, paths: Paths) -> None:
        self._make, self.predict, self.paths = make, predict, paths

    @classmethod
    def draw(
        cls,
        make: Make,
        samples: range,
        guidance: GuidanceScale,
        rows: int,
        end: float,
        after_row: Callable[[int], object] = lambda row: None,
    ) -> Self:
        """Draw the trajectories from the noises of some samples.

        Args:
            make: Makes the predictor of some samples.
            samples: The samples.
            guidance: How the network is guided.
            rows: Network evaluations of the teacher.
            end: Noise scale where the teacher ends.
            after_row: Called with the number of each row that is done, from 0.
        """
        predict = make(samples, guidance)
        return cls(make, predict, draw_paths(predict, rows, end, after_row))

    def first(self, count: int) -> Noises:
        """The first noises alone, which count evaluations of their own."""
        samples = self.predict.samples[:count]
        few = self._make(samples, self.predict.guidance)
        found = Noises(self._make, few, self.paths.first(len(samples)))
        found.__dict__["_bounded"] = self._bounded  # a question that all answer alike
        return found

    def few(self, count: int) -> Noises:
        """The first noises, with the same features as all."""
        found = self.first(count)
        found.__dict__["_features"] = self._features.of(self._unguided(found.predict.samples))
        found.__dict__["_moments"] = self._moments
        return found

    def _unguided(self, samples: range) -> DataPredictor:
        return self._make(samples, NO_GUIDANCE)

    def __len__(self) -> int:
        return len(self.predict)

    @property
    def evaluations(self) -> int:
        """Network evaluations so far."""
        shown: Features | None = self.__dict__.get("_features")
        return self.predict.evaluations + (0 if shown is None else shown.predict.evaluations)

    @cached_property
    def wanted(self) -> Tensor:
        """The teacher's samples, as they are shown."""
        return self.shown(self.paths.samples)

    @cached_property
    def _bounded(self) -> bool:
        """Whether the values of samples lie in [-1, 1], apart from a few; latents leave it."""
        return float((self.paths.samples.abs() <= _BOUND).double().mean()) >= _WITHIN

    def shown(self, samples: Tensor) -> Tensor:
        """Samples as pictures and sounds show them: values beyond [-1, 1] are clipped."""
        return samples.clamp(-1, 1) if self._bounded else samples

    def distance(self, samples: Tensor) -> float:
        """How far samples are from the teacher's; see :func:`fastdpm.tuning.paths.distance`."""
        return distance(self.shown(samples), self.wanted)

    @cached_property
    def _features(self) -> Features:
        return Features(self._unguided(self.predict.samples), self.wanted)

    @cached_property
    def _moments(self) -> Moments:
        return Moments.of(self._features.own)

    def prepare_moments(self) -> None:
        """Compute the features of the teacher's samples now, before evaluations are counted."""
        _ = self._moments

    def to_paths(self, rollout: Rollout) -> Array:
        """The differences to the teacher's samples.

        Their squared length is their distance, of large samples over some of their values.
        """
        wanted = self._some(self.wanted)
        spread = (wanted - wanted.mean(0)).double().square().sum().sqrt()
        difference = self._some(self.shown(rollout.final)) - wanted
        found: Array = (difference.flatten().double() / spread).numpy()
        return found

    def _some(self, samples: Tensor) -> Tensor:
        """The values of samples, shape (n, m); of large ones, so many at random positions."""
        flat = samples.flatten(1)
        if flat.shape[1] <= _VALUES:
            return flat
        places = np.random.default_rng(0).choice(flat.shape[1], _VALUES, replace=False)
        return flat[:, torch.from_numpy(np.sort(places))]

    def to_moments(self, rollout: Rollout) -> Array:
        """The differences to the moments of the features of the teacher's samples."""
        return self._moments.residual(self._features(self.shown(rollout.final)))

    def along(self, learned: Learned) -> list[float]:
        """How far the states after each row are from the teacher's at the same level."""
        rollout = roll(self.predict, learned)
        levels, predict = learned.levels.level[1:-1], self.predict
        far = [
            distance(
                predict.clipped(state_of(learned.table[s], predict.start, rollout.data)),
                self.paths.at(float(level)),
            )
            for s, level in enumerate(levels, 1)
        ]
        return [*far, self.distance(rollout.final)]

    def losses(self, learned: Learned, *, moments: bool) -> Mapping[str, float]:
        """How far a plan is from the teacher on these noises; infinitely if it gives no values."""
        try:
            rollout = roll(self.predict, learned)
        except SamplingError:
            return {"paths": math.inf} | ({"moments": math.inf} if moments else {})
        found = {"paths": self.distance(rollout.final)}
        if moments:
            r = self.to_moments(rollout)
            found["moments"] = float(r @ r)
        return found
