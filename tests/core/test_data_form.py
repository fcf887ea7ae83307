"""The data form says the same as a plan, and a plan is built from it."""

import numpy as np
import pytest
import torch

from fastdpm import InvalidArgumentError, VarianceSchedule, run
from fastdpm.core import ddim_rev, dpmpp_2m, ipndm, levels_custom, levels_sigma, levels_var, unipc
from fastdpm.core.data_form import data_form, plan_of_data_form
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
LEVELS = levels_sigma(SCHEDULE, 6, "log-snr")
PLANS = [ddim_rev(LEVELS), dpmpp_2m(LEVELS), ipndm(LEVELS, 3), unipc(LEVELS, 3)]


def states(plan, start, predict):
    """All states of a run on numbers."""
    x, eps = [start], []
    for s in range(plan.num_rows):
        eps.append(predict(x[-1], plan.network_level[s]))
        old, last = (min(s + 1, table.shape[1]) for table in (plan.a, plan.b))
        new = plan.a[s, :old] @ np.array(x[::-1][:old])
        x.append(new + plan.b[s, :last] @ np.array(eps[::-1][:last]))
    return np.array(x), np.array(eps)


def wavy(x, level):
    return np.tanh(x) + 0.3 * np.sin(5 * level)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.label)
def test_the_states_of_a_plan_follow_from_its_data_form(plan):
    x, eps = states(plan, 0.7, wavy)
    r = plan.level
    data = (x[:-1] - np.sqrt(1 - r[:-1] ** 2) * eps) / r[:-1]
    table = data_form(plan)
    np.testing.assert_allclose(table[:, 0] * x[0] + table[:, 1:] @ data, x, atol=1e-12)
    np.testing.assert_allclose(table[:, 0] * r[0] + table[:, 1:].sum(axis=1), r, atol=1e-13)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.label)
def test_a_plan_built_from_a_data_form_has_it(plan):
    built = plan_of_data_form(LEVELS, data_form(plan), "built")
    np.testing.assert_allclose(data_form(built), data_form(plan), atol=1e-12)
    np.testing.assert_allclose(states(built, 0.7, wavy)[0], states(plan, 0.7, wavy)[0], atol=1e-12)


def test_any_coefficients_make_a_plan_and_the_signal_of_each_state_is_kept():
    levels = levels_custom(SCHEDULE, level=[0.01, 0.3, 0.9])
    table = np.tril(np.random.default_rng(0).normal(size=(4, 4)))
    plan = plan_of_data_form(levels, table, "random")
    found = data_form(plan)
    np.testing.assert_allclose(found[1:, 0], table[1:, 0], atol=1e-11)
    np.testing.assert_allclose(found[3, 1:3], table[3, 1:3], atol=1e-11)
    np.testing.assert_allclose(found[:, 0] * 0.01 + found[:, 1:].sum(axis=1), levels.level)


def test_plans_that_draw_noise_have_none():
    with pytest.raises(InvalidArgumentError, match=tells("data form", "noise")):
        data_form(ddim_rev(levels_var(SCHEDULE, 4), kappa=1.0))


def test_on_a_cosine_schedule_float32_is_nearly_as_exact_as_float64():
    schedule = VarianceSchedule.cosine()
    log_snr = np.linspace(np.log(schedule.levels[-1]), 2, 8)  # from R(T) = 4.9e-5
    level = np.maximum(1 / np.sqrt(1 + np.exp(-2 * log_snr)), schedule.levels[-1])
    levels = levels_custom(schedule, level=level)
    theory = data_form(dpmpp_2m(levels))
    table = theory + 0.05 * np.tril(np.random.default_rng(0).normal(size=theory.shape))
    table[0] = theory[0]
    plan = plan_of_data_form(levels, table, "learned")

    def network(x, t):  # clean data are -0.5 or 0.5, and the network answers with v
        r = float(schedule.R(float(t[0]) + 1))
        sigma = (1 - r**2) ** 0.5
        data = 0.5 * torch.tanh(0.5 * r * x.double() / sigma**2)
        v = ((r * x.double() - data) / sigma).to(x.dtype)
        return sigma * x + r * v

    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = run(plan, network, x)
    assert (run(plan, network, x.float()).double() - exact).abs().max() < 2e-3
