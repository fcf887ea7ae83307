"""Samples that a model draws: a source whose samples are kept once drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.plan import Plan
from fastdpm.data.tensors import tensor_digest
from fastdpm.evaluation.cache import Cache, digest
from fastdpm.evaluation.sources import Source, Values, to_values
from fastdpm.models.find import FoundModel, find_model
from fastdpm.models.identity import config_digest, weights_digest
from fastdpm.models.load import open_model
from fastdpm.models.model import Model
from fastdpm.sampling.state import Callback

_DECIDING = ("fastdpm", "torch", "numpy")


class Sampler(Protocol):
    """A way to draw samples from a model."""

    @property
    def key(self) -> str:
        """What decides the samples, beside model, seed and precision."""

    @property
    def label(self) -> str:
        """In words."""

    @property
    def rows(self) -> int:
        """Network evaluations of a sample."""

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Batches of samples and the network evaluations that each sample of them took."""


@dataclass(frozen=True)
class DrawOptions:
    """What does not belong to the sampler.

    Attributes:
        seed: Of the samples.
        precision: Of the network.
        batch_size: Samples at a time; chosen by their size if None. Does not change them.
        device: Where; does not change them beyond rounding.
        condition: For a vocoder, mel spectrograms; see :meth:`fastdpm.Model.sample`.
    """

    seed: int = 0
    precision: str = "float32"
    batch_size: int | None = None
    device: str = "auto"
    condition: Tensor | None = None

    def keywords(self) -> dict[str, Any]:
        """What a function that draws takes, which knows its device from the model."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}


@dataclass(frozen=True)
class PlanSampler:
    """Samples by a plan."""

    plan: Plan
    clip: str = "none"

    @property
    def key(self) -> str:
        """See :class:`Sampler`."""
        return f"plan {self.plan.fingerprint} clip {self.clip}"

    @property
    def label(self) -> str:
        """See :class:`Sampler`."""
        return self.plan.label

    @property
    def rows(self) -> int:
        """See :class:`Sampler`."""
        return self.plan.num_rows

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """See :class:`Sampler`."""
        batches = model.sample_batches(
            samples,
            self.plan,
            clip=self.clip,
            callback=callback,
            **options.keywords() | {"condition": model.check_condition(options.condition)},
        )
        for _, batch in batches:
            yield batch, self.plan.num_rows


class ModelHandle:
    """A model by what decides its samples; its weights are read when first needed."""

    def __init__(self, model: str | Path | FoundModel | Model, device: str = "auto") -> None:
        self._device = device
        self._model: Model | None = None
        if isinstance(model, Model):
            self._model = model
            self.config = model.config
            self.weights = weights_digest(model)
        else:
            self._found = model if isinstance(model, FoundModel) else find_model(model)
            self.config = self._found.config
            self.weights = self._found.checksum()

    @property
    def model(self) -> Model:
        """The model, loaded."""
        if self._model is None:
            self._model = open_model(self._found, self._device)
        return self._model

    @property
    def key(self) -> str:
        """Digest of weights, network, schedule and what else of the configuration decides."""
        return digest(self.weights, config_digest(self.config), *self._custom())

    def _custom(self) -> list[str]:
        """What more decides the samples of a model that only exists in memory."""
        if self.config.network["type"] != "custom":
            return []
        model = self.model
        decoder = "" if model.decoder is None else f"{model.decoder.shape} {model.decoder.name}"
        conditions = "" if model.conditions is None else tensor_digest(model.conditions)
        return [self.config.name, repr(model.network), conditions, decoder]


class ModelSource(Source):
    """Samples 0, 1, 2 ... of a seed, drawn by a sampler and kept in the cache."""

    def __init__(
        self, handle: ModelHandle, sampler: Sampler, options: DrawOptions, cache: Cache
    ) -> None:
        self.handle, self.sampler, self.options = handle, sampler, options
        self.data = handle.config.data
        self.label = f"{handle.config.name}, {sampler.label}"
        self.key = sampling_key(handle, sampler, options)
        self.shards = cache.shards("samples", self.key)
        self.callback: Callback | None = None

    def count(self, wanted: int) -> int:
        """See :class:`Source`."""
        return wanted

    def batches(self, first: int, stop: int) -> Iterator[Values]:
        """See :class:`Source`; what is not there yet is drawn and kept."""
        for arrays in self.shards.read(first, stop):
            yield arrays["samples"]
        todo = range(self.shards.count, stop)
        if not todo:
            return
        at, began = todo.start, time.perf_counter()
        for batch, evaluations in self.sampler.draw(
            self.handle.model, todo, self.options, self.callback
        ):
            values = to_values(batch)
            if batch.is_cuda:
                torch.cuda.synchronize(batch.device)
            each = (time.perf_counter() - began) / len(values)
            self.shards.append(
                at,
                {
                    "samples": values,
                    "seconds": np.full(len(values), each),
                    "evaluations": np.full(len(values), evaluations),
                },
            )
            if at + len(values) > first:
                yield values[max(first - at, 0) :]
            at += len(values)
            began = time.perf_counter()

    def cost(self, count: int) -> tuple[float, float]:
        """Seconds that the first ``count`` samples took, and network evaluations of each."""
        arrays = self.shards.gather(count, ("seconds", "evaluations"))
        return float(arrays["seconds"].sum()), float(arrays["evaluations"].mean())


def sampling_key(handle: ModelHandle, sampler: Sampler, options: DrawOptions) -> str:
    """Digest of what decides samples; batch size and device do not."""
    versions = {name: version(name) for name in _DECIDING}
    stated = [] if options.condition is None else [tensor_digest(options.condition)]
    return digest(handle.key, sampler.key, options.seed, options.precision, versions, *stated)
