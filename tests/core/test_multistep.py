"""Multistep plans have the order they claim, measured on exact Gaussian trajectories."""

from collections.abc import Callable
from functools import partial

import mpmath
import numpy as np
import pytest

from fastdpm import NoiseLevels, Plan, VarianceSchedule, ddim_rev, levels_step
from fastdpm.core import dpmpp_2m, dpmpp_3m, levels_custom, multistep_3
from fastdpm.core.history import phi
from fastdpm.core.samplers import SAMPLERS
from fastdpm.core.schedule import Array

DDPM = VarianceSchedule.linear()
DATA_STD = 0.5


def _levels_even_in_log_snr(num_steps: int) -> NoiseLevels:
    """From R(T) to R(1), where the last row begins."""

    def log_snr(r):
        return np.log(r / np.sqrt((1 - r) * (1 + r)))

    grid = np.linspace(log_snr(DDPM.levels[-1]), log_snr(DDPM.levels[1]), num_steps)
    level = 1 / np.sqrt(1 + np.exp(-2 * grid))
    level[[0, -1]] = DDPM.levels[-1], DDPM.levels[1]
    return levels_custom(DDPM, level=level)


def _exact(plan: Plan) -> tuple[Array, Array]:
    """States on the trajectory x = std(r) of Gaussian data, and eps(x) / x, at each row."""
    std = np.sqrt(plan.level**2 * DATA_STD**2 + 1 - plan.level**2)
    return std, np.sqrt(1 - plan.level**2) / std**2


def _error(plan: Plan) -> float:
    """Error of the last state before the rows of lower order, from exact first states."""
    exact, slope = _exact(plan)
    columns = max(plan.a.shape[1], plan.b.shape[1])
    x = exact.copy()
    for s in range(columns - 1, plan.num_rows):
        back = np.arange(s, s - columns, -1)
        eps = slope[back] * x[back]
        x[s + 1] = plan.a[s] @ x[back][: plan.a.shape[1]] + plan.b[s] @ eps[: plan.b.shape[1]]
    return float(abs(x - exact)[: -columns - 1].max())


def _orders(method: Callable[[NoiseLevels], Plan]) -> Array:
    """Order between each two of S = 20, 40, 80, 160."""
    sizes = [20, 40, 80, 160]
    return -np.diff(np.log2([_error(method(_levels_even_in_log_snr(s))) for s in sizes]))


@pytest.mark.parametrize(
    ("method", "order", "tolerance"),
    [
        pytest.param(
            partial(row.over, schedule=DDPM), row.order, 0.1 + 0.1 * row.order, id=row.name
        )
        for row in SAMPLERS.values()
        if not row.draws_noise and row.name != "dpmpp-3m"
    ],
)
def test_the_error_falls_with_the_order(
    method: Callable[[NoiseLevels], Plan], order: int, tolerance: float
):
    assert abs(_orders(method)[1:].mean() - order) <= tolerance


def test_3m_as_published_ends_in_second_order():
    """At few steps its third-order part is the larger one, so the order comes down from 2.9."""
    orders = _orders(dpmpp_3m)
    assert np.all(np.diff(orders) < 0)
    assert abs(orders[-1] - 2) <= 0.2


def test_phi_functions_are_exact_to_1e_14():
    with mpmath.workdps(40):
        for k in (1, 2, 3):
            for h in (1e-8, 1e-3, 0.3, 0.999, 1.0, 1.001, 4.0, 30.0):
                z = mpmath.mpf(-h)
                rest = mpmath.e**z - sum(z**j / mpmath.factorial(j) for j in range(k))
                assert abs(float(mpmath.mpf(phi(k, h)) / (rest / z**k)) - 1) < 1e-14


def test_the_first_and_the_last_row_fall_back_to_first_order():
    levels = levels_step(DDPM, 12)
    first_order = ddim_rev(levels)
    for method in (dpmpp_2m, dpmpp_3m, multistep_3):
        plan = method(levels)
        for row in (0, 11):
            assert np.count_nonzero(plan.b[row]) == 1
            np.testing.assert_allclose(plan.a[row, 0], first_order.a[row, 0], rtol=1e-12)
            np.testing.assert_allclose(plan.b[row, 0], first_order.b[row, 0], rtol=1e-12)
    third = multistep_3(levels)
    assert [np.count_nonzero(row) for row in third.b] == [1, 2] + [3] * 8 + [2, 1]


def test_third_order_doubles_one_term_of_3m():
    levels = levels_step(DDPM, 8)
    published, third = dpmpp_3m(levels), multistep_3(levels)
    assert np.abs(published.b[2:6] - third.b[2:6]).max() > 1e-3
    np.testing.assert_array_equal(published.b[[0, 1, 6, 7]], third.b[[0, 1, 6, 7]])


def test_plans_may_stop_short_of_clean_data():
    part = levels_step(DDPM, 10)[2:6]
    for method in (ddim_rev, dpmpp_2m, multistep_3):
        plan = method(part)
        assert plan.num_rows == 4
        assert plan.level[-1] < 1
