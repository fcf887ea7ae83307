"""A diffusers scheduler that encodes data into noise: DDIM-rev with kappa = 0, run backwards.

Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3; Song et al. 2020, arXiv:2010.02502,
section 4.3, for running it backwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.inverse import first_order_inverse
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.integrations.diffusers.base import FastDPMSchedulerOutput, PlanScheduler


class FastDPMInverseScheduler(PlanScheduler):
    """Encode clean data into noise, over the levels of :class:`FastDPMScheduler`.

    ``timesteps`` increase. The step to the level of t evaluates the network at t, although its
    state is still at the cleaner level before it. The method is therefore of first order, like
    ``DDIMInverseScheduler``: decoding an encoded image does **not** restore it exactly, and the
    error halves when S doubles. Predictions of v and x0, and clipping, are converted at the level
    of t. So they give the same result as the same network predicting eps.

    The arguments are those of :class:`FastDPMScheduler`, without ``kappa`` and ``method``.

    Raises:
        InvalidArgumentError: If a value is unknown or out of range, or two arguments contradict
            each other.

    Source: Kong & Ping 2021, arXiv:2106.00132.
    """

    __module__ = "fastdpm.integrations.diffusers"  # where saved pipelines look for this class
    _descending = False

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
        bounded: bool = True,
        variances: Sequence[float] | None = None,
        at_steps: Sequence[float] | None = None,
        at_levels: Sequence[float] | None = None,
        start: float | None = None,
    ) -> None:
        self._setup()

    def _compile(self, recipe: Recipe) -> Plan:
        return first_order_inverse(recipe.choose_levels(self.schedule))

    def _set_plan(self, plan: Plan, *, custom: bool) -> None:
        if plan.level[-1] > plan.level[0] or max(plan.a.shape[1], plan.b.shape[1]) > 1:
            raise InvalidArgumentError(
                "`plan` must be a first-order plan from data to noise, got"
                f" {plan.label}: use fastdpm.core.inverse.first_order_inverse, or pass no plan"
            )
        super()._set_plan(plan, custom=custom)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        return_dict: bool = True,
    ) -> FastDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take one step towards noise.

        Args:
            model_output: Output of the network for ``sample``, shape (batch, channels, ...). A
                learned variance in twice the channels is ignored.
            timestep: One of ``timesteps``, the step after this one in time.
            sample: The state at the cleaner level before it.
            return_dict: Return a :class:`FastDPMSchedulerOutput` instead of a tuple.

        Returns:
            The state at the noisier level and the predicted clean data, with the dtype of
            ``sample``.

        Raises:
            InvalidArgumentError: If ``timestep`` is not in ``timesteps``.
            SamplingError: If the model output has the wrong shape or is not finite.
        """
        row, plan = self._row(timestep), self._current_plan()
        # Converted at the level of the timestep, because clean data has no noise to divide by.
        prediction = self._predict(model_output, row, sample, float(plan.level[row + 1]))
        x, eps = prediction.x, prediction.eps
        new = float(plan.a[row, 0]) * x + float(plan.b[row, 0]) * eps
        level = float(plan.level[row])
        x0 = (x - math.sqrt((1 - level) * (1 + level)) * eps) / level
        result = (new.to(sample.dtype), x0.to(sample.dtype))
        return FastDPMSchedulerOutput(*result) if return_dict else result
