"""Multistep plans as published equal diffusers' schedulers on the same steps."""

import pytest
import torch
from torch import Tensor

from fastdpm import VarianceSchedule, levels_step, run
from fastdpm.core import dpmpp_2m, dpmpp_3m


def _network(x: Tensor, t: Tensor) -> Tensor:
    share = (t / 1000).reshape(-1, 1)
    return torch.tanh(x * (0.4 + 0.5 * share)) * (0.3 + 0.7 * share)


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize(("method", "order"), [(dpmpp_2m, 2), (dpmpp_3m, 3)])
@pytest.mark.parametrize("num_steps", [4, 9, 14])
def test_multistep_plans_equal_diffusers(method, order, num_steps):
    diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")
    scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order)
    levels = levels_step(VarianceSchedule.linear(), num_steps)
    scheduler.set_timesteps(timesteps=[int(t) for t in levels.t])
    start = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = start
    for t in scheduler.timesteps:
        eps = _network(x, t.double().repeat(3))
        x = scheduler.step(eps, t, x).prev_sample
    ours = run(method(levels), _network, start)
    torch.testing.assert_close(ours, x.double(), rtol=1e-5, atol=1e-5)
