"""A trained model: a network with everything that is needed to sample from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdpm.core.deprecation import renamed
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import CLIPS, PRECISIONS, Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import ClassLabels, check_labels, check_mel, one_condition
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig
from fastdpm.sampling.loop import run
from fastdpm.sampling.network import Network, NoisePredictor, call_network
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.prediction import Autocast, ClipX0, DynamicThreshold, as_eps
from fastdpm.sampling.state import Callback, SamplingState, after_rows

_CLIPS: dict[str, type[ClipX0] | type[DynamicThreshold]] = {
    "x0": ClipX0,
    "dynamic": DynamicThreshold,
}
_BATCH_VALUES = 2**18
_MAX_BATCH = 256


@dataclass(frozen=True)
class Decoder:
    """Decoder of a latent model: maps latent states to data.

    Attributes:
        shape: Shape of one latent state.
        decode: Maps latent states (batch, *shape) to data in [-1, 1], (batch, *data shape).
        name: Identifies the decoder in cached results. Use different names for different decoders,
            unless the network's weights include the decoder.
    """

    shape: tuple[int, ...]
    decode: Callable[[Tensor], Tensor]
    name: str = ""


@renamed("denoiser", "noise_predictor")
class Model:
    """A network, its variance schedule and its recommended recipe.

    Attributes:
        config: Configuration of the model, as in a model folder.
        network: The network, in evaluation mode.
        schedule: The schedule that the network was trained with.
        conditions: Default conditions; sample i uses condition i mod m. Mel spectrograms of shape
            (m, bands, frames) for a vocoder, class labels (m,) for a model with classes, or
            whatever the network accepts, (m, ...). None for an unconditional model.
        decoder: Decoder of a latent model, or None.
        notes: What was chosen and assumed when a checkpoint was opened, in words.
    """

    def __init__(
        self,
        config: ModelConfig,
        network: nn.Module,
        conditions: Tensor | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self.config = config
        self.network = network
        self.schedule = VarianceSchedule.from_config(config.schedule)
        if conditions is None and config.data.classes is not None:
            conditions = torch.arange(config.data.classes)
        self.conditions = conditions
        self.decoder = decoder
        self.notes: tuple[str, ...] = ()
        weight = next(network.parameters(), torch.empty(0))
        self.device = weight.device
        # The type of the network's inputs; states can be float64, and steps need float32 at least.
        self.dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        schedule: VarianceSchedule,
        shape: Sequence[int],
        *,
        name: str = "custom",
        sample_rate: int | None = None,
        classes: int | None = None,
        conditions: Tensor | None = None,
        decoder: Decoder | None = None,
        prediction: str = "epsilon",
        time_scale: float = 1.0,
        recipe: Recipe | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Model:
        """Wrap any network as a model that can be sampled, evaluated and compared.

        Args:
            network: A network in evaluation mode. It is called as ``network(x, t)``, or as
                ``network(x, t, condition)`` if there are conditions, with real-valued zero-based
                steps of shape (batch,).
            schedule: The schedule that the network was trained with.
            shape: Shape of one sample of data in [-1, 1]: (channels, height, width) for images,
                (1, samples) for sound, or (channels, length) for other series.
            name: Name of the model. Cached results are identified by the name, the weights and the
                network's ``repr``. Use different names for networks that compute different outputs
                from the same weights.
            sample_rate: Sample rate in Hz, for sound.
            classes: Number of classes, if the network accepts class labels, shape (batch,), int64.
            conditions: Default conditions; see :class:`Model`.
            decoder: Decoder of a latent model. ``shape`` is then the shape of the decoded data.
            prediction: Prediction type: "epsilon", "v_prediction" or "sample".
            time_scale: Factor by which steps are multiplied before they reach the network.
            recipe: The recommended recipe.
            settings: Further settings of the network, which also identify cached results. "type"
                and "class" are reserved.

        Raises:
            InvalidArgumentError: If an argument is invalid or does not fit the others, or the
                network is in training mode.
        """
        if not isinstance(network, nn.Module):
            raise InvalidArgumentError(
                f"`network` must be a torch.nn.Module, got {type(network).__name__}: pass a plain"
                " function to fastdpm.run, or call it in the forward method of a module"
            )
        if any(module.training for module in network.modules()):
            raise InvalidArgumentError(
                "the network, or a part of it, is in training mode: call network.eval() first"
            )
        if reserved := {"type", "class"} & (settings or {}).keys():
            raise InvalidArgumentError(
                f"`settings` must not contain {' or '.join(sorted(reserved))}: rename it"
            )
        modality = "image" if len(shape) == 3 else "audio" if sample_rate else "series"
        config = ModelConfig(
            name=name,
            network={"type": "custom", "class": type(network).__name__, **(settings or {})},
            schedule=schedule.config,
            data=DataSpec(modality, tuple(shape), sample_rate, classes=classes),
            recipe=recipe or Recipe(num_steps=min(20, schedule.num_train_steps)),
            prediction=prediction,
            time_scale=time_scale,
        )
        return cls(config, network, conditions, decoder)

    def sample(
        self,
        n: int = 16,
        *,
        plan: Plan | None = None,
        num_steps: int | None = None,
        levels: str | None = None,
        spacing: str | None = None,
        kappa: float | None = None,
        method: str | None = None,
        clip: str | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        class_labels: ClassLabels | None = None,
        condition: Tensor | None = None,
        precision: str = "float32",
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        """Draw samples. Choices that are None default to the recommended recipe.

        Sample i depends on the seed, on i and on the recipe, but not on ``n`` or ``batch_size``.

        Args:
            n: Number of samples.
            plan: A plan for this model's schedule. It replaces the choices below up to ``method``.
            num_steps: Number of steps S, from 1 to T.
            levels: How noise levels are chosen: "var" or "step".
            spacing: Spacing of the levels: "linear" or "quadratic".
            kappa: Stochasticity in [0, 1].
            method: Name of the sampler; see :class:`fastdpm.Recipe`.
            clip: What to clip: "none", "x0", "dynamic" or "state"; see :class:`fastdpm.Recipe`.
            seed: Random seed, at least 0.
            batch_size: Number of samples per batch; by default it depends on their size.
            class_labels: Zero-based class labels, for models with classes: one for all samples, or
                m labels; sample i uses label i mod m. By default all classes in turn.
            condition: Condition of any other model: mel spectrograms of shape (bands, frames) or
                (m, bands, frames) for a vocoder, or whatever the network accepts, (m, ...). Sample
                i uses condition i mod m. By default ``conditions`` of the model.
            precision: Precision of the network: "float32", "bf16" or "fp16".
            progress: Show a progress bar.
            callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

        Returns:
            Samples of shape (n, *data shape), float32 in [-1, 1], on the model's device. Sounds of
            a vocoder have the length of their condition.

        Raises:
            InvalidArgumentError: If an argument is invalid or does not fit the model.
            SamplingError: If the network's output is unusable.
        """
        check_limit("`n`", n, MAX_SAMPLES)
        recipe = self.config.recipe.replace(
            num_steps=num_steps,
            levels=levels,
            spacing=spacing,
            kappa=kappa,
            method=method,
            clip=clip,
        )
        if plan is None:
            plan = recipe.compile(self.schedule)
        elif recipe.replace(clip=self.config.recipe.clip) != self.config.recipe:
            raise InvalidArgumentError(
                "choices of a recipe have no effect with `plan`: drop the plan or the choices"
            )
        else:
            self.check_plan(plan)
        condition = one_condition(condition, class_labels, self.config.data)
        with _progress_bar(callback) if progress else nullcontext(callback) as report:
            batches = self.sample_batches(
                range(n),
                plan,
                clip=recipe.clip,
                seed=seed,
                batch_size=batch_size,
                condition=condition,
                precision=precision,
                callback=report,
            )
            return torch.cat([batch for _, batch in batches])

    def sample_batches(
        self,
        samples: Sequence[int],
        plan: Plan,
        *,
        clip: str = "none",
        seed: int = 0,
        batch_size: int | None = None,
        condition: Tensor | None = None,
        precision: str = "float32",
        callback: Callback | None = None,
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Draw the samples of some indices by a plan, batch by batch; see :meth:`sample`.

        Yields:
            The indices of a batch and its samples.
        """
        if len(samples) < 1:
            raise InvalidArgumentError("`n` must be at least 1")
        condition = self.check_condition(condition)
        shape = self.sample_shape(condition)
        for first, batch in self.split(samples, batch_size, condition):
            noise = SampleNoise(seed, batch)
            chosen = self.condition_of(condition, batch)
            x = run(
                plan,
                self.noise_predictor(chosen, clip=clip, precision=precision),
                noise.start(shape, device=self.device),
                noise=noise,
                callback=after_rows(callback, first, len(samples), plan.num_rows),
                clip_state=clip == "state",
            )
            yield batch, self.finished(x)

    def split(
        self, samples: Sequence[int], batch_size: int | None, condition: Tensor | None
    ) -> Iterator[tuple[int, Sequence[int]]]:
        """Split samples into batches; yield the position of each batch's first sample, and it."""
        size = self.batch_size(batch_size, condition)
        for first in range(0, len(samples), size):
            yield first, samples[first : first + size]

    def condition_of(self, condition: Tensor | None, samples: Sequence[int]) -> Tensor | None:
        """Select the conditions of some samples, number i mod m, on the model's device."""
        if condition is None:
            return None
        return condition[[i % len(condition) for i in samples]].to(self.device)

    def noise_predictor(
        self, condition: Tensor | None = None, *, clip: str = "none", precision: str = "float32"
    ) -> Network | NoisePredictor:
        """Return the network for one batch and :func:`fastdpm.run`, which itself clips states."""
        check_one_of("clip", clip, CLIPS)
        check_one_of("precision", precision, PRECISIONS)

        def plain(x: Tensor, t: Tensor) -> Tensor:
            step = (t * self.config.time_scale).to(self.dtype)
            return call_network(self.network, x.to(self.dtype), step, condition).to(x.dtype)

        network: Network = plain
        if precision != "float32":
            network = Autocast(plain, getattr(torch, PRECISIONS[precision]))
        predictor = as_eps(network, self.config.prediction)
        return _CLIPS[clip](predictor) if clip in _CLIPS else predictor

    @torch.no_grad()
    def finished(self, x: Tensor) -> Tensor:
        """Convert final states to data: decode latent states, and clip to [-1, 1]."""
        data = x if self.decoder is None else self.decoder.decode(x)
        return data.clamp(-1, 1)

    def check_condition(self, condition: Tensor | None) -> Tensor | None:
        """Check conditions and return them with shape (m, ...); by default the model's own.

        Raises:
            InvalidArgumentError: If they are missing, not supported or of the wrong shape.
        """
        data = self.config.data
        if condition is None:
            if data.mel is not None and self.conditions is None:
                raise InvalidArgumentError(
                    f"model {self.config.name!r} needs a condition: a mel spectrogram of"
                    f" {data.mel.bands} bands, or a sound at {data.mel.sample_rate} Hz"
                )
            return self.conditions
        if data.mel is not None:
            return check_mel(condition, data.mel)
        if data.classes is not None:
            return check_labels(condition, data.classes)
        if self.conditions is None:
            raise InvalidArgumentError(
                f"model {self.config.name!r} takes no condition: drop `condition`"
            )
        if condition.shape[1:] != self.conditions.shape[1:] or not len(condition):
            raise InvalidArgumentError(
                f"a condition of model {self.config.name!r} must have shape"
                f" (m, {', '.join(map(str, self.conditions.shape[1:]))}),"
                f" got {tuple(condition.shape)}"
            )
        return condition

    def sample_shape(self, condition: Tensor | None = None) -> tuple[int, ...]:
        """Return the shape of one state; a vocoder's sounds have the length of their condition."""
        if self.decoder is not None:
            return self.decoder.shape
        mel = self.config.data.mel
        if mel is None or condition is None:
            return self.config.data.shape
        return (1, condition.shape[-1] * mel.hop_length)

    def batch_size(self, size: int | None, condition: Tensor | None = None) -> int:
        """Check a batch size, or choose one for the size of a sample if it is None.

        Raises:
            InvalidArgumentError: If it is below 1.
        """
        if size is None:
            return fitting_batch(self.sample_shape(condition))
        if size < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1, got {size}")
        return size

    def check_plan(self, plan: Plan | NoiseLevels) -> None:
        """Check that a plan or noise levels belong to this model's schedule.

        Raises:
            InvalidArgumentError: If the level of a row is not the level of its step.
        """
        schedule = self.schedule
        inside = (plan.t > -1) & (plan.t <= schedule.num_train_steps - 1)
        level = schedule.R(np.clip(plan.t + 1, 0, schedule.num_train_steps))
        wrong = ~inside | (np.abs(level - plan.level[:-1]) > 1e-6)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidArgumentError(
                f"row {row} of the plan has level {plan.level[row]:.6g} at step"
                f" {plan.t[row]:.6g}, which does not match the schedule of model"
                f" {self.config.name!r}: compile the plan for this model's schedule"
            )


def fitting_batch(shape: Sequence[int]) -> int:
    """Choose a batch size for states of this shape."""
    return max(1, min(_MAX_BATCH, _BATCH_VALUES // math.prod(shape)))


@contextmanager
def _progress_bar(callback: Callback | None) -> Iterator[Callback]:
    """Show a progress bar; the callback updates it and calls the user's callback."""
    from fastdpm.progress import sampling_bar

    with sampling_bar() as bar:

        def report(state: SamplingState) -> None:
            bar(state)
            if callback is not None:
                callback(state)

        yield report
