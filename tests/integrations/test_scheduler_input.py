"""The arguments of FastDPMScheduler: timesteps, choices and refusals."""

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import (
    FastDPMScheduler,
    Recipe,
    SampleNoise,
    SamplingError,
    VarianceSchedule,
    levels_step,
    run,
)
from fastdpm.core.inverse import first_order_inverse, leapfrog_rest
from tests.integrations.conftest import sample, smooth, start
from tests.messages import tells

LINEAR = VarianceSchedule.linear()
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def _scheduler(num_steps: int, **choices: Any) -> Any:
    scheduler = FastDPMScheduler(**choices)
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.parametrize("recipe", [{}, {"levels": "var", "spacing": "quadratic"}], ids=str)
@pytest.mark.parametrize(
    "hand_over",
    [
        lambda t: t,
        lambda t: t.item(),
        lambda t: t[None],
        lambda t: t.repeat(2),
        lambda t: t.double(),
        lambda t: t.half(),
        lambda t: t.bfloat16(),
        lambda t: np.float32(t.item()),
        lambda t: t.numpy(),
        lambda t: t * (1 + 1e-7),
    ],
)
def test_a_timestep_is_found_however_it_is_handed_over(recipe, hand_over):
    scheduler = _scheduler(20, **recipe)
    assert [scheduler._row(hand_over(t)) for t in scheduler.timesteps] == list(range(20))


@pytest.mark.parametrize("timestep", [998, 998.5, 1000, -1, torch.tensor(0.01), float("nan")])
def test_a_timestep_that_is_not_in_the_table_is_refused(timestep):
    scheduler = _scheduler(10)
    with pytest.raises(ValueError, match=tells(f"{float(timestep):g}", 10, 999, 0)) as caught:
        scheduler.step(start(), timestep, start())
    assert "\n" not in str(caught.value)


def test_a_timestep_that_two_rows_share_in_half_precision_is_refused():
    scheduler = FastDPMScheduler()
    scheduler.set_timesteps(1000)
    with pytest.raises(ValueError, match=tells(1000, "0 and 1", "bfloat16", "float32")):
        scheduler._row(torch.tensor(999.0, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=tells(2)):
        scheduler._row(torch.tensor([999.0, 998.0]))


@pytest.mark.parametrize("recipe", [Recipe(kappa=0.5), Recipe(method="dpmpp-2m")], ids=str)
def test_a_new_scheduler_takes_all_training_steps(recipe):
    scheduler = FastDPMScheduler(100, method=recipe.method, kappa=recipe.kappa)
    noise = SampleNoise(1, range(2))
    scheduler.use_noise(noise)
    plan = recipe.replace(num_steps=100).compile(VarianceSchedule.linear(100))
    theirs = run(plan, smooth, start(), noise=noise)
    torch.testing.assert_close(sample(scheduler, start()), theirs, **CLOSE)


def test_steps_by_hand_are_those_of_the_configuration():
    scheduler = FastDPMScheduler(at_steps=[900, 500.5, 20.25], kappa=0.5)
    scheduler.set_timesteps()
    assert scheduler.timesteps.tolist() == [900, 500.5, 20.25]
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match=tells("num_inference_steps=3", 50)) as caught:
        scheduler.set_timesteps(50)
    assert "\n" not in str(caught.value)
    scheduler = FastDPMScheduler(50, beta_end=0.05, variances=[1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35])
    scheduler.set_timesteps(6)
    assert scheduler.num_inference_steps == 6
    with pytest.raises(ValueError, match=tells("`at_steps`", "`variances`")):
        FastDPMScheduler(at_steps=[900.0, 1.0], variances=[0.1, 0.2])
    with pytest.raises(ValueError, match=tells("num_inference_steps=1000", 50)):
        FastDPMScheduler(method="standard").set_timesteps(50)


