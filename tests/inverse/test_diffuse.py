"""Diffusing: in one go and step by step, the same distribution at every level."""

import numpy as np
import pytest
import torch

from fastdpm import (
    InvalidArgumentError,
    SampleNoise,
    VarianceSchedule,
)
from fastdpm.core.choices import CHOICES
from fastdpm.inverse.diffusion import check_level, diffuse, diffusion_chain
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
LEVELS = [choice.function(SCHEDULE, 12) for choice in CHOICES.values()]


def _zero(row, x):
    return torch.zeros_like(x)


def _one(row, x):
    return torch.ones_like(x)


@pytest.mark.parametrize("t", [0.0, 0.37, 1.0, 500.25, 1000.0])
def test_a_step_is_one_based_and_need_not_be_whole(t):
    x0 = torch.full((1, 1), 2.0, dtype=torch.float64)
    r = float(SCHEDULE.R(t))
    for choice in ({"step": t}, {"level": r}):
        signal = diffuse(SCHEDULE, x0, **choice, noise=_zero)
        assert float(signal) == pytest.approx(2 * r, rel=1e-14)
        both = diffuse(SCHEDULE, x0, **choice, noise=_one)
        assert float(both - signal) == pytest.approx(np.sqrt(1 - r * r), rel=1e-12)
    assert float(x0) == 2


@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels.label)
def test_the_marginals_of_the_chain_are_those_of_one_go(levels):
    chain = diffusion_chain(levels)
    np.testing.assert_allclose(chain.keep**2 + chain.add**2, 1, rtol=0, atol=1e-15)
    mean, variance = 1.0, 0.0
    for s in range(chain.num_steps):
        mean *= chain.keep[s]
        variance = chain.keep[s] ** 2 * variance + chain.add[s] ** 2
        assert mean == pytest.approx(chain.level[s + 1], rel=1e-12)
        assert variance == pytest.approx(1 - chain.level[s + 1] ** 2, rel=1e-12)
    assert chain.level[0] == 1


@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels.label)
def test_states_of_a_run_have_the_mean_and_variance_of_their_level(levels):
    noise = SampleNoise(0, range(4))
    x0 = torch.full((4, 20_000), 0.5, dtype=torch.float64)
    chain = diffusion_chain(levels)
    states = list(chain.run(x0, noise))
    assert len(states) == levels.num_steps
    for r, x in zip(chain.level[1:], states, strict=True):
        variance = 1 - r * r
        assert abs(float(x.mean()) - 0.5 * r) < 5 * np.sqrt(variance / x.numel())
        assert float(x.var()) == pytest.approx(variance, rel=5 * np.sqrt(2 / x.numel()))


def test_every_level_that_a_plan_has_can_be_diffused_to():
    x0 = torch.zeros(1, 1)
    for levels in LEVELS:
        for level in levels.level:
            diffuse(SCHEDULE, x0, level=float(level), noise=_one)


def test_draws_of_other_rows_are_others(image_model):
    noise, x0 = SampleNoise(3, [0, 1]), torch.zeros(2, 1, 8, 8)
    first, again, other = (
        diffuse(image_model, x0, step=50, noise=noise, row=row) for row in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert float((first - other).abs().mean()) > 0.5


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        ({}, ["level", "step"]),
        ({"level": 0.5, "step": 3}, ["level", "step"]),
        ({"level": 1e-4}, ["level", "[0.00635282, 1]", 0.0001]),
        ({"level": SCHEDULE.levels[-1] * (1 - 1e-6)}, ["level", "[0.00635282, 1]", 0.00635281]),
        ({"level": 1.5}, ["level", "[0.00635282, 1]", 1.5]),
        ({"level": float("nan")}, ["level", "[0.00635282, 1]", "nan"]),
        ({"step": 1000.5}, ["[0, 1000]", 1000.5]),
        ({"step": float("nan")}, ["[0, 1000]", "nan"]),
    ],
)
def test_what_the_schedule_does_not_reach_is_refused(choice, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        diffuse(SCHEDULE, torch.zeros(1, 1), **choice, noise=_one)


def test_a_level_is_the_noisiest_within_rounding_of_it():
    for off in (1 - 1e-12, 1, 1 + 1e-12):
        step = check_level(SCHEDULE, float(SCHEDULE.levels[-1]) * off)
        assert step == pytest.approx(1000, abs=1e-6)


@pytest.mark.parametrize(
    ("x0", "values"),
    [
        (torch.ones(2, 3, dtype=torch.int64), ["float32", "float64", "torch.int64"]),
        (torch.ones(2, 3, dtype=torch.bool), ["float32", "float64", "torch.bool"]),
        (torch.ones(2, 3, dtype=torch.float16), ["float32", "float64", "torch.float16"]),
        (torch.ones(2, 3, dtype=torch.complex64), ["float32", "float64", "torch.complex64"]),
        (np.ones((2, 3)), ["`x0`", "Tensor", "ndarray"]),
        (torch.tensor([[0.5, float("nan")]]), ["`x0`", "finite"]),
        (torch.tensor([[0.5, float("inf")]]), ["`x0`", "finite"]),
    ],
)
@pytest.mark.parametrize("choice", [{"step": 3}, {"level": 0.5}])
def test_what_cannot_be_diffused_is_one_line(x0, values, choice):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        diffuse(SCHEDULE, x0, **choice, noise=SampleNoise(0, range(2)))
