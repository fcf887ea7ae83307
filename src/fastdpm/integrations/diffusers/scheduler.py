"""A diffusers scheduler that executes FastDPM plans in any DDPM-like pipeline.

A DDIM or DDPM scheduler of diffusers steps from t to t - T // S, whatever its next timestep is.
Here, every step goes to the level of the next timestep, so timesteps can be real-valued and
unevenly spaced. Both agree if the timesteps are T // S apart.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastdpm.core import samplers
from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.integrations.diffusers.base import (
    FastDPMSchedulerOutput,
    PlanScheduler,
    Prediction,
    Timesteps,
)
from fastdpm.models.checks import check_plan
from fastdpm.models.tuned import TunedPlan, as_plan
from fastdpm.sampling.loop import add_noise, combine
from fastdpm.sampling.noise import Noise, draw

Generator = torch.Generator | list[torch.Generator]


class FastDPMScheduler(PlanScheduler):
    """Sample a trained network in few evaluations, at real-valued steps.

    Use it in a pipeline with
    ``pipe.scheduler = FastDPMScheduler.from_config(pipe.scheduler.config, num_steps=10)``. The
    variance schedule, prediction type and clipping are those of the other scheduler. Assign it
    after building the pipeline: ``DDIMPipeline(unet, scheduler)`` converts its scheduler to a
    ``DDIMScheduler``.

    A first-order step depends only on the arguments of :meth:`step`, so steps can be taken in any
    order and repeated. Multistep methods need the previous steps, which are kept. Call
    :meth:`set_begin_index` for a chain that starts later (image to image, inpainting).

    With ``kappa=0`` and the timesteps of a ``DDIMScheduler`` (``set_timesteps(timesteps=...)``),
    both give the same samples for "leading" spacing and ``set_alpha_to_one=True``. They differ for
    "linspace" and most "trailing" timesteps, where ``DDIMScheduler`` goes to t - T // S although
    the network is next evaluated at another step. ``set_alpha_to_one=False`` ends at the level
    R(1) of the first training step, as does a plan over
    ``levels_custom(schedule, t=..., end=schedule.R(1))``. With clipping, eps is recomputed from
    the clipped data, as in ``DDPMScheduler``, and in ``DDIMScheduler`` with
    ``use_clipped_model_output=True``.

    Args:
        num_train_timesteps: T, the number of training steps.
        beta_start: The first variance.
        beta_end: The last variance.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace" or
            "exp".
        trained_betas: The T variances, instead of the four arguments above.
        prediction_type: What the network predicts: "epsilon", "v_prediction" or "sample".
        clip_sample: Clip the predicted clean data to [-clip_sample_range, clip_sample_range].
        clip_sample_range: Bound for ``clip_sample``, above 0.
        thresholding: Use dynamic thresholding instead of clipping; unsuitable for latents.
        dynamic_thresholding_ratio: Quantile for dynamic thresholding, in (0, 1].
        sample_max_value: Largest threshold, at least 1.
        num_steps: S, if :meth:`set_timesteps` is called without a number of steps.
        levels: "var", "step" or "sigma"; see :class:`fastdpm.Recipe`, also for the next arguments.
        spacing: A spacing that goes with ``levels``, such as "linear" or "trailing".
        kappa: Stochasticity of "ddim-rev", in [0, 1]: 0 is DDIM-rev, 1 is DDPM-rev.
        method: A sampler, such as "ddim-rev", "dpmpp-2m" or "unipc-3"; or one that takes all T
            steps: "standard", "standard-large" or "standard-learned".
        bounded: Apply the authors' bound on the variances of VAR.
        variances: Custom variances, clean end first, instead of ``levels``, ``spacing`` and
            ``num_steps``.
        at_steps: Custom real-valued zero-based steps, decreasing, instead of the same arguments.
        at_levels: Custom levels, increasing, instead of the same arguments.
        start: Where STEP quadratic starts, as a share of T in (0, 1]; 0.8 by default.
        plan: A plan, or a tuned plan, to execute instead of what the arguments above choose.

    Raises:
        InvalidArgumentError: If a value is unknown or out of range, two arguments contradict each
            other, or the plan was made for another schedule, or learned for other clipping.

    Source: Kong & Ping 2021, arXiv:2106.00132.
    """

    __module__ = "fastdpm.integrations.diffusers"  # where saved pipelines look for this class

    @checked
    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | None = None,
        prediction_type: str = "epsilon",
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        num_steps: int = 20,
        levels: str = "step",
        spacing: str = "linear",
        kappa: float = 0.0,
        method: str = "ddim-rev",
        bounded: bool = True,
        variances: Sequence[float] | None = None,
        at_steps: Sequence[float] | None = None,
        at_levels: Sequence[float] | None = None,
        start: float | None = None,
        plan: Plan | TunedPlan | Mapping[str, Any] | None = None,
    ) -> None:
        self._setup()
        self._own_plan = self._configured(plan)
        self._begin_index = 0
        self._noise: Noise | None = None

    def _configured(self, plan: Plan | TunedPlan | Mapping[str, Any] | None) -> Plan | None:
        """The plan of the configuration, which holds it as values for JSON."""
        if plan is None:
            return None
        if isinstance(plan, Mapping):
            text = json.dumps(dict(plan))
            plan = TunedPlan.from_json(text) if "plan" in plan else Plan.from_json(text)
        clips = {"clip_sample": "x0", "thresholding": "dynamic"}
        clip = next((value for name, value in clips.items() if self.config[name]), "none")
        if isinstance(plan, TunedPlan) and plan.clip != clip:
            raise InvalidArgumentError(
                f"`plan` was learned for clip {plan.clip}: set `clip_sample` or `thresholding`"
                " accordingly, or pass its `.plan` to use it all the same"
            )
        check_plan(type(self).__name__, self.schedule, as_plan(plan))
        self.register_to_config(plan=json.loads(plan.to_json()))  # type: ignore[no-untyped-call]
        return as_plan(plan)

    def _plan_for(self, num_steps: int | None, timesteps: Timesteps | None) -> Plan:
        own = self._own_plan
        if own is None:
            return super()._plan_for(num_steps, timesteps)
        if timesteps is not None:
            raise InvalidArgumentError(
                "`timesteps` must not be passed to a scheduler that has a plan of its own"
            )
        if num_steps not in (None, own.num_rows):
            raise InvalidArgumentError(
                f"this scheduler has a plan of {own.num_rows} rows: pass"
                f" num_inference_steps={own.num_rows}, got {num_steps}"
            )
        return own

    def _set_plan(self, plan: Plan, *, custom: bool) -> None:
        if plan.level[-1] < plan.level[0]:
            raise InvalidArgumentError(
                f"{plan.label} leads from data to noise: use it with FastDPMInverseScheduler"
            )
        if plan.past is not None:
            raise InvalidArgumentError(
                f"{plan.label} needs states before its first row, which pipelines do not have:"
                " execute it with fastdpm.run"
            )
        self.plan = self._full_plan = plan
        self._custom_plan = custom or plan is self._own_plan
        self._begin_index = self._following = 0
        self._past: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def begin_index(self) -> int:
        """Index of the timestep at which the chain starts."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the chain at a later timestep, as image-to-image pipelines do.

        First-order steps do not change. Multistep plans are compiled again from there.

        Args:
            begin_index: Index into ``timesteps``, from 0.

        Raises:
            InvalidArgumentError: If the index is out of range, or the plan is a custom multistep
                plan, whose row needs the rows before it.
        """
        self._current_plan()
        full = self._full_plan
        if not 0 <= begin_index < full.num_rows:
            raise InvalidArgumentError(
                f"`begin_index` must be in [0, {full.num_rows - 1}] for {full.num_rows} rows,"
                f" got {begin_index}"
            )
        if begin_index and _history(full) > 1:
            if self._custom_plan:
                raise InvalidArgumentError(
                    f"row {begin_index} of this plan needs the rows before it: pass a plan that"
                    " starts there to set_timesteps"
                )
            self.plan = self._tail(full, begin_index)
        else:
            self.plan = full
        self._begin_index = begin_index
        self._following = begin_index if self.plan is full else 0
        self._past = {}

    def _tail(self, full: Plan, row: int) -> Plan:
        """The plan of the configuration's method from a row on."""
        sampler = samplers.find(self.config["method"])
        if sampler.one_step_each:
            return sampler.over(NoiseLevels(full.level, full.t)[row:], self.schedule)
        starts = np.flatnonzero(~full.a[:, 1:].any(axis=1))  # the other rows end a step
        if row not in starts:
            raise InvalidArgumentError(
                f"`begin_index` {row} is the second evaluation of a step of {full.label}: begin at"
                f" {row - 1} or {row + 1}"
            )
        rest = starts[starts >= row]
        levels = NoiseLevels(np.append(full.level[rest], full.level[-1]), full.t[rest])
        return sampler.over(levels, self.schedule, num_evaluations=full.num_rows - row)

    def use_noise(self, noise: Noise | None) -> None:
        """Take the noise of every step from ``noise(row, x)`` instead of a generator.

        With a :class:`fastdpm.SampleNoise`, a pipeline gives the same samples as
        :func:`fastdpm.run`.

        Args:
            noise: Called for steps that add noise. ``row`` counts from 0 at the start of the
                chain. None uses generators again.
        """
        self._noise = noise

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generator | None = None,
        eta: float | None = None,
        use_clipped_model_output: bool | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
    ) -> FastDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take one step of the plan.

        Args:
            model_output: Output of the network, shape (batch, channels, ...). With twice the
                channels, the second half is a learned variance; it is ignored unless the plan
                uses it.
            timestep: One of ``timesteps``.
            sample: The state at which the network was evaluated. Half precision is converted to
                float32 for the computation.
            generator: Generator of the step's noise, or a list with one per sample.
            eta: A positive value replaces kappa in this step of "ddim-rev". 0 and None keep kappa,
                because pipelines pass 0 by default.
            use_clipped_model_output: None and True recompute eps from clipped data. False uses the
                network's eps with it, as ``DDIMScheduler`` does by default.
            variance_noise: The step's noise, shaped like ``sample``, instead of a generator.
            return_dict: Return a :class:`FastDPMSchedulerOutput` instead of a tuple.

        Returns:
            The state at the next level and the predicted clean data, with the dtype of ``sample``.

        Raises:
            InvalidArgumentError: If ``timestep`` is not in ``timesteps``, previous steps that are
                needed were not taken, or an argument does not fit the plan.
            SamplingError: If the model output has the wrong shape or is not finite.
        """
        row = self._row(timestep)
        plan, i = self._coefficients(row, eta)
        prediction = self._predict(model_output, row, sample, float(plan.network_level[i]))
        x, eps = prediction.x, prediction.eps
        if use_clipped_model_output is False:
            x, eps = self._unclipped(plan, i, prediction)
        new = self._advanced(plan, i, x, eps)
        if plan.c[i] > 0:
            z = self._drawn(row, prediction.x, generator, variance_noise)
            add_noise(new, z, plan, i, prediction.learned)
        self._following = row + 1
        result = (new.to(sample.dtype), prediction.x0.to(sample.dtype))
        return FastDPMSchedulerOutput(*result) if return_dict else result

    def _coefficients(self, row: int, eta: float | None) -> tuple[Plan, int]:
        """The plan, and the row in it, with the coefficients of a step."""
        plan = self._current_plan()
        if not eta:
            return plan, row
        sampler = samplers.find(self.config["method"])
        if self._custom_plan or not sampler.takes_kappa:
            raise InvalidArgumentError(
                f"`eta` can only be set for a method with kappa, got eta={eta:g} with"
                f" {plan.label}: leave it at 0"
            )
        if not 0 <= eta <= 1:
            raise InvalidArgumentError(f"`eta` must be in [0, 1], got {eta:g}")
        levels = NoiseLevels(plan.level, plan.t)[row : row + 1]
        return sampler.over(levels, self.schedule, eta), 0

    def _advanced(self, plan: Plan, row: int, x: Tensor, eps: Tensor) -> Tensor:
        """The next state without its noise."""
        orders = [np.flatnonzero(table[row]).max(initial=0) for table in (plan.a, plan.b)]
        past = [self._recall(row, back, x) for back in range(1, int(max(orders)) + 1)]
        states = [x, *(state for state, _ in past)][: plan.a.shape[1]]
        predictions = [eps, *(prediction for _, prediction in past)][: plan.b.shape[1]]
        new = combine(plan, row, states, predictions)
        if _history(plan) > 1:
            # Keep what later rows need. Rows after a repeated one are no longer valid.
            needed = range(row - _history(plan) + 1, row)
            self._past = {r: pair for r, pair in self._past.items() if r in needed}
            self._past[row] = (x.clone(), eps.clone())
        return new

    def _unclipped(self, plan: Plan, row: int, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """The state that combines clipped data with the network's eps, and that eps."""
        if _history(plan) > 1:
            raise InvalidArgumentError(
                "`use_clipped_model_output` cannot be False for a multistep plan, which needs"
                " consistent predictions: leave it unset"
            )
        level = float(plan.network_level[row])
        sigma = math.sqrt((1 - level) * (1 + level))
        return level * prediction.x0 + sigma * prediction.raw_eps, prediction.raw_eps

    def _recall(self, row: int, back: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """State and eps of the row ``back`` rows before ``row``."""
        past = self._past.get(row - back)
        if past is None or past[0].shape != x.shape:
            raise InvalidArgumentError(
                f"row {row} of this multistep plan needs row {row - back} of the same batch: take"
                " the timesteps in order, or call set_begin_index to start the chain here"
            )
        return past

    def _drawn(
        self, row: int, x: Tensor, generator: Generator | None, variance_noise: Tensor | None
    ) -> Tensor:
        """The noise of a step."""
        if variance_noise is not None:
            if generator is not None:
                raise InvalidArgumentError("pass only one of `generator` and `variance_noise`")
            if variance_noise.shape != x.shape:
                raise InvalidArgumentError(
                    f"row {row}: `variance_noise` must have the shape of `sample`,"
                    f" {tuple(x.shape)}, got {tuple(variance_noise.shape)}"
                )
            return variance_noise.to(x.device, x.dtype)
        if self._noise is not None:
            first = self._begin_index if self.plan is self._full_plan else 0
            return draw(self._noise, row - first, x)
        noise: Tensor = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return noise


def _history(plan: Plan) -> int:
    """Number of rows that a row uses, including itself."""
    return int(max(plan.a.shape[1], plan.b.shape[1]))
