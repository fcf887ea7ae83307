"""The base class of the schedulers: configuration, timesteps, adding noise, reading predictions.

Paper -> code: R(t + 1) -> ``PlanScheduler.add_noise`` (timesteps are zero-based),
eps -> ``Prediction.eps``. Coefficients are float64 and are cast once, by torch.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3. The interface is that of diffusers.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.choices import complete_choice
from fastdpm.core.errors import InvalidArgumentError, arguments_named
from fastdpm.core.levels import levels_all
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import Array, VarianceSchedule
from fastdpm.data.tensors import device_of
from fastdpm.models.formats.diffusers_config import clip_of, complete, prediction_of, schedule_of
from fastdpm.sampling.network import Network, evaluate_network, steps_like
from fastdpm.sampling.prediction import ClipX0, DynamicThreshold, as_eps

Timesteps = Tensor | Array | Sequence[float]

_log = logging.getLogger(__name__)
_INCOMPATIBLE = ("EDMEulerScheduler", "DPMSolverSDEScheduler")
_HALF = (torch.float16, torch.bfloat16)
_DEFAULTS = "_use_default_values"


@dataclass
class FastDPMSchedulerOutput(BaseOutput):
    """The output of a scheduler's ``step``.

    Attributes:
        prev_sample: The state at the next level, shape (batch, ...).
        pred_original_sample: The predicted clean data, shape (batch, ...), clipped if clipping is
            enabled.
    """

    prev_sample: Tensor
    pred_original_sample: Tensor


@dataclass(frozen=True)
class Prediction:
    """A model output, converted to noise and clean data.

    Attributes:
        x: The state, float32 or float64, shape (batch, ...).
        eps: The predicted noise, consistent with ``x0``.
        x0: The predicted clean data, clipped if clipping is enabled.
        raw_eps: The predicted noise before clipping.
        learned: The learned variance in the model output, or None.
    """

    x: Tensor
    eps: Tensor
    x0: Tensor
    raw_eps: Tensor
    learned: Tensor | None


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Base class of diffusers schedulers that execute a plan.

    Attributes:
        schedule: The variance schedule, extended to real-valued steps.
        plan: The plan to execute. It is None before :meth:`set_timesteps`, when a scheduler takes
            all T training steps, as in diffusers.
        timesteps: Real-valued zero-based steps at which the network is evaluated, float32, shape
            (plan.num_rows,).
        num_inference_steps: Number of rows of the plan; None before :meth:`set_timesteps`.
        init_noise_sigma: Standard deviation of the initial noise, 1.
        betas: The T variances, float32, shape (T,).
        alphas_cumprod: The T squared levels, float32, shape (T,).
    """

    _compatibles = [e.name for e in KarrasDiffusionSchedulers if e.name not in _INCOMPATIBLE]  # noqa: RUF012
    order = 1
    _descending = True

    def _setup(self) -> None:
        """Initialize from the registered configuration; called at the end of ``__init__``."""
        if _DEFAULTS in self.config:
            # Otherwise a conversion would replace default values by those of the other class.
            self.register_to_config(**{_DEFAULTS: []})  # type: ignore[no-untyped-call]
        with arguments_named(num_train_steps="`num_train_timesteps`", betas="`trained_betas`"):
            self.schedule = VarianceSchedule.from_config(schedule_of(self.config))
        prediction_of(self.config)
        self._recipe = self._recipe_of_config()
        self.betas = torch.tensor(self.schedule.betas, dtype=torch.float32, device="cpu")
        self.alphas_cumprod = torch.tensor(
            self.schedule.alpha_bar, dtype=torch.float32, device="cpu"
        )
        self.init_noise_sigma = 1.0
        self.plan: Plan | None = None
        self._following = 0  # the row that follows the last one that was taken
        self.num_inference_steps: int | None = None
        steps = torch.arange(self.schedule.num_train_steps, dtype=torch.float32, device="cpu")
        self.timesteps = steps.flip(0) if self._descending else steps

    def _recipe_of_config(self) -> Recipe:
        """The recipe in the registered configuration."""
        custom = {
            name: None if self.config[name] is None else tuple(map(float, self.config[name]))
            for name in ("variances", "at_steps", "at_levels")
        }
        names = ("num_steps", "kappa", "method", "bounded", "start")
        chosen = {name: self.config[name] for name in names if name in self.config}
        default = Recipe()
        stated = {
            name: self.config[name]
            for name in ("levels", "spacing")
            if self.config[name] != getattr(default, name)
        }
        chosen |= complete_choice(default.levels, default.spacing, stated)
        return Recipe(**chosen).replace(**custom)

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Build a scheduler from the configuration of any DDPM-like scheduler.

        Variances, prediction type and clipping are those of the other scheduler, including the
        defaults of its class. Its other settings are kept for a conversion back.

        Args:
            config: ``scheduler.config`` of another scheduler, or the content of its file.
            return_unused_kwargs: Also return the unused settings.
            kwargs: Arguments that replace values of ``config``.

        Raises:
            InvalidArgumentError: If the scheduler is not DDPM-like (flow matching, EDM, zero
                terminal SNR ...), or an argument is unknown.
        """
        own = set(inspect.signature(cls.__init__).parameters) - {"self"}
        unknown = sorted(name for name in kwargs if name not in own and name[0] != "_")
        if unknown and not return_unused_kwargs:
            raise InvalidArgumentError(
                f"{cls.__name__} has no argument {', '.join(unknown)}: it takes"
                f" {', '.join(sorted(own))}"
            )
        if isinstance(config, SchedulerMixin):
            raise InvalidArgumentError(
                f"`config` is a {type(config).__name__}: pass its configuration, scheduler.config"
            )
        in_memory = False
        if isinstance(config, Mapping):
            defaults = [name for name in config.get(_DEFAULTS, ()) if name not in own]
            in_memory = _DEFAULTS in config
            config = {**config, **complete({**config, **kwargs}), _DEFAULTS: defaults}
        result: Any = super().from_config(config, return_unused_kwargs=True, **kwargs)
        if in_memory:
            result[0].register_to_config(**{_DEFAULTS: []})  # as for a scheduler built in memory
        return result if return_unused_kwargs else result[0]

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

    @checked
    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Timesteps | None = None,
        plan: Plan | None = None,
    ) -> None:
        """Choose the plan to execute.

        Pass at most one of ``num_inference_steps``, ``timesteps`` and ``plan``.

        Args:
            num_inference_steps: S; by default ``num_steps`` of the configuration. Repeated steps
                of STEP quadratic are merged, so that ``timesteps`` can be shorter than S. If S
                cannot be chosen (custom levels, or the standard samplers), it must equal their
                number of steps.
            device: Device of ``timesteps``.
            timesteps: Real-valued zero-based steps in (-1, T - 1], in the order of execution.
            plan: Any plan, including one that starts below full noise or ends above clean data.

        Raises:
            InvalidArgumentError: If more than one of them is passed, or a value is out of range.
        """
        if sum(choice is not None for choice in (num_inference_steps, timesteps, plan)) > 1:
            raise InvalidArgumentError(
                "pass only one of `num_inference_steps`, `timesteps` and `plan`"
            )
        custom = plan is not None
        if plan is None:
            with arguments_named(num_steps="`num_inference_steps`", t="`timesteps`"):
                plan = self._plan_for(num_inference_steps, timesteps)
        self._set_plan(plan, custom=custom)
        for note in plan.notes:
            _log.warning("%s: %s", plan.label, note)
        self.timesteps = torch.tensor(
            plan.t, dtype=torch.float32, device=device_of("cpu" if device is None else device)
        )
        self.num_inference_steps = plan.num_rows

    def _set_plan(self, plan: Plan, *, custom: bool) -> None:
        """Set the plan to execute; ``custom`` if the user passed it."""
        self.plan = plan

    def _compile(self, recipe: Recipe) -> Plan:
        """The plan of a recipe."""
        return recipe.compile(self.schedule)

    def _plan_for(self, num_steps: int | None, timesteps: Timesteps | None) -> Plan:
        """The plan of the configuration, with another number of steps or other timesteps."""
        recipe = self._recipe
        if timesteps is not None:
            steps = _numbers(timesteps) if self._descending else _numbers(timesteps)[::-1]
            if len(steps) == 0:
                raise InvalidArgumentError("`timesteps` must hold at least one step, got none")
            if not self._descending and any(b >= a for a, b in pairwise(steps)):
                raise InvalidArgumentError(
                    "`timesteps` must rise strictly from data to noise, got"
                    f" {', '.join(f'{step:g}' for step in steps[::-1][:8])}"
                )
            return self._compile(recipe.replace(at_steps=tuple(steps)))
        fixed = recipe.custom
        if num_steps is None or (fixed is None and not recipe.takes_all_steps):
            return self._compile(recipe.replace(num_steps=num_steps))
        plan = self._compile(recipe)
        if num_steps != plan.num_rows:
            raise InvalidArgumentError(
                f"this scheduler uses {recipe.describe()}, which has {plan.num_rows} steps: pass"
                f" num_inference_steps={plan.num_rows}, got {num_steps}"
            )
        return plan

    def scale_model_input(self, sample: Tensor, timestep: object = None) -> Tensor:
        """Return ``sample`` unchanged: states already have the scale that the network expects."""
        return sample

    def _row(self, timestep: object) -> int:
        """The row of the plan for a timestep, which may have been rounded to another dtype."""
        plan = self._current_plan()
        values = torch.as_tensor(timestep, device="cpu").detach().flatten()
        if values.numel() != 1 and not (values.numel() and (values == values[0]).all()):
            raise InvalidArgumentError(
                f"`timestep` must be one value for the whole batch, got {values.numel()} values"
            )
        dtype = values.dtype if values.dtype in _HALF else torch.float32
        step = float(values[0].to(dtype))
        distance = (torch.tensor(plan.t, device="cpu").to(dtype).double() - step).abs()
        rows = (distance == distance.min()).nonzero().flatten().tolist()
        tolerance = 0.0 if dtype in _HALF else 4e-7 * max(1.0, abs(step))
        if not float(distance.min()) <= tolerance:
            raise InvalidArgumentError(
                f"`timestep` must be one of the {plan.num_rows} in scheduler.timesteps"
                f" ({plan.t[0]:g} ... {plan.t[-1]:g}), got {step:g}: pass them unchanged"
            )
        rounded = np.unique(plan.t[rows]).size > 1
        if self._following in rows and not rounded:
            return self._following  # a step that the plan takes more than once
        if len(rows) > 1:
            advice = "pass scheduler.timesteps in float32"
            advice = advice if rounded else "take the timesteps in order"
            raise InvalidArgumentError(
                f"timestep {step:g} belongs to rows {' and '.join(map(str, rows))} in {dtype}:"
                f" {advice}"
            )
        return int(rows[0])

    def _current_plan(self) -> Plan:
        """The plan to execute; all training steps if :meth:`set_timesteps` was not called."""
        if self.plan is None:
            recipe = self._recipe
            if not recipe.takes_all_steps:
                recipe = recipe.replace(at_steps=tuple(levels_all(self.schedule).t))
            plan = self._compile(recipe)
            self._set_plan(plan, custom=False)
            return plan
        return self.plan

    def _predict(self, output: Tensor, row: int, sample: Tensor, level: float) -> Prediction:
        """Convert a model output for ``sample`` to noise and clean data at ``level`` below 1."""
        plan = self._current_plan()
        x = sample.float() if sample.dtype in _HALF else sample
        network = as_eps(lambda x, t: output, prediction_of(self.config))
        where = f"row {row} of {plan.num_rows}"
        raw, learned = evaluate_network(network, x, float(plan.t[row]), level, where)
        clip = self._clip(lambda x, t: raw)
        sigma = math.sqrt((1 - level) * (1 + level))
        x0 = (x - sigma * raw) / level
        if clip is None:
            return Prediction(x, raw, x0, raw, learned)
        eps = clip(x, steps_like(x, plan.t[row]), level)
        return Prediction(x, eps, clip.change(x0), raw, learned)

    def _clip(self, network: Network) -> ClipX0 | DynamicThreshold | None:
        """The clipping of the configuration, read at every step: pipelines change it later."""
        kind = clip_of(self.config)
        if kind == "dynamic":
            ratio = self.config["dynamic_thresholding_ratio"]
            return DynamicThreshold(network, ratio, self.config["sample_max_value"])
        return ClipX0(network, self.config["clip_sample_range"]) if kind == "x0" else None

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Add noise to clean data: r x0 + sqrt(1 - r^2) noise, where r = R(t + 1).

        Args:
            original_samples: Clean data, shape (batch, ...).
            noise: Standard normal noise of the same shape.
            timesteps: Zero-based steps in [-1, T - 1], real-valued or integer, shape (batch,),
                (1,) or ().

        Returns:
            The noisy data, with the dtype of ``original_samples``.

        Raises:
            InvalidArgumentError: If a timestep is out of range.
        """
        r, sigma = self._scales(timesteps, original_samples)
        return r * original_samples + sigma * noise.to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction: r noise - sqrt(1 - r^2) x0, where r = R(t + 1).

        Args:
            sample: Clean data x0, shape (batch, ...).
            noise: See :meth:`add_noise`.
            timesteps: See :meth:`add_noise`.

        Raises:
            InvalidArgumentError: If a timestep is out of range.

        Source: Salimans & Ho 2022, arXiv:2202.00512.
        """
        r, sigma = self._scales(timesteps, sample)
        return r * noise.to(sample.dtype) - sigma * sample

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Scales of signal and noise at timesteps, shaped to multiply ``like``."""
        level = self.schedule.R(_numbers(timesteps) + 1)
        shape = (-1, *[1] * (like.ndim - 1))
        tables = (level, np.sqrt((1 - level) * (1 + level)))
        r, sigma = (
            torch.tensor(v, dtype=like.dtype, device="cpu").to(like.device).reshape(shape)
            for v in tables
        )
        return r, sigma


def _numbers(timesteps: Timesteps) -> Array:
    """Timesteps as a float64 array, shape (steps,)."""
    if isinstance(timesteps, Tensor):
        timesteps = timesteps.detach().cpu().double().numpy()
    try:
        return np.asarray(timesteps, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"`timesteps` must be numbers, got {timesteps!r}") from None
