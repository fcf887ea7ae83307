"""Samples that a model draws; they are kept in the cache."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked_class
from fastdpm.core.errors import InvalidArgumentError, check_one_of, positive_or_none
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceLike, GuidanceScale
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import PRECISIONS
from fastdpm.data.condition import ClassLabels, Condition, as_tensor, one_condition
from fastdpm.data.tensors import tensor_digest
from fastdpm.evaluation.cache import Cache, digest, versions
from fastdpm.evaluation.halves import Strata
from fastdpm.evaluation.sources import ALL, Source, Values, to_values
from fastdpm.models.checks import as_condition, unconditional_of, usable_guidance
from fastdpm.models.find import FoundModel, find_model
from fastdpm.models.identity import config_digest, weights_digest
from fastdpm.models.load import open_model
from fastdpm.models.model import Model
from fastdpm.models.tuned import TunedPlan
from fastdpm.sampling.state import Callback


class Drawer(ABC):
    """A way to draw samples from a model.

    Attributes:
        key: Decides the samples, together with model, seed and precision.
        label: Its name, for people.
        rows: Network evaluations of a sample.
        noise_rows: Steps of a sample that draw noise.
        clip: What is clipped: "none", "x0", "dynamic" or "state".
        guidance: How the network is guided.
        plan: The plan it samples by, if it does.
    """

    key: str
    label: str
    rows: int
    noise_rows: int
    clip: str
    guidance: GuidanceScale = NO_GUIDANCE
    plan: Plan | None = None

    @abstractmethod
    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Draw batches of samples; each comes with its network evaluations per sample."""


@checked_class
@dataclass(frozen=True)
class DrawOptions:
    """Options of drawing that do not belong to the sampler.

    Attributes:
        seed: Sample i depends on (seed, i). At least 0.
        precision: Of the network: "float32", "bf16" or "fp16".
        batch_size: Samples at a time; by default chosen by their size. Changes no sample.
        device: Where the network runs; changes samples by rounding only.
        condition: Condition of the samples; see :meth:`fastdpm.Model.sample`.
        class_labels: Class labels of the samples; see :meth:`fastdpm.Model.sample`.

    Raises:
        InvalidArgumentError: If a value is out of range.
    """

    seed: int = 0
    precision: str = "float32"
    batch_size: int | None = None
    device: str = "auto"
    condition: Condition | None = None
    class_labels: ClassLabels | None = None

    def __post_init__(self) -> None:
        check_one_of("precision", self.precision, PRECISIONS)
        if not 0 <= self.seed < 2**64:
            raise InvalidArgumentError(f"`seed` must be in [0, 2^64), got {self.seed}")
        object.__setattr__(self, "batch_size", positive_or_none("batch_size", self.batch_size))

    def keywords(self) -> dict[str, Any]:
        """The arguments of a function that draws; it takes the device from the model."""
        names = {f.name for f in fields(self)} - {"device", "class_labels"}
        return {name: getattr(self, name) for name in names}

    def for_model(self, handle: ModelHandle) -> DrawOptions:
        """The options with the condition of a model, or the class labels as such, checked.

        Raises:
            InvalidArgumentError: If they do not fit the model.
        """
        data, null = handle.config.data, handle.null_class
        condition = one_condition(self.condition, self.class_labels, data, null)
        if condition is not None:
            condition = handle.check_condition(condition)
        return replace(self, condition=condition, class_labels=None)


class PlanDrawer(Drawer):
    """Samples by a plan."""

    plan: Plan

    def __init__(
        self, plan: Plan, clip: str = "none", guidance: GuidanceScale = NO_GUIDANCE
    ) -> None:
        self.plan, self.clip, self.guidance = plan, clip, guidance
        self.key = f"plan {plan.fingerprint} clip {clip}"
        self.label, self.rows = plan.label, guidance.evaluations(plan.network_level)
        self.noise_rows = int(np.count_nonzero(plan.c))

    def draw(
        self, model: Model, samples: Sequence[int], options: DrawOptions, callback: Callback | None
    ) -> Iterator[tuple[Tensor, int]]:
        """Draw by :meth:`fastdpm.Model.sample_batches`."""
        batches = model.sample_batches(
            samples,
            self.plan,
            clip=self.clip,
            guidance_scale=self.guidance,
            callback=callback,
            **options.keywords(),
        )
        return ((batch, self.rows) for _, batch in batches)


