"""A trained model: a network with all that is needed to sample from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import CLIPS, PRECISIONS, Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import ClassLabels, check_labels, check_mel, one_condition
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig
from fastdpm.sampling.network import Network, NoisePredictor, call_network
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.prediction import Autocast, ClipX0, DynamicThreshold, as_eps
from fastdpm.sampling.run import run
from fastdpm.sampling.state import Callback, SamplingState, after_rows

_CLIPS: dict[str, type[ClipX0] | type[DynamicThreshold]] = {
    "x0": ClipX0,
    "dynamic": DynamicThreshold,
}
_BATCH_VALUES = 2**18
_MAX_BATCH = 256


@dataclass(frozen=True)
class Decoder:
    """What turns latent states into data.

    Attributes:
        shape: Of one latent state.
        decode: Maps (batch, *shape) to data in [-1, 1], (batch, *data shape).
        name: Measured results are kept by it, as they are by the network's weights: another
            decoder needs another name, unless the network holds its weights as well.
    """

    shape: tuple[int, ...]
    decode: Callable[[Tensor], Tensor]
    name: str = ""


class Model:
    """A network, its schedule and its recommended recipe.

    Attributes:
        config: What the model folder says.
        network: In evaluation mode, on its device.
        schedule: The variances it was trained with.
        conditions: What samples are conditioned on if nothing else is said, number i mod m for
            sample i: mel spectrograms (m, bands, frames) of a vocoder, labels (m,) where there
            are classes, or whatever the network takes, (m, ...); None for none.
        decoder: For a latent model.
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
        weight = next(network.parameters(), torch.empty(0))
        self.device = weight.device
        # A state may be kept in float64; the network is asked in its own type, the step never
        # below float32.
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
        """Make a model of any network, so that it can be sampled, evaluated and compared here.

        Args:
            network: In evaluation mode. Called as ``network(x, t)``, or
                ``network(x, t, condition)`` if it has conditions, with real-valued zero-based
                steps of shape (batch,).
            schedule: The variances that it was trained with.
            shape: Of one sample of data in [-1, 1]: (channels, height, width), (1, samples) for
                sound, or (channels, length).
            name: For people and file names. Results are kept by name, weights and the network's
                ``repr``: a network that computes something else with the same weights needs
                another name.
            sample_rate: In Hz, for sound.
            classes: How many classes it takes, as labels of shape (batch,), int64.
            conditions: See :class:`Model`.
            decoder: For a latent model; ``shape`` is that of the data.
            prediction: What the network returns: "epsilon", "v_prediction" or "sample".
            time_scale: The network is given the zero-based step times this.
            recipe: The recommended way to sample.
            settings: What else decides what the network computes, to tell results apart.

        Raises:
            InvalidArgumentError: If the parts do not fit together, or the network is in training
                mode.
        """
        if not isinstance(network, nn.Module):
            raise InvalidArgumentError(
                f"a model needs a torch module, got a {type(network).__name__}: give a plain"
                " function to run, or make it the forward of a module"
            )
        if any(module.training for module in network.modules()):
            raise InvalidArgumentError(
                "the network, or a part of it, is in training mode, where dropout makes samples"
                " depend on chance: call its eval() first"
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
        """Draw samples 0 ... n - 1 of a seed; unstated choices are the recommended recipe's.

        Sample i depends on (seed, i) and the recipe, not on ``n`` or ``batch_size``.

        Args:
            n: How many.
            plan: A plan for this model's schedule, in place of the choices of a recipe.
            num_steps: S, the network evaluations, from 1 to T.
            levels: "var" or "step".
            spacing: "linear" or "quadratic".
            kappa: Stochasticity in [0, 1].
            method: See :class:`fastdpm.Recipe`.
            clip: "none", "x0" or "dynamic".
            seed: At least 0.
            batch_size: Samples at a time; chosen by their size if not given.
            class_labels: Classes of a model that has them, counted from 0: one for all samples,
                or m of them; sample i takes label i mod m. By default all classes in turn.
            condition: Condition of any other model: mel spectrograms of shape (bands, frames) or
                (m, bands, frames) for a vocoder, or whatever the network takes, (m, ...). Sample i
                takes condition i mod m. By default the model's own, ``conditions``.
            precision: Of the network: "float32", "bf16" or "fp16".
            progress: Show a progress bar.
            callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

        Returns:
            Shape (n, *data shape), float32 in [-1, 1], on the model's device; sounds of a vocoder
            are as long as their condition.

        Raises:
            InvalidArgumentError: If a choice is out of range.
            SamplingError: If the network returns something unusable.
        """
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
            raise InvalidArgumentError("a plan leaves nothing to choose: drop it or the choices")
        else:
            self.check_plan(plan)
        condition = one_condition(condition, class_labels, self.config.data)
        with _shown(callback) if progress else nullcontext(callback) as told:
            batches = self.sample_batches(
                range(n),
                plan,
                clip=recipe.clip,
                seed=seed,
                batch_size=batch_size,
                condition=condition,
                precision=precision,
                callback=told,
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
        """Draw the samples of the given indices by a plan, batch by batch; see :meth:`sample`.

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
            )
            yield batch, self.finished(x)

    def split(
        self, samples: Sequence[int], batch_size: int | None, condition: Tensor | None
    ) -> Iterator[tuple[int, Sequence[int]]]:
        """The samples batch by batch, each with the position of its first one."""
        size = self.batch_size(batch_size, condition)
        for first in range(0, len(samples), size):
            yield first, samples[first : first + size]

    def condition_of(self, condition: Tensor | None, samples: Sequence[int]) -> Tensor | None:
        """What samples of these indices are conditioned on, number i mod m, on the device."""
        if condition is None:
            return None
        return condition[[i % len(condition) for i in samples]].to(self.device)

    def noise_predictor(
        self, condition: Tensor | None = None, *, clip: str = "none", precision: str = "float32"
    ) -> Network | NoisePredictor:
        """The network as :func:`fastdpm.run` takes it, for one batch of conditions."""
        check_one_of("clip", clip, CLIPS)
        check_one_of("precision", precision, PRECISIONS)

        def plain(x: Tensor, t: Tensor) -> Tensor:
            step = (t * self.config.time_scale).to(self.dtype)
            return call_network(self.network, x.to(self.dtype), step, condition).to(x.dtype)

        raw = (
            plain
            if precision == "float32"
            else Autocast(plain, getattr(torch, PRECISIONS[precision]))
        )
        made = as_eps(raw, self.config.prediction)
        return made if clip == "none" else _CLIPS[clip](made)

    @torch.no_grad()
    def finished(self, x: Tensor) -> Tensor:
        """The data of final states: decoded if they are latent, and cut to [-1, 1]."""
        data = x if self.decoder is None else self.decoder.decode(x)
        return data.clamp(-1, 1)

    def check_condition(self, condition: Tensor | None) -> Tensor | None:
        """The conditions as (m, ...), by default the model's own.

        Raises:
            InvalidArgumentError: If they are missing, surplus or of the wrong shape.
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
        """Shape of one state; a vocoder's length is that of its condition."""
        if self.decoder is not None:
            return self.decoder.shape
        mel = self.config.data.mel
        if mel is None or condition is None:
            return self.config.data.shape
        return (1, condition.shape[-1] * mel.hop_length)

    def batch_size(self, wanted: int | None, condition: Tensor | None = None) -> int:
        """The batch size asked for, or one that suits the size of a sample.

        Raises:
            InvalidArgumentError: If it is below 1.
        """
        if wanted is None:
            return fitting_batch(self.sample_shape(condition))
        if wanted < 1:
            raise InvalidArgumentError(f"`batch_size` must be at least 1, got {wanted}")
        return wanted

    def check_plan(self, plan: Plan | NoiseLevels) -> None:
        """Check that a plan, or levels to make one of, are of this model's schedule.

        Raises:
            InvalidArgumentError: If a row asks the network at a step whose level is another.
        """
        schedule = self.schedule
        inside = (plan.t > -1) & (plan.t <= schedule.num_train_steps - 1)
        level = schedule.R(np.clip(plan.t + 1, 0, schedule.num_train_steps))
        apart = ~inside | (np.abs(level - plan.level[:-1]) > 1e-6)
        if apart.any():
            row = int(np.flatnonzero(apart)[0])
            raise InvalidArgumentError(
                f"row {row} of the plan pairs level {plan.level[row]:.6g} with step"
                f" {plan.t[row]:.6g}, which model {self.config.name!r} does not: make the plan"
                " for this model's schedule"
            )


def fitting_batch(shape: Sequence[int]) -> int:
    """A batch size that suits states of this shape."""
    return max(1, min(_MAX_BATCH, _BATCH_VALUES // math.prod(shape)))


@contextmanager
def _shown(callback: Callback | None) -> Iterator[Callback]:
    """A progress bar, and what else is to be told."""
    from fastdpm.progress import sampling_bar

    with sampling_bar() as bar:

        def tell(state: SamplingState) -> None:
            bar(state)
            if callback is not None:
                callback(state)

        yield tell
