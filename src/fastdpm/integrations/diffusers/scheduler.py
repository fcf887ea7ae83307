"""FastDPM as a scheduler of diffusers: any plan of the core in any DDPM-like pipeline.

A DDIM or DDPM scheduler of diffusers steps from t to t - T // S whatever its next timestep is;
here every row goes to the level of the next one, which is what makes real-valued and uneven steps
possible. Both agree where the timesteps are T // S apart.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from fastdpm.core import samplers
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.integrations.diffusers.base import (
    FastDPMSchedulerOutput,
    PlanScheduler,
    Prediction,
)
from fastdpm.sampling.run import Noise, add_noise, combine

Generator = torch.Generator | list[torch.Generator]


class FastDPMScheduler(PlanScheduler):
    """Sample a trained network in few evaluations, at real-valued steps.

    ``pipe.scheduler = FastDPMScheduler.from_config(pipe.scheduler.config, num_steps=10)`` is all
    that a pipeline needs. (``DDIMPipeline(unet, scheduler)`` makes a ``DDIMScheduler`` of what it
    is given: assign the scheduler afterwards.) Variances, prediction and clipping are those of
    the scheduler it is made from; levels, spacing and kappa are FastDPM's.

    A row of first order depends on the arguments of :meth:`step` alone: rows may be asked in any
    order and again. Multistep rows need the rows before them, which are kept; a chain that starts
    later (image to image, inpainting) says so by :meth:`set_begin_index`.

    With kappa = 0 and the timesteps of ``DDIMScheduler`` (``set_timesteps(timesteps=...)``) both
    give the same samples for leading spacing and ``set_alpha_to_one=True``. They do not for
    linspace and most trailing timesteps: ``DDIMScheduler`` goes to t - T // S even where the
    network is asked elsewhere next. ``set_alpha_to_one=False`` ends at the level R(1) of the first
    step: a plan over ``levels_custom(schedule, t=..., end=schedule.R(1))`` does so, too.
    Clipped predictions stay consistent here: eps is recomputed from the clipped data, as by
    ``DDPMScheduler`` and by ``use_clipped_model_output=True`` of ``DDIMScheduler``.

    Args:
        num_train_timesteps: T, the number of steps the network was trained with.
        beta_start: The first variance.
        beta_end: The last one.
        beta_schedule: "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp".
        trained_betas: The T variances themselves, in place of the four above.
        prediction_type: What the network returns: "epsilon", "v_prediction" or "sample".
        clip_sample: Clip the implied clean data to [-clip_sample_range, clip_sample_range].
        clip_sample_range: Where to clip.
        thresholding: Threshold it dynamically instead; not for latents.
        dynamic_thresholding_ratio: The quantile for that, in (0, 1].
        sample_max_value: The largest value to threshold at.
        num_steps: S where :meth:`set_timesteps` is not told.
        levels: "var" or "step".
        spacing: "linear" or "quadratic".
        kappa: Stochasticity in [0, 1] of "ddim-rev"; 0 is DDIM-rev, 1 is DDPM-rev.
        method: "ddim-rev", "dpmpp-2m", "dpmpp-3m", "multistep-3", or one that takes all
            T steps: "standard", "standard-large" or "standard-learned".
        bounded: Keep the authors' bound on VAR's variances.
        variances: Variances by hand, clean end first, in place of levels, spacing and num_steps.
        at_steps: Zero-based real-valued steps by hand, falling; likewise.

    Raises:
        InvalidArgumentError: If a choice does not exist, or two of them contradict each other.

    Source: Kong & Ping 2021, arXiv:2106.00132.
    """

    __module__ = "fastdpm.integrations.diffusers"  # where a saved pipeline looks for it

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
    ) -> None:
        self._start()
        self._begin_index = 0
        self._noise: Noise | None = None

    def _use(self, plan: Plan, given: bool) -> None:
        if plan.level[-1] < plan.level[0]:
            raise InvalidArgumentError(
                f"{plan.label} leads towards noise: give it to FastDPMInverseScheduler"
            )
        if plan.past is not None:
            raise InvalidArgumentError(
                f"{plan.label} needs states before its first row, which pipelines do not have: run"
                " it by fastdpm.run"
            )
        self.plan = self._whole = plan
        self._given = given
        self._begin_index = 0
        self._past: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def begin_index(self) -> int:
        """The row of ``timesteps`` that the chain starts at."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start the chain at a row of ``timesteps``, as image-to-image pipelines do.

        First-order rows are what they were; multistep plans are compiled anew from there.

        Raises:
            InvalidArgumentError: If there is no such row, or a plan that was given needs the rows
                before it.
        """
        self._planned()
        whole = self._whole
        if not 0 <= begin_index < whole.num_rows:
            raise InvalidArgumentError(
                f"the chain starts at one of {whole.num_rows} rows, got {begin_index}"
            )
        if begin_index and _history(whole) > 1:
            if self._given:
                raise InvalidArgumentError(
                    f"this plan's row {begin_index} needs the rows before it: give set_timesteps a"
                    " plan that starts there"
                )
            tail = NoiseLevels(whole.level, whole.t)[begin_index:]
            self.plan = samplers.find(self.config["method"]).over(tail)
        else:
            self.plan = whole
        self._begin_index = begin_index
        self._past = {}

    def use_noise(self, noise: Noise | None) -> None:
        """Draw the noise of every row from ``noise(row, x)`` in place of a generator.

        With a :class:`fastdpm.SampleNoise` a pipeline draws the samples of :func:`fastdpm.run`.

        Args:
            noise: Asked for rows that draw noise, counted from where the chain begins; None goes
                back to generators.
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
        """Take one row of the plan.

        Args:
            model_output: What the network returned, shape (batch, channels, ...); of twice the
                channels, the second half is a learned variance and left out, unless the plan
                takes its variances from there.
            timestep: One of ``timesteps``.
            sample: The state it was asked for. Half precision is computed in float32.
            generator: Draws the row's noise, if it has any; or one for each sample.
            eta: A positive value replaces kappa in this row of "ddim-rev". Pipelines pass 0
                whether their user said so or not, so 0 and None leave kappa as it is.
            use_clipped_model_output: False keeps the network's own eps beside clipped data, as
                ``DDIMScheduler`` does by default; None and True recompute it.
            variance_noise: The row's noise, shaped like ``sample``, in place of a generator.
            return_dict: Return a :class:`FastDPMSchedulerOutput`, not a tuple.

        Returns:
            The state at the next level and the implied clean data, in the type of ``sample``.

        Raises:
            InvalidArgumentError: If the timestep is not in the table, the row needs rows that
                were not taken, or an argument does not fit the plan.
            SamplingError: If the network returned the wrong shape or values that are not finite.
        """
        row = self._row(timestep)
        plan, at = self._coefficients(row, eta)
        said = self._predict(model_output, row, sample, float(plan.level[at]))
        x, eps = said.x, said.eps
        if use_clipped_model_output is False:
            x, eps = self._unclipped(plan, at, said)
        new = self._advanced(plan, at, x, eps)
        if plan.c[at] > 0:
            z = self._drawn(row, said.x, generator, variance_noise)
            add_noise(new, z, plan, at, said.learned)
        result = (new.to(sample.dtype), said.x0.to(sample.dtype))
        return FastDPMSchedulerOutput(*result) if return_dict else result

    def _coefficients(self, row: int, eta: float | None) -> tuple[Plan, int]:
        """The plan and the row in it that holds the numbers."""
        plan = self._planned()
        if not eta:
            return plan, row
        sampler = samplers.find(self.config["method"])
        if self._given or not sampler.takes_kappa:
            raise InvalidArgumentError(
                f"eta replaces kappa where a method takes it, got eta={eta:g} with"
                f" {plan.label}: leave it at 0"
            )
        if not 0 <= eta <= 1:
            raise InvalidArgumentError(f"eta must lie in [0, 1], got {eta:g}")
        return sampler.over(NoiseLevels(plan.level, plan.t)[row : row + 1], eta), 0

    def _advanced(self, plan: Plan, row: int, x: Tensor, eps: Tensor) -> Tensor:
        """A row but for its noise."""
        used = [np.flatnonzero(table[row]).max(initial=0) for table in (plan.a, plan.b)]
        past = [self._recall(row, back, x) for back in range(1, int(max(used)) + 1)]
        states = [x, *(state for state, _ in past)][: plan.a.shape[1]]
        predictions = [eps, *(prediction for _, prediction in past)][: plan.b.shape[1]]
        new = combine(plan, row, states, predictions)
        if _history(plan) > 1:
            # What later rows need; what follows a row that is taken anew is void.
            needed = range(row - _history(plan) + 1, row)
            self._past = {r: kept for r, kept in self._past.items() if r in needed}
            self._past[row] = (x.clone(), eps.clone())
        return new

    def _unclipped(self, plan: Plan, row: int, said: Prediction) -> tuple[Tensor, Tensor]:
        """Clipped data beside the network's own eps, as the state that would hold both."""
        if _history(plan) > 1:
            raise InvalidArgumentError(
                "a plan with history needs consistent predictions: leave use_clipped_model_output"
                " unset"
            )
        level = float(plan.level[row])
        sigma = math.sqrt((1 - level) * (1 + level))
        return level * said.x0 + sigma * said.raw_eps, said.raw_eps

    def _recall(self, row: int, back: int, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = self._past.get(row - back)
        if kept is None or kept[0].shape != x.shape:
            raise InvalidArgumentError(
                f"row {row} of this multistep plan needs row {row - back} of the same batch: take"
                " the rows in order, or say where the chain starts by set_begin_index"
            )
        return kept

    def _drawn(
        self, row: int, x: Tensor, generator: Generator | None, given: Tensor | None
    ) -> Tensor:
        if given is not None:
            if generator is not None:
                raise InvalidArgumentError("give a generator or variance_noise, not both")
            if given.shape != x.shape:
                raise InvalidArgumentError(
                    f"row {row}: noise has shape {tuple(given.shape)}, the state {tuple(x.shape)}"
                )
            return given.to(x.device, x.dtype)
        if self._noise is not None:
            first = self._begin_index if self.plan is self._whole else 0
            return self._noise(row - first, x)
        drawn: Tensor = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return drawn


def _history(plan: Plan) -> int:
    """How many rows a row looks at, itself among them."""
    return int(max(plan.a.shape[1], plan.b.shape[1]))