class ModelHandle:
    """A model, identified by what decides its samples; the weights are loaded when needed."""

    def __init__(self, model: str | Path | FoundModel | Model, device: str = "auto") -> None:
        if not isinstance(model, Model | FoundModel | str | Path):
            raise InvalidArgumentError(
                "a model must be a name, a folder or a fastdpm.Model, got a"
                f" {type(model).__name__}: wrap a network with Model.wrap, or a pipeline with"
                " fastdpm.integrations.diffusers.from_pipeline"
            )
        self._found = model if isinstance(model, Model | FoundModel) else find_model(model)
        self._device = device
        self.config = self._found.config

    @cached_property
    def weights(self) -> str:
        """Checksum of the weights."""
        found = self._found
        return weights_digest(found) if isinstance(found, Model) else found.checksum()

    @property
    def plans(self) -> Mapping[int, TunedPlan]:
        """The tuned plans of the model, by S."""
        return self._found.plans

    @cached_property
    def model(self) -> Model:
        """The model, loaded."""
        found = self._found
        return found if isinstance(found, Model) else open_model(found, self._device)

    @property
    def conditions(self) -> Tensor | None:
        """The conditions that samples take in turn; None if there are none."""
        found, classes = self._found, self.config.data.classes
        if isinstance(found, Model):
            return found.conditions
        return None if classes is None else torch.arange(classes, device="cpu")

    @property
    def unconditional(self) -> Tensor | None:
        """The condition that stands for no condition, or None."""
        found = self._found
        if isinstance(found, Model):
            return found.unconditional
        return unconditional_of(self.config, None, None)

    @property
    def null_class(self) -> int | None:
        """The label that stands for "no class"; None if the model has none."""
        found = self._found
        return found.null_class if isinstance(found, Model) else self.config.null_class

    def check_condition(self, condition: Condition) -> Tensor:
        """Check the conditions of samples; see :meth:`fastdpm.Model.check_condition`."""
        found = self._found
        if isinstance(found, Model):
            return as_condition(self.config, condition, found.conditions, self.null_class)
        return as_condition(self.config, condition, None, self.null_class)

    def check_guidance(
        self, guidance_scale: GuidanceLike | None, condition: Condition | None
    ) -> GuidanceScale:
        """Check a scale of guidance; see :meth:`fastdpm.Model.check_guidance`."""
        guidance = GuidanceScale.of(guidance_scale, self.config.recipe.guidance)
        stated = None if condition is None else as_tensor(condition)
        return usable_guidance(self.config, guidance, self.unconditional, stated)

    @cached_property
    def key(self) -> str:
        """Digest of the weights and of everything in the configuration that decides samples."""
        return digest(self.weights, config_digest(self.config), *self._custom())

    def _custom(self) -> list[str]:
        """What else decides the samples of a model that exists in memory only."""
        if self.config.network["type"] != "custom":
            return []
        model = self.model
        decoder = "" if model.decoder is None else f"{model.decoder.shape} {model.decoder.name}"
        conditions = "" if model.conditions is None else tensor_digest(model.conditions)
        return [self.config.name, repr(model.network), conditions, decoder]


class ModelSource(Source):
    """Samples 0, 1, 2 ... of a seed, drawn by a drawer and kept in the cache.

    The key is a digest of everything that decides the samples, ``more`` included. Batch size and
    device are not part of it.
    """

    size = ALL

    def __init__(
        self, handle: ModelHandle, drawer: Drawer, options: DrawOptions, cache: Cache, *more: str
    ) -> None:
        self.handle, self.drawer, self.options = handle, drawer, options
        self.data = handle.config.data
        guidance = f", {text}" if (text := drawer.guidance.describe()) else ""
        self.label = f"{handle.config.name}, {drawer.label}{guidance}"
        self.rows, self.noise_rows = drawer.rows, drawer.noise_rows
        decide = versions("fastdpm", "torch", "numpy")
        stated: list[str] = []
        if options.condition is not None:
            stated = [tensor_digest(as_tensor(options.condition))]
        if drawer.guidance.enabled and handle.unconditional is not None:
            stated += [drawer.guidance.describe(), tensor_digest(handle.unconditional)]
        key = digest(handle.key, drawer.key, options.seed, options.precision, decide, *stated)
        self.key = digest(key, *more) if more else key
        self.shards = cache.shards("samples", self.key)

    @property
    def drawn(self) -> int:
        """How many are in the cache."""
        return self.shards.count

    @property
    def drawing(self) -> DrawOptions:
        """The options to draw with."""
        return self.options

    @property
    def probe(self) -> ModelSource:
        """See :class:`fastdpm.evaluation.sources.Source`."""
        return self

    def batches(self, first: int, stop: int, callback: Callback | None = None) -> Iterator[Values]:
        """The samples from ``first`` to before ``stop``; missing ones are drawn and kept."""
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
        """Draw the samples of these indices."""
        return self.drawer.draw(self.handle.model, samples, self.drawing, callback)

    def strata(self, count: int) -> Strata | None:
        """See :class:`fastdpm.evaluation.sources.Source`."""
        several = 1 if self._conditions is None else len(self._conditions)
        return np.arange(count) % several if several > 1 else None

    def labels(self, count: int) -> Strata | None:
        """See :class:`fastdpm.evaluation.sources.Source`."""
        labels = self._conditions
        if labels is None or self.data.classes is None:
            return None
        return labels.cpu().numpy()[np.arange(count) % len(labels)]

    @property
    def _conditions(self) -> Tensor | None:
        stated = self.options.condition
        return self.handle.conditions if stated is None else as_tensor(stated)

    def cost(self, count: int) -> tuple[float, float]:
        """Seconds that the first ``count`` samples took, and network evaluations of each."""
        arrays = self.shards.gather(count, ("seconds", "evaluations"))
        return float(arrays["seconds"].sum()), float(arrays["evaluations"].mean())
