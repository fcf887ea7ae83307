"""Our solvers give the results of diffusers' schedulers on the same steps."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import NoiseLevels, Plan, VarianceSchedule, run
from fastdpm.core import (
    deis_log_rho,
    dpm_solver_2,
    dpmpp_2m,
    heun,
    ipndm,
    sde_dpmpp_2m,
    unipc,
)

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # diffusers' use of NumPy

SCHEDULE = VarianceSchedule.linear()
START = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
NOISE = torch.randn(24, 8, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double()


def _eps(x: Tensor, t: float) -> Tensor:
    """The noise in data N(0.3, 0.25), made nonlinear; small everywhere."""
    r = float(SCHEDULE.R(t + 1))
    std = math.sqrt(1 - r**2)
    return std * (x - 0.3 * r) / (0.25 * r**2 + std**2) * (1 + 0.05 * torch.sin(x))


def _ours(plan: Plan) -> Tensor:
    def noise(row: int, _: Tensor) -> Tensor:
        return NOISE[row]

    return run(plan, lambda x, t: _eps(x, float(t[0])), START, noise=noise)


def _theirs(
    name: str, num_steps: int, *, noise: bool = False, **settings: Any
) -> tuple[Any, Tensor]:
    """The scheduler, and what it makes of the start."""
    betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    scheduler = getattr(diffusers, name)(num_train_timesteps=1000, **betas, **settings)
    scheduler.set_timesteps(num_steps)
    scale = float(scheduler.init_noise_sigma)  # of x / r, where it is not 1
    x = START if scale == 1 else START * (1 + scale**2) ** 0.5
    for row, t in enumerate(scheduler.timesteps):
        extra = {"variance_noise": NOISE[row]} if noise else {}
        eps = _eps(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(eps, t, x, **extra).prev_sample
    return scheduler, x


def _levels(scheduler: Any) -> NoiseLevels:
    """The levels at which a scheduler takes its steps."""
    sigma = scheduler.sigmas.double().numpy()
    return NoiseLevels(1 / np.sqrt(1 + sigma**2), scheduler.timesteps.double().numpy())


CASES: list[tuple[str, dict[str, Any], Callable[[NoiseLevels], Plan]]] = [
    ("DPMSolverMultistepScheduler", {"solver_order": 2}, dpmpp_2m),
    *(
        (
            "UniPCMultistepScheduler",
            {"solver_order": order, "solver_type": variant, "final_sigmas_type": end},
            lambda levels, order=order, variant=variant: unipc(levels, order, variant),
        )
        for order in (1, 2, 3)
        for variant, end in (("bh2", "zero"), ("bh2", "sigma_min"), ("bh1", "sigma_min"))
    ),
    *(
        (
            "DEISMultistepScheduler",
            {"solver_order": order},
            lambda levels, order=order: deis_log_rho(levels, order),
        )
        for order in (1, 2, 3)
    ),
]


@pytest.mark.parametrize(("name", "settings", "method"), CASES)
def test_multistep_solvers(name, settings, method):
    for num_steps, spacing in ((5, "leading"), (12, "trailing")):
        scheduler, theirs = _theirs(name, num_steps, timestep_spacing=spacing, **settings)
        ours = _ours(method(_levels(scheduler)))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_sde_solver():
    settings = {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}
    for num_steps in (5, 12):
        scheduler, theirs = _theirs(
            "DPMSolverMultistepScheduler",
            num_steps,
            noise=True,
            timestep_spacing="trailing",
            **settings,
        )
        ours = _ours(sde_dpmpp_2m(_levels(scheduler)))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [2, 9])
def test_ipndm(num_steps):
    """The scheduler takes v, and the noise scales as `trained_betas`."""
    t = np.linspace(600, 0, num_steps)
    r = SCHEDULE.R(t + 1)
    sigma = np.sqrt(1 - r**2)
    scheduler = diffusers.IPNDMScheduler(trained_betas=np.append(sigma, 0.0).tolist())
    scheduler.set_timesteps(num_steps)
    x = START
    for row, step in enumerate(scheduler.timesteps):
        v = (_eps(x, t[row]) - sigma[row] * x) / r[row]
        x = scheduler.step(v, step, x).prev_sample
    ours = _ours(ipndm(NoiseLevels(np.append(r, 1.0), t), 4))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "method"), [("HeunDiscreteScheduler", heun), ("KDPM2DiscreteScheduler", dpm_solver_2)]
)
@pytest.mark.parametrize("num_steps", [6, 15])  # fewer magnify the rounding of float32 scales
def test_solvers_of_two_evaluations(name, method, num_steps):
    scheduler, theirs = _theirs(name, num_steps, timestep_spacing="trailing")
    sigma = np.unique(scheduler.sigmas.double().numpy())[::-1]
    t = scheduler.timesteps.double().numpy()
    levels = NoiseLevels(1 / np.sqrt(1 + sigma**2), t[::2])
    plan = method(levels, SCHEDULE, 2 * num_steps - 1)
    np.testing.assert_allclose(plan.t, t, atol=2e-3)  # between steps, they interpolate log sigma
    torch.testing.assert_close(_ours(plan), theirs, rtol=0, atol=1e-5)
