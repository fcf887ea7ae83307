"""The one loop: exact on Gaussian data, and clear about networks that misbehave."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    SampleNoise,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core import dpmpp_2m, multistep_3, standard
from fastdpm.sampling import ClipX0, Guidance, VPrediction
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
DATA_STD = 0.5


class GaussianNetwork:
    """The exact eps for data N(0, s^2), which is linear in x; steps carry the level."""

    def __init__(self, schedule: VarianceSchedule) -> None:
        self.schedule = schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        r = torch.from_numpy(self.schedule.R(t.numpy() + 1)).reshape(-1, *[1] * (x.ndim - 1))
        return x * torch.sqrt(1 - r**2) / (r**2 * DATA_STD**2 + 1 - r**2)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("choose", [levels_step, levels_var])
def test_gains_on_gaussian_data_equal_the_recursion(kappa, choose):
    plan = ddim_rev(choose(SCHEDULE, 12), kappa)
    network = GaussianNetwork(SCHEDULE)
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)

    def gain(start: Tensor, unit_row: int | None) -> float:
        def noise(row: int, x: Tensor) -> Tensor:
            return one if row == unit_row else zero

        return float(run(plan, network, start, noise=noise))

    total = gain(one, None) ** 2 + sum(gain(zero, row) ** 2 for row in range(plan.num_rows))
    v = 1.0
    for row in range(plan.num_rows):
        r, r_next = plan.level[row : row + 2]
        m = r * r_next * DATA_STD**2 + np.sqrt(1 - r**2) * np.sqrt(
            max(1 - r_next**2 - plan.c[row] ** 2, 0.0)
        )
        v = (m / (r**2 * DATA_STD**2 + 1 - r**2)) ** 2 * v + plan.c[row] ** 2
    assert abs(total - v) < 1e-10


def test_the_standard_sampler_on_gaussian_data_gives_back_its_variance():
    schedule = VarianceSchedule.linear(200, 1e-4, 0.1)
    noise = SampleNoise(0, range(2000))
    start = noise.start((1,), dtype=torch.float64)
    x = run(standard(schedule), GaussianNetwork(schedule), start, noise=noise)
    assert float(x.std()) == pytest.approx(DATA_STD, abs=4 * DATA_STD / np.sqrt(2 * 2000))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_shape_and_start_are_kept(dtype):
    x = torch.randn(3, 2, 4, dtype=dtype)
    before = x.clone()
    seen = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        seen.append((t.dtype, tuple(t.shape), float(t[0])))
        return torch.zeros_like(x)

    plan = multistep_3(levels_step(SCHEDULE, 6))
    out = run(plan, network, x)
    assert (out.dtype, out.shape) == (dtype, x.shape)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    assert seen == [(dtype, (3,), float(torch.tensor(t, dtype=dtype))) for t in plan.t]


def test_zero_eps_scales_the_state_by_the_levels():
    plan = ddim_rev(levels_var(SCHEDULE, 7))
    x = torch.randn(2, 3, dtype=torch.float64)
    out = run(plan, lambda x, t: torch.zeros_like(x), x)
    torch.testing.assert_close(out, x / plan.level[0], rtol=1e-12, atol=0)


def test_multistep_plans_use_their_history():
    """Two columns of states and predictions, followed by hand."""
    plan = dpmpp_2m(levels_step(SCHEDULE, 5))
    network = GaussianNetwork(SCHEDULE)
    states = [torch.randn(2, 2, dtype=torch.float64)]
    predictions: list[Tensor] = []
    for s in range(5):
        t = torch.full((2,), plan.t[s], dtype=torch.float64)
        predictions.insert(0, network(states[0], t))
        terms = [plan.a[s, j] * states[j] for j in range(min(2, len(states)))]
        terms += [plan.b[s, j] * predictions[j] for j in range(min(2, len(predictions)))]
        states.insert(0, torch.stack(terms).sum(0))
    torch.testing.assert_close(run(plan, network, states[-1]), states[0], rtol=1e-9, atol=1e-9)


def test_the_callback_sees_every_row_and_its_state():
    plan = ddim_rev(levels_step(SCHEDULE, 4))
    rows: list[int] = []
    states: list[Tensor] = []

    def callback(row: int, x: Tensor) -> None:
        rows.append(row)
        states.append(x)

    out = run(plan, lambda x, t: x * 0.1, torch.ones(1, 1), callback=callback)
    assert rows == [0, 1, 2, 3]
    assert torch.equal(states[-1], out)
    assert len({float(x) for x in states}) == 4


def test_noise_is_drawn_only_for_rows_that_use_it():
    plan = ddim_rev(levels_step(SCHEDULE, 5), 1.0)
    rows = []

    def noise(row: int, x: Tensor) -> Tensor:
        rows.append(row)
        return torch.zeros_like(x)

    run(plan, lambda x, t: x, torch.ones(1, 1), noise=noise)
    assert rows == [0, 1, 2, 3]


def test_a_plan_that_draws_noise_needs_it():
    with pytest.raises(InvalidArgumentError, match=tells("noise")):
        run(ddim_rev(levels_step(SCHEDULE, 5), 0.5), lambda x, t: x, torch.ones(1, 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_their_row(bad):
    plan = ddim_rev(levels_step(SCHEDULE, 5))

    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(t[:, None] < 400, bad, x)

    with pytest.raises(SamplingError, match=tells("row 3 of 5")):
        run(plan, network, torch.ones(2, 3))


def test_a_wrong_shape_names_its_row():
    with pytest.raises(SamplingError, match=tells("row 0 of 5", "(2, 9)", "(2, 3)")):
        run(
            ddim_rev(levels_step(SCHEDULE, 5)),
            lambda x, t: torch.cat([x, x, x], 1),
            torch.ones(2, 3),
        )


@pytest.mark.parametrize("output", [(torch.ones(2, 3),), None])
def test_an_output_that_is_no_tensor_names_its_row(output):
    with pytest.raises(SamplingError, match=tells("row 0 of 5", type(output).__name__)):
        run(ddim_rev(levels_step(SCHEDULE, 5)), lambda x, t: output, torch.ones(2, 3))


def test_noise_of_the_wrong_shape_is_refused():
    plan = ddim_rev(levels_step(SCHEDULE, 5), 1.0)
    with pytest.raises(InvalidArgumentError, match=tells("row 0", "(1,)", "(2, 3)")):
        run(plan, lambda x, t: x, torch.ones(2, 3), noise=lambda row, x: torch.ones(1))


def test_half_precision_states_are_refused():
    with pytest.raises(
        InvalidArgumentError, match=tells("float32", "float64", "float16", "Autocast")
    ):
        run(ddim_rev(levels_step(SCHEDULE, 5)), lambda x, t: x, torch.ones(1, 1).half())


def _eps(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x) * (t[:, None] + 1) / 1000


def _with_variance(share: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: torch.cat([_eps(x, t), torch.full_like(x, share)], 1)


def test_a_learned_variance_is_left_out_of_a_plan_of_fixed_ones():
    plan, noise = ddim_rev(levels_step(SCHEDULE, 5), 1.0), SampleNoise(0, range(2))
    x = noise.start((3,))
    found = run(plan, _with_variance(0.7), x, noise=noise)
    assert torch.equal(found, run(plan, _eps, x, noise=noise))


@pytest.mark.parametrize(("share", "fixed"), [(-1.0, "small"), (1.0, "large")])
def test_the_ends_of_a_learned_variance_are_the_fixed_ones(share, fixed):
    noise = SampleNoise(0, range(2))
    x = noise.start((3,), dtype=torch.float64)
    found = run(standard(SCHEDULE, "learned"), _with_variance(share), x, noise=noise)
    wanted = run(standard(SCHEDULE, fixed), _eps, x, noise=noise)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    between = run(standard(SCHEDULE, "learned"), _with_variance(0.0), x, noise=noise)
    assert (between - wanted).abs().max() > 1e-4


def test_a_learned_variance_passes_through_every_wrapper():
    plan, noise = standard(SCHEDULE, "learned"), SampleNoise(0, range(2))
    x = noise.start((3,), dtype=torch.float64)
    wanted = run(plan, ClipX0(_with_variance(0.3), 0.5), x, noise=noise)
    level_of = {float(t): float(r) for t, r in zip(plan.t, plan.level[:-1], strict=True)}

    def of_v(x: Tensor, t: Tensor) -> Tensor:
        r = level_of[float(t[0])]
        v = (_eps(x, t) - math.sqrt(1 - r**2) * x) / r
        return torch.cat([v, torch.full_like(x, 0.3)], 1)

    found = run(plan, ClipX0(VPrediction(of_v), 0.5), x, noise=noise)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)

    def conditioned(x: Tensor, t: Tensor, share: Tensor) -> Tensor:
        return torch.cat([_eps(x, t), share.expand_as(x)], 1)

    condition = torch.full((2, 1), 0.3, dtype=torch.float64)
    guided = Guidance(conditioned, condition, torch.zeros_like(condition), 3.0)
    found = run(plan, ClipX0(guided, 0.5), x, noise=noise)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_a_network_without_learned_variance_is_refused():
    with pytest.raises(SamplingError, match=tells("row 0")):
        run(standard(SCHEDULE, "learned"), _eps, torch.ones(2, 3), noise=SampleNoise(0, range(2)))
