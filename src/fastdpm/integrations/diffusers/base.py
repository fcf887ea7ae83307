"""What FastDPM's schedulers share: configuration, the table of steps, noising, predictions.

Paper -> code: R(t + 1) -> ``PlanScheduler.add_noise`` (steps are zero-based here, as networks
count), eps -> ``Prediction.eps``. Coefficients stay in float64 and are cast once, by torch.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3; the interface is that of diffusers.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import levels_all
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.models.formats.diffusers_config import clip_of, complete, prediction_of, schedule_of
from fastdpm.sampling.network import Network, evaluate_network, steps_like
from fastdpm.sampling.prediction import ClipX0, DynamicThreshold, as_eps

Timesteps = Tensor | Array | Sequence[float]

_log = logging.getLogger(__name__)
_NOT_DDPM = ("EDMEulerScheduler", "DPMSolverSDEScheduler")
_HALF = (torch.float16, torch.bfloat16)
_DEFAULTS = "_use_default_values"


@dataclass
class FastDPMSchedulerOutput(BaseOutput):
    """What a step returns.

    Attributes:
        prev_sample: The state at the row's next level, shape (batch, ...).
        pred_original_sample: The clean data that the prediction implies, clipped if that is on.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


@dataclass(frozen=True)
class Prediction:
    """What a network's answer amounts to at its row.

    Attributes:
        x: The state it was asked for, float32 or float64.
        eps: The noise in it that the row is computed with, consistent with ``x0``.
        x0: The clean data in it, clipped if clipping is on.
        raw_eps: The noise before clipping.
        learned: The learned variance behind the prediction, if there is one.
    """

    x: Tensor
    eps: Tensor
    x0: Tensor
    raw_eps: Tensor
    learned: Tensor | None


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """A scheduler of diffusers that looks its steps up in a plan.

    Attributes:
        schedule: The variances, continued to real-valued steps.
        plan: What :meth:`set_timesteps` compiled; None before, when all T training steps are
            taken, as every scheduler of diffusers does.
        timesteps: What the network is told, zero-based, float32, shape (rows,).
        num_inference_steps: Rows of the plan; None before :meth:`set_timesteps`.
        init_noise_sigma: Scale of the first state, 1.
        betas: The T variances, float32.
        alphas_cumprod: The T squared levels, float32.
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers if e.name not in _NOT_DDPM]  # noqa: RUF012
    order = 1
    _falling = True

    def _start(self) -> None:
        """Set up what the registered configuration says; for the end of ``__init__``."""
        if _DEFAULTS in self.config:
            # Else a conversion would drop what was left unsaid here and take the other class's.
            self.register_to_config(**{_DEFAULTS: []})  # type: ignore[no-untyped-call]
        self.schedule = VarianceSchedule.from_config(schedule_of(self.config))
        prediction_of(self.config)
        self._recipe = self._recipe_of_config()
        self.betas = torch.tensor(self.schedule.betas, dtype=torch.float32)
        self.alphas_cumprod = torch.tensor(self.schedule.alpha_bar, dtype=torch.float32)
        self.init_noise_sigma = 1.0
        self.plan: Plan | None = None
        self.num_inference_steps: int | None = None
        steps = torch.arange(self.schedule.num_train_steps, dtype=torch.float32)
        self.timesteps = steps.flip(0) if self._falling else steps

    def _recipe_of_config(self) -> Recipe:
        by_hand = {
            name: None if self.config[name] is None else tuple(map(float, self.config[name]))
            for name in ("variances", "at_steps")
        }
        names = ("num_steps", "levels", "spacing", "kappa", "method", "bounded")
        chosen = {name: self.config[name] for name in names if name in self.config}
        return Recipe(**chosen).replace(**by_hand)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Build from the configuration of any DDPM-like scheduler.

        Variances, prediction and clipping are taken over as the other scheduler has them, also
        where it never had to state them; everything else is kept for a conversion back.

        Args:
            config: ``scheduler.config`` of another scheduler, or what its file holds.
            return_unused_kwargs: Also return what was not used.
            kwargs: Put in place of what ``config`` says.

        Raises:
            InvalidArgumentError: If it is no DDPM-like scheduler (flow matching, EDM, zero
                terminal SNR ...), or an argument is unknown.
        """
        own = set(inspect.signature(cls.__init__).parameters) - {"self"}
        unknown = sorted(name for name in kwargs if name not in own and name[0] != "_")
        if unknown and not return_unused_kwargs:
            raise InvalidArgumentError(
                f"{cls.__name__} does not know {', '.join(unknown)}: it takes"
                f" {', '.join(sorted(own))}"
            )
        in_memory = False
        if isinstance(config, Mapping):
            unsaid = [name for name in config.get(_DEFAULTS, ()) if name not in own]
            in_memory = _DEFAULTS in config
            config = {**config, **complete({**config, **kwargs}), _DEFAULTS: unsaid}
        made: Any = super().from_config(config, return_unused_kwargs=True, **kwargs)
        if in_memory:
            made[0].register_to_config(**{_DEFAULTS: []})  # as one that was built in memory has
        return made if return_unused_kwargs else made[0]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "schedule"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.schedule = VarianceSchedule.from_config(schedule_of(self.config))

    @classmethod
    def _get_compatibles(cls) -> list[type[Any]]:
        return [*super()._get_compatibles(), *PlanScheduler.__subclasses__()]

    def __len__(self) -> int:
        return self.schedule.num_train_steps

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Timesteps | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Compile the plan to sample with; at most one of the three ways to choose it is given.

        Args:
            num_inference_steps: S; that of the configuration if nothing is given. Steps that STEP
                quadratic repeats are merged, so that ``timesteps`` can be shorter than S. Where
                the levels are no choice of S (by hand, or the standard samplers), it must be
                their number.
            device: Where ``timesteps`` go.
            timesteps: Real-valued zero-based steps in (-1, T - 1] in the order they are taken.
            plan: Any plan, also one that starts below full noise or ends above clean data.

        Raises:
            InvalidArgumentError: If more than one is given, or a value is out of range.
        """
        if sum(given is not None for given in (num_inference_steps, timesteps, plan)) > 1:
            raise InvalidArgumentError(
                "give one of num_inference_steps, timesteps and plan, not several"
            )
        given = plan is not None
        if plan is None:
            plan = self._compiled(num_inference_steps, timesteps)
        self._use(plan, given)
        for note in plan.notes:
            _log.warning("%s: %s", plan.label, note)
        self.timesteps = torch.tensor(plan.t, dtype=torch.float32, device=device)
        self.num_inference_steps = plan.num_rows

    def _use(self, plan: Plan, given: bool) -> None:
        """Take a plan that was compiled here, or given as it is."""
        self.plan = plan

    def _compile(self, recipe: Recipe) -> Plan:
        return recipe.compile(self.schedule)

    def _compiled(self, num_steps: int | None, timesteps: Timesteps | None) -> Plan:
        recipe = self._recipe
        if timesteps is not None:
            steps = _numbers(timesteps) if self._falling else _numbers(timesteps)[::-1]
            if len(steps) == 0:
                raise InvalidArgumentError("timesteps must be at least one step, got none")
            return self._compile(recipe.replace(at_steps=tuple(steps)))
        fixed = recipe.variances or recipe.at_steps
        if num_steps is None or (fixed is None and not recipe.takes_all_steps):
            return self._compile(recipe.replace(num_steps=num_steps))
        plan = self._compile(recipe)
        if num_steps != plan.num_rows:
            raise InvalidArgumentError(
                f"this scheduler takes {recipe.describe()}, which are {plan.num_rows} steps: ask"
                f" for num_inference_steps={plan.num_rows}, got {num_steps}"
            )
        return plan

    def scale_model_input(self, sample: Tensor, timestep: object = None) -> Tensor:
        """The sample as it is: states of FastDPM have the scale that the network expects."""
        return sample

    def _row(self, timestep: object) -> int:
        """The row of the plan whose step was told, whatever type it was rounded to on its way."""
        plan = self._planned()
        told = torch.as_tensor(timestep).detach().flatten().cpu()
        if told.numel() != 1 and not (told.numel() and (told == told[0]).all()):
            raise InvalidArgumentError(
                f"a step is taken at one timestep, got {told.numel()} different ones"
            )
        dtype = told.dtype if told.dtype in _HALF else torch.float32
        asked = float(told[0].to(dtype))
        off = (torch.tensor(plan.t).to(dtype).double() - asked).abs()
        rows = (off == off.min()).nonzero().flatten().tolist()
        slack = 0.0 if dtype in _HALF else 4e-7 * max(1.0, abs(asked))
        if not float(off.min()) <= slack:
            raise InvalidArgumentError(
                f"timestep {asked:g} is none of this plan's {plan.num_rows} ({plan.t[0]:g} ..."
                f" {plan.t[-1]:g}): hand over scheduler.timesteps as they are"
            )
        if len(rows) > 1:
            raise InvalidArgumentError(
                f"timestep {asked:g} is that of rows {' and '.join(map(str, rows))} in {dtype}:"
                " hand over scheduler.timesteps as they are, in float32"
            )
        return int(rows[0])

    def _planned(self) -> Plan:
        """The plan, compiled over all training steps if none was asked for."""
        if self.plan is None:
            recipe = self._recipe
            if not recipe.takes_all_steps:
                recipe = recipe.replace(at_steps=tuple(levels_all(self.schedule).t))
            plan = self._compile(recipe)
            self._use(plan, given=False)
            return plan
        return self.plan

    def _predict(self, output: Tensor, row: int, sample: Tensor, level: float) -> Prediction:
        """What the network's ``output`` for ``sample`` says, read at a level below 1."""
        plan = self._planned()
        x = sample.float() if sample.dtype in _HALF else sample
        plain = as_eps(lambda x, t: output, prediction_of(self.config))
        where = f"row {row} of {plan.num_rows}"
        raw, learned = evaluate_network(plain, x, float(plan.t[row]), level, where)
        clip = self._clip(lambda x, t: raw)
        sigma = math.sqrt((1 - level) * (1 + level))
        x0 = (x - sigma * raw) / level
        if clip is None:
            return Prediction(x, raw, x0, raw, learned)
        eps = clip(x, steps_like(x, plan.t[row]), level)
        return Prediction(x, eps, clip.change(x0), raw, learned)

    def _clip(self, network: Network) -> ClipX0 | DynamicThreshold | None:
        """The clipping that the configuration asks for now; pipelines change it after building."""
        kind = clip_of(self.config)
        if kind == "dynamic":
            ratio = self.config["dynamic_thresholding_ratio"]
            return DynamicThreshold(network, ratio, self.config["sample_max_value"])
        return ClipX0(network, self.config["clip_sample_range"]) if kind == "x0" else None

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noise clean data to real-valued steps: r x0 + sqrt(1 - r^2) noise with r = R(t + 1).

        Args:
            original_samples: Shape (batch, ...).
            noise: Standard normal, of the same shape.
            timesteps: Zero-based, in [-1, T - 1], real or whole, shape (batch,), (1,) or ().

        Returns:
            The noisy data, in the type of ``original_samples``.

        Raises:
            InvalidArgumentError: If a step is out of range.
        """
        r, sigma = self._scales(timesteps, original_samples)
        return r * original_samples + sigma * noise.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction, r noise - sqrt(1 - r^2) x0; arguments as in add_noise.

        Raises:
            InvalidArgumentError: If a step is out of range.

        Source: Salimans & Ho 2022, arXiv:2202.00512.
        """
        r, sigma = self._scales(timesteps, sample)
        return r * noise.to(sample.dtype) - sigma * sample

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        level = self.schedule.R(_numbers(timesteps) + 1)
        shape = (-1, *[1] * (like.ndim - 1))
        tables = (level, np.sqrt((1 - level) * (1 + level)))
        r, sigma = (torch.tensor(v).to(like.device, like.dtype).reshape(shape) for v in tables)
        return r, sigma


def _numbers(timesteps: Timesteps) -> Array:
    """Steps as float64, shape (steps,), wherever they come from."""
    if isinstance(timesteps, Tensor):
        timesteps = timesteps.detach().cpu().double().numpy()
    try:
        return np.asarray(timesteps, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"timesteps must be numbers, got {timesteps!r}") from None
