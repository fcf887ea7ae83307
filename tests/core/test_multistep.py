"""Multistep plans have the order they claim, measured on exact Gaussian trajectories."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from fastdpm import NoiseLevels, Plan, VarianceSchedule, ddim_rev, levels_step
from fastdpm.core import dpmpp_2m, dpmpp_3m, levels_custom, multistep_3
from fastdpm.core.multistep import phi
from fastdpm.core.samplers import SAMPLERS

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


def _sum_of_row_errors(plan: Plan) -> float:
    """One-row errors with full history on the trajectory x = std(r), final row left out."""
    std = np.sqrt(plan.level**2 * DATA_STD**2 + 1 - plan.level**2)
    eps = np.sqrt(1 - plan.level**2) / std  # exact: eps(x) = sqrt(1 - r^2) x / std^2
    columns = plan.b.shape[1]
    errors = [
        abs(
            plan.a[s] @ std[s : s - plan.a.shape[1] if s >= plan.a.shape[1] else None : -1]
            + plan.b[s] @ eps[s : s - columns if s >= columns else None : -1]
            - std[s + 1]
        )
        for s in range(columns - 1, plan.num_rows - 1)
    ]
    return float(np.sum(errors))


def _local_orders(method: Callable[[NoiseLevels], Plan]) -> np.ndarray:
    """Order between each two of S = 20, 40, 80, 160, 320."""
    sizes = [20, 40, 80, 160, 320]
    errors = [_sum_of_row_errors(method(_levels_even_in_log_snr(s))) for s in sizes]
    return -np.diff(np.log2(errors))


@pytest.mark.parametrize(
    ("method", "order", "tolerance"),
    [
        pytest.param(row.function, row.order, 0.1 + 0.1 * row.order, id=row.name)
        for row in SAMPLERS.values()
        if not row.all_steps and row.name != "dpmpp-3m"
    ],
)
def test_the_error_falls_with_the_order(
    method: Callable[[NoiseLevels], Plan], order: int, tolerance: float
):
    assert abs(_local_orders(method).mean() - order) <= tolerance


def test_3m_as_published_ends_in_second_order():
    """At few steps its third-order part is the larger one, so the order comes down from 2.9."""
    orders = _local_orders(dpmpp_3m)
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
