"""Wrappers return an eps that is consistent with what they changed."""

import math

import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    run,
)
from fastdpm.sampling import (
    Autocast,
    ClipX0,
    DynamicThreshold,
    Guidance,
    VPrediction,
    X0Prediction,
)
from tests.messages import tells

LEVEL = 0.6
SIGMA = 0.8
T = torch.zeros(2)


@pytest.fixture
def state() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    eps = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64)
    return LEVEL * x0 + SIGMA * eps, x0, eps


def test_v_and_x0_predictions_become_eps(state):
    x, x0, eps = state
    v = LEVEL * eps - SIGMA * x0
    torch.testing.assert_close(VPrediction(lambda x, t: v)(x, T, LEVEL), eps)
    torch.testing.assert_close(X0Prediction(lambda x, t: x0)(x, T, LEVEL), eps)


def test_clipping_moves_the_implied_data_and_nothing_else(state):
    x, x0, eps = state
    clipped = ClipX0(lambda x, t: eps)(x, T, LEVEL)
    torch.testing.assert_close((x - SIGMA * clipped) / LEVEL, x0.clamp(-1, 1))
    torch.testing.assert_close(ClipX0(lambda x, t: eps, bound=100.0)(x, T, LEVEL), eps)


def test_dynamic_thresholding_rescales_each_sample_by_its_own_quantile(state):
    x, x0, eps = state
    out = DynamicThreshold(lambda x, t: eps, quantile=0.8)(x, T, LEVEL)
    for i in range(2):
        bound = max(1.0, float(torch.quantile(x0[i].abs(), 0.8)))
        implied = (x[i] - SIGMA * out[i]) / LEVEL
        torch.testing.assert_close(implied, x0[i].clamp(-bound, bound) / bound)


def test_guidance_mixes_two_predictions_of_one_call_and_makes_one_where_it_can():
    calls = []

    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append(x.shape[0])
        return x * condition[:, None]

    x = torch.ones(2, 3)
    condition, empty = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])
    for scale in (0.0, 1.0, 2.5):
        out = Guidance(network, condition, empty, scale)(x, T)
        torch.testing.assert_close(out, x * (empty + scale * (condition - empty))[:, None])
    assert calls == [2, 2, 4]


def test_wrappers_nest_and_run():
    """A clipped v-network whose x0 is a constant beyond the bound ends exactly at the bound."""
    schedule = VarianceSchedule.linear(100)

    def v_of_constant(x: Tensor, t: Tensor) -> Tensor:
        r = torch.from_numpy(schedule.R(t.numpy() + 1)).reshape(-1, 1)
        return (r * x - 1.7) / torch.sqrt(1 - r**2)

    denoiser = ClipX0(VPrediction(v_of_constant))
    x = torch.randn(4, 5, dtype=torch.float64)
    out = run(ddim_rev(levels_step(schedule, 6)), denoiser, x)
    torch.testing.assert_close(out, torch.ones_like(out))


def test_half_precision_networks_see_the_exact_step():
    linear = torch.nn.Linear(3, 3)
    seen = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((t.dtype, float(t[0])))
        out: Tensor = linear(x)
        assert out.dtype == torch.bfloat16
        return out

    with torch.no_grad():
        out = Autocast(network, torch.bfloat16)(torch.ones(1, 3), torch.tensor([999.0]))
    assert out.dtype == torch.float32
    assert seen == [(torch.float32, 999.0)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClipX0(lambda x, t: x, bound=0.0),
        lambda: DynamicThreshold(lambda x, t: x, quantile=0.0),
        lambda: DynamicThreshold(lambda x, t: x, maximum=0.5),
        lambda: Guidance(lambda x, t, c: x, torch.ones(2), torch.ones(3), 1.0),
        lambda: Autocast(lambda x, t: x, torch.float32),
    ],
)
def test_impossible_options_are_refused(make):
    with pytest.raises(InvalidArgumentError):
        make()


def test_the_level_is_exact_near_clean_data(state):
    """sqrt(1 - r^2) must not be computed by cancellation."""
    level = 1 - 1e-12
    x, _, eps = state
    sigma = math.sqrt(2e-12)
    noisy = level * x + sigma * eps
    torch.testing.assert_close(
        X0Prediction(lambda x_, t: x)(noisy, T, level), eps, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("wrap", [ClipX0, DynamicThreshold, VPrediction, X0Prediction])
def test_an_answer_of_another_shape_is_not_broadcast(wrap):
    plan = ddim_rev(levels_step(VarianceSchedule.linear(), 3))
    with pytest.raises(SamplingError, match=tells("row 0 of 3", "(2, 1, 1)", "(2, 3, 4)")):
        run(plan, wrap(lambda x, t: x[:, :1, :1]), torch.randn(2, 3, 4))


@pytest.mark.parametrize("rows", [1, 4])
def test_a_guided_answer_of_another_shape_is_not_broadcast(rows):
    plan = ddim_rev(levels_step(VarianceSchedule.linear(), 3))
    guided = Guidance(lambda x, t, y: x[:rows, :1], torch.ones(2), torch.zeros(2), 2.0)
    with pytest.raises(SamplingError, match=tells("row 0 of 3", f"({rows}, 1, 4)", "(4, 3, 4)")):
        run(plan, guided, torch.randn(2, 3, 4))
