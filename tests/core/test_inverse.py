"""Encoding plans undo their decoding plans, to the order that they claim."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    NoiseLevels,
    Plan,
    VarianceSchedule,
    X0Prediction,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core.inverse import (
    first_order_inverse,
    leapfrog,
    leapfrog_inverse,
    leapfrog_rest,
    noise_ratio,
    second_order_inverse,
)

SCHEDULE = VarianceSchedule.linear()
CHOICES = [
    (choose, spacing)
    for choose in (levels_step, levels_var)
    for spacing in ("linear", "quadratic")
]


def _network(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x * (0.3 + 0.0005 * t[:, None])) + 0.1 * torch.sin(t[:, None] / 50)


def _data() -> Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _error(encode: Callable[[NoiseLevels], Plan], levels: NoiseLevels) -> float:
    latent = run(encode(levels), _network, _data())
    return float((run(ddim_rev(levels), _network, latent) - _data()).abs().max())


@pytest.mark.parametrize("num_steps", [2, 3, 10, 50])
@pytest.mark.parametrize(("choose", "spacing"), CHOICES)
def test_the_two_step_plan_is_undone_by_algebra(choose, spacing, num_steps):
    levels = choose(SCHEDULE, num_steps, spacing)
    states: list[Tensor] = []
    run(leapfrog_inverse(levels), _network, _data(), callback=lambda _, x: states.append(x))
    found = run(leapfrog_rest(levels), _network, states[-2], past=[states[-1]])
    torch.testing.assert_close(found, _data(), rtol=0, atol=1e-9)


def test_the_two_step_plan_continues_its_first_row():
    levels = levels_step(SCHEDULE, 10)
    start, states = _data(), []
    whole = run(leapfrog(levels), _network, start, callback=lambda _, x: states.append(x))
    rest = run(leapfrog_rest(levels), _network, states[0], past=[start])
    torch.testing.assert_close(rest, whole, rtol=1e-12, atol=1e-12)
    first = run(ddim_rev(levels[:1]), _network, start)
    assert torch.equal(states[0], first)


def test_coefficients_of_the_two_step_plan_are_those_of_the_rule():
    levels = levels_var(SCHEDULE, 12)
    plan, r, u = leapfrog(levels), levels.level, noise_ratio(levels.level)
    for s in range(1, 12):
        plus, minus = u[s - 1] - u[s], u[s] - u[s + 1]
        share = (minus / plus) ** 2
        assert plan.a[s, 0] == pytest.approx((1 - share) * r[s + 1] / r[s], rel=1e-9, abs=1e-12)
        assert plan.a[s, 1] == pytest.approx(share * r[s + 1] / r[s - 1], rel=1e-9)
        assert plan.b[s, 0] == pytest.approx(-minus * (plus + minus) / plus * r[s + 1], rel=1e-9)


def test_the_first_order_inverse_is_exact_where_eps_does_not_change():
    levels = levels_step(SCHEDULE, 10)
    direction = torch.linspace(-1, 1, 5, dtype=torch.float64).expand(4, 5)

    def constant(x: Tensor, t: Tensor) -> Tensor:
        return direction

    latent = run(first_order_inverse(levels), constant, _data())
    torch.testing.assert_close(run(ddim_rev(levels), constant, latent), _data())


def test_the_error_of_the_first_order_inverse_falls_with_the_steps():
    errors = [_error(first_order_inverse, levels_step(SCHEDULE, s)) for s in (40, 80, 160)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 0.8)


def test_the_error_of_the_second_order_inverse_falls_twice_as_fast():
    errors = [_error(second_order_inverse, levels_step(SCHEDULE, s)) for s in (40, 80, 160)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 1.7)
    assert second_order_inverse(levels_step(SCHEDULE, 40)).num_rows == 80


def test_encoding_asks_at_the_steps_that_decoding_asks_at():
    levels = levels_step(SCHEDULE, 6)
    asked: list[float] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        asked.append(float(t[0]))
        return _network(x, t)

    run(first_order_inverse(levels), watch, _data())
    assert asked == list(levels.t[::-1])
    asked.clear()
    states: list[Tensor] = []
    run(leapfrog_inverse(levels), watch, _data(), callback=lambda _, x: states.append(x))
    there = asked[1:]
    asked.clear()
    run(leapfrog_rest(levels), watch, states[-2], past=[states[-1]])
    assert asked == there[::-1]


@pytest.mark.parametrize("encode", [first_order_inverse, leapfrog_inverse])
def test_a_network_that_predicts_clean_data_encodes_alike(encode):
    levels = levels_step(SCHEDULE, 10)
    plan = encode(levels)
    level_of = dict(zip(plan.t.tolist(), plan.asked.tolist(), strict=True))

    def of_x0(x: Tensor, t: Tensor) -> Tensor:
        r = float(level_of[float(t[0])])
        return (x - math.sqrt(1 - r**2) * _network(x, t)) / r

    assert np.all(plan.asked < 1)
    found = run(plan, X0Prediction(of_x0), _data())
    torch.testing.assert_close(found, run(plan, _network, _data()), rtol=1e-9, atol=1e-9)


def test_a_plan_from_a_pair_survives_json_and_wants_its_pair():
    plan = leapfrog_rest(levels_step(SCHEDULE, 6))
    again = Plan.from_json(plan.to_json())
    assert again.fingerprint == plan.fingerprint
    assert again.num_past == 1
    with pytest.raises(InvalidArgumentError, match="needs 1 states before the first"):
        run(plan, _network, _data())
    with pytest.raises(InvalidArgumentError, match="needs 0 states before the first"):
        run(ddim_rev(levels_step(SCHEDULE, 6)), _network, _data(), past=[_data()])


def test_a_plan_may_go_either_way_but_not_both():
    plan = first_order_inverse(levels_step(SCHEDULE, 6))
    assert np.all(np.diff(plan.level) < 0)
    level = plan.level.copy()
    level[3] = level[1]
    with pytest.raises(InvalidArgumentError, match="levels must rise strictly"):
        Plan(level, plan.t, plan.a, plan.b, plan.c)
