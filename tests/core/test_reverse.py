"""First-order plans: exact coefficients, and exact statistics on Gaussian data."""

from collections.abc import Callable
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdpm import InvalidArgumentError, VarianceSchedule, ddim_rev, levels_step, levels_var
from fastdpm.core import NoiseLevels, standard
from tests.messages import tells

CHOICES: list[Callable[..., NoiseLevels]] = [levels_step, levels_var]
DDPM = VarianceSchedule.linear()


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("num_steps", [2, 50, 1000])
def test_no_coefficient_loses_more_than_1e_12_of_its_levels(kappa, num_steps):
    plan = ddim_rev(levels_step(DDPM, num_steps), kappa)
    with mpmath.workdps(50):
        for s in range(plan.num_rows):
            r, r_next = (mpmath.mpf(v) for v in plan.level[s : s + 2])
            var, var_next = 1 - r**2, 1 - r_next**2
            c = mpmath.mpf(kappa) * mpmath.sqrt(var_next / var * (1 - (r / r_next) ** 2))
            b = mpmath.sqrt(var_next - c**2) - r_next / r * mpmath.sqrt(var)
            assert abs(plan.a[s, 0] * r / r_next - 1) < 1e-12
            assert abs(plan.b[s, 0] / b - 1) < 1e-12
            assert plan.c[s] == 0 if c == 0 else abs(plan.c[s] / c - 1) < 1e-12


@pytest.mark.parametrize("num_steps", [10, 50, 400, 999])
def test_coefficients_are_those_of_the_exact_schedule_to_1e_12(num_steps):
    """Against the betas in 50 digits."""
    plan = ddim_rev(levels_step(DDPM, num_steps), 1.0)
    with mpmath.workdps(50):
        product, alpha_bar = mpmath.mpf(1), [mpmath.mpf(1)]
        for beta in DDPM.betas:
            product *= 1 - mpmath.mpf(float(beta))
            alpha_bar.append(product)
        steps = [*(int(t) + 1 for t in plan.t), 0]
        for s, (t, t_next) in enumerate(pairwise(steps)):
            now, after = alpha_bar[t], alpha_bar[t_next]
            b = -(1 - now / after) / mpmath.sqrt((1 - now) * now / after)
            assert abs(plan.b[s, 0] / b - 1) < 1e-12


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 100), st.floats(0, 1), st.sampled_from(CHOICES))
def test_every_row_ends_at_the_variance_of_its_level(num_steps, kappa, choose):
    plan = ddim_rev(choose(DDPM, num_steps), kappa)
    var = 1 - plan.level**2
    after = (plan.a[:, 0] * np.sqrt(var[:-1]) + plan.b[:, 0]) ** 2 + plan.c**2
    np.testing.assert_allclose(after, var[1:], atol=1e-13)


def test_no_noise_is_drawn_without_kappa_nor_in_the_last_row():
    assert not ddim_rev(levels_step(DDPM, 10), 0.0).draws_noise
    noise = ddim_rev(levels_step(DDPM, 10), 1.0).c
    assert np.all(noise[:-1] > 0)
    assert noise[-1] == 0


def test_the_standard_sampler_has_the_published_coefficients():
    # Ho et al. 2020, alg. 2: x' = (x - beta / sqrt(1 - alpha_bar) eps) / sqrt(alpha) + sigma z
    betas, alpha_bar = DDPM.betas[::-1], DDPM.alpha_bar[::-1]
    previous = np.append(alpha_bar[1:], 1.0)
    for name, sigma in (
        ("small", np.sqrt(betas * (1 - previous) / (1 - alpha_bar))),
        ("large", np.append(np.sqrt(betas[:-1]), 0.0)),
    ):
        plan = standard(DDPM, name)
        np.testing.assert_allclose(plan.a[:, 0], 1 / np.sqrt(1 - betas), rtol=1e-9)
        np.testing.assert_allclose(
            plan.b[:, 0], -betas / np.sqrt((1 - alpha_bar) * (1 - betas)), rtol=1e-8
        )
        np.testing.assert_allclose(plan.c, sigma, rtol=1e-8, atol=1e-12)
        np.testing.assert_array_equal(plan.t, np.arange(999.0, -1, -1))


@pytest.mark.parametrize("kappa", [-0.1, 1.1, float("nan")])
def test_kappa_is_bounded(kappa):
    with pytest.raises(InvalidArgumentError, match=tells("kappa", "[0, 1]", kappa)):
        ddim_rev(levels_step(DDPM, 5), kappa)


def test_an_unknown_variance_is_refused():
    with pytest.raises(
        InvalidArgumentError, match=tells("variance", "small", "large", "learned", "medium")
    ):
        standard(DDPM, "medium")
