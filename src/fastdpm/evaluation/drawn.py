"""Samples that a model draws: a source whose samples are kept once drawn."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fastdpm.core.plan import Plan
from fastdpm.data.tensors import tensor_digest
from fastdpm.evaluation.cache import Cache, digest, versions
from fastdpm.evaluation.sources import ALL, Source, Values, to_values
from fastdpm.models.find import FoundModel, find_model
from fastdpm.models.identity import config_digest, weights_digest
from fastdpm.models.load import open_model
from fastdpm.models.model import Model
from fastdpm.sampling.state import Callback


class Drawer(ABC):
    """A way to draw samples from a model.

    Attributes:
        key: What decides the samples, beside model, seed and precision.
        label: In words.
        rows: Network evaluations of a sample.
        plan: Where it samples by one.
    """

    key: str
    label: str
    rows: int
    plan: Plan | None = None

    @abstractmethod
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


class PlanDrawer(Drawer):
    """Samples by a plan."""

    plan: Plan

    def __init__(self, plan: Plan, clip: str = "none") -> None:
        self.plan, self.clip = plan, clip
        self.key = f"plan {plan.fingerprint} clip {clip}"
        self.label, self.rows = plan.label, plan.num_rows

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """By :meth:`fastdpm.Model.sample_batches`."""
        batches = model.sample_batches(
            samples, self.plan, clip=self.clip, callback=callback, **options.keywords()
        )
        return ((batch, self.rows) for _, batch in batches)


class ModelHandle:
    """A model by what decides its samples; its weights are read when first needed."""

    def __init__(self, model: str | Path | FoundModel | Model, device: str = "auto") -> None:
        self._found = model if isinstance(model, Model | FoundModel) else find_model(model)
        self._device = device
        self.config = self._found.config
        found = self._found
        self.weights = weights_digest(found) if isinstance(found, Model) else found.checksum()

    @cached_property
    def model(self) -> Model:
        """The model, loaded."""
        found = self._found
        return found if isinstance(found, Model) else open_model(found, self._device)

    @cached_property
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
    """Samples 0, 1, 2 ... of a seed, drawn by a drawer and kept in the cache.

    The key is a digest of what decides them; batch size and device do not. ``more`` is digested
    with it.
    """

    size = ALL

    def __init__(
        self, handle: ModelHandle, drawer: Drawer, options: DrawOptions, cache: Cache, *more: str
    ) -> None:
        self.handle, self.drawer, self.options = handle, drawer, options
        self.data = handle.config.data
        self.label, self.rows = f"{handle.config.name}, {drawer.label}", drawer.rows
        decide = versions("fastdpm", "torch", "numpy")
        stated = [] if options.condition is None else [tensor_digest(options.condition)]
        key = digest(handle.key, drawer.key, options.seed, options.precision, decide, *stated)
        self.key = digest(key, *more) if more else key
        self.shards = cache.shards("samples", self.key)

    @property
    def drawn(self) -> int:
        """How many are kept."""
        return self.shards.count

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The samples from ``first`` to before ``stop``; what is not kept is drawn, and kept."""
        for arrays in self.shards.read(first, stop):
            yield arrays["samples"]
        at, began = self.shards.count, time.perf_counter()
        for batch, evaluations in self.draw(range(at, stop), callback) if at < stop else ():
            values = to_values(batch)
            each = (time.perf_counter() - began) / len(values)
            kept = {
                "samples": values,
                "seconds": np.full(len(values), each),
                "evaluations": np.full(len(values), evaluations),
            }
            self.shards.append(at, kept)
            if at + len(values) > first:
                yield values[max(first - at, 0) :]
            at += len(values)
            began = time.perf_counter()

    def draw(
        self, samples: Sequence[int], callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Samples of these numbers, as the drawer draws them."""
        return self.drawer.draw(self.handle.model, samples, self.options, callback)

    def cost(self, count: int) -> tuple[float, float]:
        """Seconds that the first ``count`` samples took, and network evaluations of each."""
        arrays = self.shards.gather(count, ("seconds", "evaluations"))
        return float(arrays["seconds"].sum()), float(arrays["evaluations"].mean())
