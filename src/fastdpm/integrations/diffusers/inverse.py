"""Data into noise inside diffusers: DDIM-rev with kappa = 0, row by row backwards.

Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3; Song et al. 2020, arXiv:2010.02502,
section 4.3, for running it backwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.inverse import first_order_inverse
from fastdpm.core.plan import Plan
from fastdpm.core.recipe import Recipe
from fastdpm.integrations.diffusers.base import FastDPMSchedulerOutput, PlanScheduler


class FastDPMInverseScheduler(PlanScheduler):
    """Encode clean data into noise, over the levels of :class:`FastDPMScheduler`.

    ``timesteps`` rise. The row that leads to the level of step t tells the network t, although
    its state still lies at the cleaner level before it: the method is of first order, as
    ``DDIMInverseScheduler`` is, and decoding what it encoded does **not** bring the data back
    exactly; the error halves as S doubles. v and x0 predictions, and clipping, are read at the
    level that the network was told, so that they encode as the same network predicting eps does.

    The arguments are those of :class:`FastDPMScheduler`, without kappa and method.

    Raises:
        InvalidArgumentError: If a choice does not exist, or two of them contradict each other.

    Source: Kong & Ping 2021, arXiv:2106.00132.
    """

    __module__ = "fastdpm.integrations.diffusers"  # where a saved pipeline looks for it
    _falling = False

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
    ) -> None:
        self._start()

    def _compile(self, recipe: Recipe) -> Plan:
        return first_order_inverse(recipe.choose_levels(self.schedule))

    def _use(self, plan: Plan, given: bool) -> None:
        if plan.level[-1] > plan.level[0] or max(plan.a.shape[1], plan.b.shape[1]) > 1:
            raise InvalidArgumentError(
                f"only a plan of first order that leads towards noise encodes here, got"
                f" {plan.label}: take first_order_inverse, or give no plan"
            )
        super()._use(plan, given)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        return_dict: bool = True,
    ) -> FastDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """Take one row backwards, from its cleaner level to its noisier one.

        Arguments, result and errors are as of :meth:`FastDPMScheduler.step`: ``timestep`` is the
        step that the row leads to, ``sample`` the state at the cleaner level. A learned variance
        is left out.
        """
        row, plan = self._row(timestep), self._planned()
        # Read at the level that the network was told, for clean data has no noise to divide by.
        said = self._predict(model_output, row, sample, float(plan.level[row + 1]))
        new = float(plan.a[row, 0]) * said.x + float(plan.b[row, 0]) * said.eps
        level = float(plan.level[row])
        x0 = (said.x - math.sqrt((1 - level) * (1 + level)) * said.eps) / level
        result = (new.to(sample.dtype), x0.to(sample.dtype))
        return FastDPMSchedulerOutput(*result) if return_dict else result