def test_merged_steps_are_logged(caplog):
    scheduler = FastDPMScheduler(spacing="quadratic")
    scheduler.set_timesteps(50)
    assert len(scheduler.timesteps) < 50
    assert scheduler.num_inference_steps == len(scheduler.timesteps)
    assert re.search(rf"\b50\b.*\b{len(scheduler.timesteps)}\b", caplog.text)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"num_inference_steps": 0}, ["at least 1", 0]),
        ({"num_inference_steps": 1001}, ["[1, 1000]", 1001]),
        ({"timesteps": [10, 20]}, ["`timesteps`", "fall", "20 after 10"]),
        ({"timesteps": [1000]}, ["(-1, 999]", 1000]),
        ({"timesteps": ["many"]}, ["timesteps", "['many']"]),
        (
            {"num_inference_steps": 5, "timesteps": [1, 0]},
            ["num_inference_steps", "timesteps", "plan"],
        ),
    ],
)
def test_bad_timesteps_are_refused(arguments, values):
    with pytest.raises(ValueError, match=tells(*values)):
        FastDPMScheduler().set_timesteps(**arguments)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({"method": "euler"}, ["method", "ddim-rev", "euler"]),
        ({"levels": "all"}, ["levels", "var", "step", "all"]),
        ({"spacing": "cubic"}, ["spacing", "linear", "quadratic", "cubic"]),
        ({"kappa": 1.5}, ["kappa", "[0, 1]", 1.5]),
        ({"method": "dpmpp-2m", "kappa": 0.5}, ["dpmpp-2m", "kappa", 0, 0.5]),
        ({"prediction_type": "flow_prediction"}, ["prediction_type", "flow_prediction"]),
        (
            {"prediction_type": "score"},
            ["prediction_type", "epsilon", "v_prediction", "sample", "score"],
        ),
        ({"beta_schedule": "cosine"}, ["beta_schedule", "linear", "cosine"]),
        ({"trained_betas": [0.5, 1.0]}, ["`trained_betas`", "(0, 1)", "step 2 of 2"]),
        ({"method": "standard", "at_steps": [5, 1]}, ["standard", "at_steps"]),
    ],
)
def test_bad_choices_are_refused_when_the_scheduler_is_built(arguments, values):
    with pytest.raises(ValueError, match=tells(*values)):
        FastDPMScheduler(**arguments)


def test_bad_arguments_of_a_step_are_refused():
    scheduler = _scheduler(5, method="dpmpp-2m", clip_sample=True)
    x, t = start(), scheduler.timesteps[0]
    with pytest.raises(ValueError, match=tells("kappa", "eta=0.5")):
        scheduler.step(x, t, x, eta=0.5)
    with pytest.raises(ValueError, match=tells("use_clipped_model_output")):
        scheduler.step(x, t, x, use_clipped_model_output=False)
    noisy = _scheduler(5, kappa=1.0)
    with pytest.raises(ValueError, match=tells("generator", "variance_noise")):
        noisy.step(x, t, x, generator=torch.Generator(), variance_noise=x)
    with pytest.raises(ValueError, match=tells("row 0", "(1, 3, 8, 8)", "(2, 3, 8, 8)")):
        noisy.step(x, t, x, variance_noise=x[:1])
    with pytest.raises(ValueError, match=tells("eta", "[0, 1]", 1.5)):
        noisy.step(x, t, x, eta=1.5)
    with pytest.raises(SamplingError, match=tells("row 0 of 5", "(2, 1, 8, 8)", "(2, 3, 8, 8)")):
        noisy.step(x[:, :1], t, x)
    with pytest.raises(SamplingError, match=tells("row 0 of 5")):
        noisy.step(x * float("nan"), t, x)


@pytest.mark.parametrize(
    ("compile_plan", "values"),
    [
        (first_order_inverse, ["first-order", "FastDPMInverseScheduler"]),
        (leapfrog_rest, ["two-step", "fastdpm.run"]),
    ],
)
def test_plans_that_no_pipeline_can_run_are_refused(compile_plan, values):
    with pytest.raises(ValueError, match=tells(*values)):
        FastDPMScheduler().set_timesteps(plan=compile_plan(levels_step(LINEAR, 5)))


def test_importing_the_package_loads_neither_torch_nor_diffusers():
    code = (
        "import sys, fastdpm;"
        "assert not {'torch', 'diffusers', 'numpy'} & set(sys.modules);"
        "sys.modules['diffusers'] = None;"
        "fastdpm.FastDPMScheduler"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "AssertionError" not in done.stderr
    assert done.stderr.strip().endswith("`pip install 'fastdpm[diffusers]'` and try again")
