"""FastDPMInverseScheduler: first-order encoding with kappa = 0."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from fastdpm import (
    FastDPMInverseScheduler,
    FastDPMScheduler,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core.inverse import first_order_inverse, leapfrog_inverse
from tests.integrations.conftest import NETWORKS, sample, smooth, start
from tests.messages import tells

LINEAR = VarianceSchedule.linear()
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("levels", ["var", "step"])
def test_steps_rise_over_the_levels_of_the_forward_scheduler(levels):
    inverse, forward = (
        kind(levels=levels) for kind in (FastDPMInverseScheduler, FastDPMScheduler)
    )
    for scheduler in (inverse, forward):
        scheduler.set_timesteps(10)
    torch.testing.assert_close(inverse.timesteps, forward.timesteps.flip(0), rtol=0, atol=0)


@pytest.mark.parametrize("num_steps", [10, 50])
def test_ddim_inverse_is_the_same_for_eps(num_steps):
    theirs: Any = diffusers.DDIMInverseScheduler(clip_sample=False)
    theirs.set_timesteps(num_steps)
    ours = FastDPMInverseScheduler.from_config(theirs.config)
    ours.set_timesteps(timesteps=theirs.timesteps)
    data = 0.5 * start()
    torch.testing.assert_close(sample(ours, data), sample(theirs, data), **CLOSE)


@pytest.mark.parametrize("prediction", NETWORKS)
def test_a_row_solves_the_forward_row_for_its_state(prediction):
    inverse = FastDPMInverseScheduler(prediction_type=prediction)
    plan = ddim_rev(levels_var(LINEAR, 8))
    inverse.set_timesteps(plan=first_order_inverse(levels_var(LINEAR, 8)))
    x, network = 0.5 * start(), NETWORKS[prediction]
    for row, t in zip(reversed(range(8)), inverse.timesteps, strict=True):
        new = inverse.step(network(x, t), t, x).prev_sample
        forward = plan.a[row, 0] * new + plan.b[row, 0] * smooth(x, t)
        torch.testing.assert_close(forward.float(), x, **CLOSE)
        x = new


def test_encoding_is_the_plan_of_the_core():
    inverse = FastDPMInverseScheduler(levels="var", spacing="quadratic")
    inverse.set_timesteps(9)
    plan = first_order_inverse(levels_var(LINEAR, 9, "quadratic"))
    data = 0.5 * start()
    torch.testing.assert_close(sample(inverse, data), run(plan, smooth, data), **CLOSE)


def test_decoding_is_near_the_data_and_nearer_by_half_at_twice_the_steps():
    data, errors = 0.5 * start(), []
    for num_steps in (25, 50, 100):
        inverse, forward = FastDPMInverseScheduler(), FastDPMScheduler()
        for scheduler in (inverse, forward):
            scheduler.set_timesteps(num_steps)
        decoded = sample(forward, sample(inverse, data))
        errors.append(float((decoded - data).abs().mean()))
    assert errors[-1] > 1e-4  # of first order: not exact, as its docstring says
    order = np.polyfit(np.log([25, 50, 100]), np.log(errors), 1)[0]
    assert -1.4 < order < -0.8


def test_encoded_data_is_noise():
    inverse = FastDPMInverseScheduler()
    inverse.set_timesteps(100)
    data = 0.5 * start((8, 3, 16, 16))
    latent = sample(inverse, data, _exact)
    assert abs(float(latent.std()) - 1) < 0.05


def _exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The eps of normal data with standard deviation 0.5."""
    r = float(LINEAR.R(float(t) + 1))
    eps: torch.Tensor = (1 - r**2) ** 0.5 * x / (0.25 * r**2 + 1 - r**2)
    return eps


def test_the_clean_data_is_read_at_the_level_of_the_state():
    inverse = FastDPMInverseScheduler()
    inverse.set_timesteps(10)
    x, t = 0.5 * start(), inverse.timesteps[0]
    first = inverse.step(smooth(x, t), t, x)
    torch.testing.assert_close(first.pred_original_sample, x)
    t = inverse.timesteps[1]
    second = inverse.step(smooth(x, t), t, x).pred_original_sample
    r = float(LINEAR.R(1))
    torch.testing.assert_close(second, (x - (1 - r**2) ** 0.5 * smooth(x, t)) / r, **CLOSE)


def test_steps_may_be_taken_in_any_order_and_in_half_precision():
    inverse = FastDPMInverseScheduler(levels="var")
    inverse.set_timesteps(12)
    x = 0.5 * start()
    once = [inverse.step(smooth(x, t), t, x).prev_sample for t in inverse.timesteps]
    for row in (7, 0, 11, 7):
        t = inverse.timesteps[row]
        again = inverse.step(smooth(x, t), t, x).prev_sample
        torch.testing.assert_close(again, once[row], rtol=0, atol=0)
        half = inverse.step(smooth(x, t).half(), t.half(), x.half()).prev_sample
        assert half.dtype == torch.float16
        torch.testing.assert_close(half.float(), again, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("compile_plan", [ddim_rev, leapfrog_inverse])
def test_only_plans_of_first_order_that_lead_towards_noise_encode(compile_plan):
    plan = compile_plan(levels_step(LINEAR, 5))
    with pytest.raises(ValueError, match=tells(plan.label, "first_order_inverse")) as caught:
        FastDPMInverseScheduler().set_timesteps(plan=plan)
    assert "\n" not in str(caught.value)


def test_it_takes_the_levels_of_any_scheduler_of_ours():
    for config in ({"kappa": 1.0}, {"method": "dpmpp-2m"}):
        forward = FastDPMScheduler(levels="var", num_steps=7, **config)
        inverse = FastDPMInverseScheduler.from_config(forward.config)
        for scheduler in (inverse, forward):
            scheduler.set_timesteps()
        torch.testing.assert_close(inverse.timesteps, forward.timesteps.flip(0), rtol=0, atol=0)
        back = FastDPMScheduler.from_config(inverse.config)
        assert {k: back.config[k] for k in config} == config


def test_custom_steps_rise():
    inverse = FastDPMInverseScheduler()
    inverse.set_timesteps(timesteps=[0.5, 300, 999])
    assert inverse.timesteps.tolist() == [0.5, 300, 999]
    with pytest.raises(ValueError, match=tells("`timesteps`", "rise", "999, 300, 0")):
        inverse.set_timesteps(timesteps=[999, 300, 0])
