"""A trained model: a network with everything that is needed to sample from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.arguments import checked
from fastdpm.core.deprecation import renamed
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.guidance import GuidanceLike, GuidanceScale, ScaleAt
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.condition import ClassLabels, Condition, one_condition
from fastdpm.models.bar import progress_bar
from fastdpm.models.checks import (
    as_condition,
    cannot_be_guided,
    check_no_condition_needed,
    check_plan,
    null_of,
    unconditional_of,
    usable_guidance,
)
from fastdpm.models.choosing import choose_plan, usable_plan
from fastdpm.models.config import ModelConfig
from fastdpm.models.cost import checked_batch
from fastdpm.models.decoder import Decoder
from fastdpm.models.predictor import make_predictor
from fastdpm.models.tuned import TunedPlan
from fastdpm.models.wrapping import wrapped_config
from fastdpm.sampling.loop import run
from fastdpm.sampling.network import Network, NoisePredictor
from fastdpm.sampling.noise import SampleNoise
from fastdpm.sampling.state import Callback, after_rows


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
        unconditional: The condition that stands for no condition, shape (1, ...), such as the
            label of the null class. Guidance needs it; None if the network has none.
        decoder: Decoder of a latent model, or None.
        notes: What was chosen and assumed when a checkpoint was opened, in words.
        plans: The tuned plans of the model, by S.
    """

    described = "a Model (Model.wrap makes one of a network)"  # in messages on arguments

    @checked
    def __init__(
        self,
        config: ModelConfig,
        network: nn.Module,
        conditions: Tensor | None = None,
        decoder: Decoder | None = None,
        unconditional: Tensor | None = None,
    ) -> None:
        self.config = config
        self.network = network
        self.schedule = VarianceSchedule.from_config(config.schedule)
        if conditions is None and config.data.classes is not None:
            conditions = torch.arange(config.data.classes, device="cpu")
        self.conditions = conditions
        self.unconditional = unconditional_of(config, unconditional, conditions)
        self.decoder = decoder
        self.notes: tuple[str, ...] = ()
        self.plans: dict[int, TunedPlan] = {}
        weight = next(network.parameters(), torch.empty(0, device="cpu"))
        self.device = weight.device
        # The type of the network's inputs; states can be float64, and steps need float32 at least.
        self.dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32

    @classmethod
    @checked
    def wrap(
        cls,
        network: nn.Module,
        schedule: VarianceSchedule,
        shape: Sequence[int],
        *,
        name: str = "custom",
        sample_rate: int | None = None,
        classes: int | None = None,
        class_names: Sequence[str] | None = None,
        null_class: bool = False,
        conditions: Tensor | None = None,
        unconditional: Tensor | None = None,
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
            class_names: Names of the classes, in the order of their labels.
            null_class: Whether the label after that of the last class stands for "no class".
            conditions: Default conditions; see :class:`Model`.
            unconditional: The condition that stands for no condition, with the shape of one
                condition, if ``null_class`` does not say it.
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
        config = wrapped_config(
            network,
            schedule,
            shape,
            name=name,
            sample_rate=sample_rate,
            classes=classes,
            class_names=class_names,
            prediction=prediction,
            time_scale=time_scale,
            recipe=recipe,
            settings=settings,
        )
        null = null_of(classes, unconditional) if null_class else unconditional
        return cls(config, network, conditions, decoder, null)

    @checked
    def sample(
        self,
        n: int = 16,
        *,
        plan: Plan | TunedPlan | None = None,
        num_steps: int | None = None,
        levels: str | None = None,
        spacing: str | None = None,
        kappa: float | None = None,
        method: str | None = None,
        recipe: Recipe | str | None = None,
        clip: str | None = None,
        guidance_scale: GuidanceLike | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_rescale: float | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        class_labels: ClassLabels | None = None,
        condition: Condition | None = None,
        precision: str = "float32",
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        """Draw samples. Choices that are None default to the recommended recipe.

        If no levels and no sampler are chosen, and the model has a tuned plan for S, clipping and
        guidance, it is used.

        Sample i depends on the seed, on i and on the recipe, but not on ``n`` or ``batch_size``.

        Args:
            n: Number of samples.
            plan: A plan for this model's schedule, or a tuned plan of this model. It replaces the
                choices below up to ``recipe``.
            num_steps: Number of steps S, from 1 to T.
            levels: How noise levels are chosen, as in :class:`fastdpm.Recipe`.
            spacing: Spacing of the levels, such as "linear" or "quadratic".
            kappa: Stochasticity in [0, 1].
            method: Name of the sampler, or "tuned" for the model's tuned plan of S.
            recipe: A recipe, the name of one of the model's, or the key of a method, such as
                "unipc-3-step-trailing", in place of the recommended recipe.
            clip: What to clip: "none", "x0", "dynamic" or "state".
            guidance_scale: Scale of classifier-free guidance, or one per row of the plan: 1 is
                none, above 1 strengthens the condition. Scales other than 0 and 1 take two network
                evaluations per row. The model needs :attr:`unconditional`.
            guidance_interval: Lowest and highest noise level with guidance, each in (0, 1].
            guidance_rescale: How far guided predictions are rescaled, in [0, 1].
            seed: Random seed, at least 0.
            batch_size: Number of samples per batch; by default it depends on their size.
            class_labels: For models with classes, labels from 0 or names, one or m: sample i uses
                label i mod m. By default all classes in turn. "none" is the null class.
            condition: Condition of any other model: mel spectrograms of shape (bands, frames) or
                (m, bands, frames) for a vocoder, or what the network accepts, (m, ...), such as
                :attr:`unconditional`; i mod m for sample i. By default the model's ``conditions``.
            precision: Of the network: "float32", "bf16" or "fp16".
            progress: Show a progress bar, or a line every 10 seconds where none can be drawn.
            callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row.

        Returns:
            Samples of shape (n, *data shape), float32 in [-1, 1], on the model's device. Sounds of
            a vocoder have the length of their condition.

        Raises:
            InvalidArgumentError: If an argument is invalid or does not fit the model.
            SamplingError: If the network's output is unusable.
        """
        if n < 1:
            raise InvalidArgumentError(f"`n` must be at least 1, got {n}")
        check_limit("`n`", n, MAX_SAMPLES)
        choices = {
            "num_steps": num_steps,
            "levels": levels,
            "spacing": spacing,
            "kappa": kappa,
            "method": method,
            "clip": clip,
            "guidance_scale": guidance_scale,
            "guidance_interval": guidance_interval,
            "guidance_rescale": guidance_rescale,
        }
        chosen, found = choose_plan(self.config, self.plans, plan, recipe, choices)
        stated = one_condition(condition, class_labels, self.config.data, self.null_class, n)
        with progress_bar(callback) if progress else nullcontext(callback) as report:
            batches = self.sample_batches(
                range(n),
                usable_plan(found, self, chosen),
                clip=chosen.clip,
                guidance_scale=chosen.guidance,
                seed=seed,
                batch_size=batch_size,
                condition=stated,
                precision=precision,
                callback=report,
            )
            return torch.cat([batch for _, batch in batches])

    @checked
    def sample_batches(
        self,
        samples: Sequence[int],
        plan: Plan,
        *,
        clip: str = "none",
        guidance_scale: GuidanceLike = 1.0,
        seed: int = 0,
        batch_size: int | None = None,
        condition: Condition | None = None,
        precision: str = "float32",
        callback: Callback | None = None,
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Draw the samples of some indices by a plan, batch by batch; see :meth:`sample`.

        Yields the indices of a batch and its samples.
        """
        if len(samples) < 1:
            raise InvalidArgumentError("`n` must be at least 1")
        checked = self.check_condition(condition)
        guidance = self.check_guidance(guidance_scale, checked)
        guiding = guidance.over(plan.network_level)
        evaluations = guidance.evaluations(plan.network_level)
        shape = self.sample_shape(checked)
        for first, batch in self.split(samples, batch_size, checked):
            noise = SampleNoise(seed, batch)
            chosen = self.condition_of(checked, batch)
            x = run(
                plan,
                self.noise_predictor(chosen, clip=clip, precision=precision, **guiding),
                noise.start(shape, device=self.device),
                noise=noise,
                callback=after_rows(
                    callback, first, len(samples), plan.num_rows, evaluations=evaluations
                ),
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
        self,
        condition: Tensor | None = None,
        *,
        clip: str = "none",
        precision: str = "float32",
        guidance_scale: float | ScaleAt = 1.0,
        guidance_rescale: float = 0.0,
    ) -> Network | NoisePredictor:
        """Return the network as :func:`fastdpm.run` takes it, for one batch of conditions.

        ``guidance_scale`` is a number, or a function of the noise level.
        """
        null = self.unconditional
        if guidance_scale != 1 and (condition is None or null is None):
            raise cannot_be_guided(self.config)
        return make_predictor(
            self.network,
            self.config,
            self.device,
            self.dtype,
            condition,
            null,
            {"guidance_scale": guidance_scale, "guidance_rescale": guidance_rescale},
            clip=clip,
            precision=precision,
        )

    @torch.no_grad()
    def finished(self, x: Tensor) -> Tensor:
        """Convert final states to data: decode latent states, and clip to [-1, 1]."""
        data = x if self.decoder is None else self.decoder.decode(x)
        return data.clamp(-1, 1)

    def check_condition(self, condition: Condition | None) -> Tensor | None:
        """Check conditions and return them with shape (m, ...); by default the model's own.

        Raises:
            InvalidArgumentError: If they are missing, not supported or of the wrong shape.
        """
        if condition is not None:
            return as_condition(self.config, condition, self.conditions, self.null_class)
        if self.conditions is None:
            check_no_condition_needed(self.config)
        return self.conditions

    @property
    def null_class(self) -> int | None:
        """The label that stands for "no class"; None if the model has none."""
        if self.config.data.classes is None or self.unconditional is None:
            return None
        return int(self.unconditional)

    def check_guidance(
        self, guidance_scale: GuidanceLike | None, condition: Tensor | None
    ) -> GuidanceScale:
        """Check a scale of guidance; by default that of the recommended recipe.

        Args:
            guidance_scale: The scale, or None.
            condition: Checked conditions of all samples. Where all of them stand for no condition,
                guidance has no effect and is left out.

        Raises:
            InvalidArgumentError: If it is invalid, or the model cannot be guided.
        """
        guidance = GuidanceScale.of(guidance_scale, self.config.recipe.guidance)
        return usable_guidance(self.config, guidance, self.unconditional, condition)

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
        return checked_batch(size, self.sample_shape(condition))

    def check_plan(self, plan: Plan | NoiseLevels) -> None:
        """Check that a plan or noise levels belong to this model's schedule.

        Raises:
            InvalidArgumentError: If the level of a row is not the level of its step.
        """
        check_plan(self.config.name, self.schedule, plan)
