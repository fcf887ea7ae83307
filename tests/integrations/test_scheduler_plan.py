"""A scheduler keeps a plan, or a tuned one, in its configuration."""

from dataclasses import replace

import pytest
import torch

from fastdpm import FastDPMScheduler, InvalidArgumentError, SampleNoise, VarianceSchedule, run
from fastdpm.core import dpmpp_2m, levels_custom
from fastdpm.models.tuned import TunedPlan
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
PLAN = dpmpp_2m(levels_custom(SCHEDULE, level=[0.01, 0.3, 0.8]))
TUNED = TunedPlan(plan=PLAN, model="0" * 16)


def network(x, t):
    return torch.tanh(x) * (0.5 + 0.4 * torch.sin(t / 50)).reshape(-1, 1, 1, 1)


def draw(scheduler, num_steps=None):
    scheduler.set_timesteps(num_steps)
    x = SampleNoise(0, range(2)).start((1, 4, 4))
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(2)), t, x).prev_sample
    return x


@pytest.mark.parametrize("plan", [PLAN, TUNED], ids=["plan", "tuned"])
def test_a_plan_is_executed_and_survives_the_file(plan, tmp_path):
    scheduler = FastDPMScheduler(plan=plan)
    found = draw(scheduler)
    wanted = run(PLAN, network, SampleNoise(0, range(2)).start((1, 4, 4)))
    torch.testing.assert_close(found, wanted)
    assert torch.equal(draw(scheduler, 3), found)
    scheduler.save_pretrained(tmp_path)
    assert torch.equal(draw(FastDPMScheduler.from_pretrained(tmp_path)), found)
    again = FastDPMScheduler.from_config(FastDPMScheduler().config, plan=plan)
    assert torch.equal(draw(again), found)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"plan": replace(TUNED, clip="x0")}, ["plan", "clip x0", "clip_sample"]),
        ({"plan": TUNED, "clip_sample": True}, ["plan", "clip none"]),
        ({"plan": replace(TUNED, clip="dynamic"), "clip_sample": True}, ["clip dynamic"]),
        ({"plan": PLAN, "beta_end": 0.01}, ["row 0", "FastDPMScheduler", "schedule"]),
        ({"plan": {"format": "other"}}, ["not a plan"]),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(settings, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        FastDPMScheduler(**settings)


def test_a_plan_has_its_own_steps():
    with pytest.raises(InvalidArgumentError, match=tells("timesteps", "plan")):
        FastDPMScheduler(plan=PLAN).set_timesteps(timesteps=[900, 400, 100])


def test_a_plan_has_its_own_number_of_steps():
    with pytest.raises(InvalidArgumentError, match=tells("3 rows", "num_inference_steps=3", 7)):
        FastDPMScheduler(plan=PLAN).set_timesteps(7)
