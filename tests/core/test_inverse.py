"""Encoding plans undo their decoding plans, to the order that they claim."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    NoiseLevels,
    Plan,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    levels_var,
    run,
)
from fastdpm.core.choices import CHOICES
from fastdpm.core.inverse import (
    first_order_inverse,
    leapfrog_inverse,
    leapfrog_rest,
    noise_ratio,
    second_order_inverse,
)
from fastdpm.sampling import X0Prediction
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
choices = pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES.keys())


def _network(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x * (0.3 + 0.0005 * t[:, None])) + 0.1 * torch.sin(t[:, None] / 50)


def _data() -> Tensor:
    return torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _error(encode: Callable[[NoiseLevels], Plan], levels: NoiseLevels) -> float:
    latent = run(encode(levels), _network, _data())
    return float((run(ddim_rev(levels), _network, latent) - _data()).abs().max())


def leapfrog(levels: NoiseLevels) -> Plan:
    """The two-step plan from one state: its first row is DDIM-rev's."""
    first, rest = ddim_rev(levels), leapfrog_rest(levels)
    a, b = np.vstack([[first.a[0, 0], 0.0], rest.a]), np.vstack([first.b[:1], rest.b])
    return Plan(levels.level, levels.t, a, b, np.zeros(levels.num_steps), "two steps")


@pytest.mark.parametrize("num_steps", [2, 3, 10, 50])
@choices
def test_the_two_step_plan_is_undone_by_algebra(choice, num_steps):
    levels = choice.function(SCHEDULE, num_steps)
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


def _exact_tables(r: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along levels r, by the equations at 50 digits: b of first order, a and b of two steps."""
    with mpmath.workdps(50):
        level = [mpmath.mpf(float(value)) for value in r]
        u = [mpmath.sqrt(1 - value**2) / value for value in level]
        first = [[float(level[i + 1] * (u[i + 1] - u[i]))] for i in range(len(r) - 1)]
        a, b = [], []
        for i in range(1, len(r) - 1):
            before, after, end = u[i] - u[i - 1], u[i + 1] - u[i], level[i + 1]
            share = (after / before) ** 2
            a.append([float((1 - share) * end / level[i]), float(share * end / level[i - 1])])
            b.append([float(after * (before + after) / before * end)])
    return np.array(first), np.array(a), np.array(b)


@pytest.mark.parametrize("num_steps", [10, 50, 999])
@choices
def test_near_levels_cost_no_digits(choice, num_steps):
    """Weights of states to 1e-14 of the row's largest: the first passes through 0."""
    levels = choice.function(SCHEDULE, num_steps)
    encode, decode = first_order_inverse(levels), leapfrog(levels)
    two_steps = leapfrog_inverse(levels)
    for plan, r in ((decode, levels.level), (two_steps, levels.level[::-1])):
        first, a, b = _exact_tables(r)
        np.testing.assert_allclose(plan.b, np.vstack([first[:1], b]), rtol=1e-14)
        scale = np.abs(a).max(axis=1, keepdims=True)
        np.testing.assert_allclose(plan.a[1:] / scale, a / scale, rtol=0, atol=1e-14)
    np.testing.assert_allclose(encode.b, first, rtol=1e-14)
    np.testing.assert_allclose(encode.a[:, 0], r[1:] / r[:-1], rtol=1e-15)


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


def test_encoding_evaluates_the_network_at_the_steps_of_decoding():
    levels = levels_step(SCHEDULE, 6)
    steps: list[float] = []

    def watch(x: Tensor, t: Tensor) -> Tensor:
        steps.append(float(t[0]))
        return _network(x, t)

    run(first_order_inverse(levels), watch, _data())
    assert steps == list(levels.t[::-1])
    steps.clear()
    states: list[Tensor] = []
    run(leapfrog_inverse(levels), watch, _data(), callback=lambda _, x: states.append(x))
    encoding = steps[1:]
    steps.clear()
    run(leapfrog_rest(levels), watch, states[-2], past=[states[-1]])
    assert steps == encoding[::-1]


@pytest.mark.parametrize("encode", [first_order_inverse, second_order_inverse, leapfrog_inverse])
def test_a_network_that_predicts_clean_data_encodes_alike(encode):
    levels = levels_step(SCHEDULE, 10)
    plan = encode(levels)
    level_of = dict(zip(plan.t.tolist(), plan.network_level.tolist(), strict=True))

    def of_x0(x: Tensor, t: Tensor) -> Tensor:
        r = float(level_of[float(t[0])])
        return (x - math.sqrt(1 - r**2) * _network(x, t)) / r

    assert np.all(plan.network_level < 1)
    found = run(plan, X0Prediction(of_x0), _data())
    torch.testing.assert_close(found, run(plan, _network, _data()), rtol=1e-9, atol=1e-9)


def test_a_plan_from_a_pair_survives_json_and_wants_its_pair():
    plan = leapfrog_rest(levels_step(SCHEDULE, 6))
    again = Plan.from_json(plan.to_json())
    assert again.fingerprint == plan.fingerprint
    assert again.num_past == 1
    with pytest.raises(InvalidArgumentError, match=tells(1, "[]", "(4, 5)")):
        run(plan, _network, _data())
    with pytest.raises(InvalidArgumentError, match=tells(0, "[(4, 5)]")):
        run(ddim_rev(levels_step(SCHEDULE, 6)), _network, _data(), past=[_data()])


def test_two_steps_want_two_rows():
    single = levels_step(SCHEDULE, 2)[1:]
    for compile_plan in (leapfrog_rest, leapfrog_inverse):
        with pytest.raises(InvalidArgumentError, match=tells(2, 1)):
            compile_plan(single)


def test_a_plan_may_go_either_way_but_not_both():
    plan = first_order_inverse(levels_step(SCHEDULE, 6))
    assert np.all(np.diff(plan.level) < 0)
    level = plan.level.copy()
    level[3] = level[1]
    with pytest.raises(InvalidArgumentError, match=tells("level 3", 0.99995, 0.811812)):
        Plan(level, plan.t, plan.a, plan.b, plan.c)
