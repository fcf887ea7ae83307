"""R and T are inverse, monotone, and equal the running product at every training step."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdpm import InvalidArgumentError, VarianceSchedule
from tests.messages import tells

SCHEDULES = {
    "ddpm": VarianceSchedule.linear(1000, 1e-4, 0.02),
    "diffwave": VarianceSchedule.linear(200, 1e-4, 0.02),
    "ljspeech": VarianceSchedule.linear(50, 1e-4, 0.05),
    "steep": VarianceSchedule.linear(100, 1e-4, 0.999),
    "three": VarianceSchedule.linear(3, 0.1, 0.9),
    "constant": VarianceSchedule.linear(10, 0.02, 0.02),
    "cosine": VarianceSchedule.cosine(1000),
    "latent": VarianceSchedule.scaled_linear(1000),
    "table": VarianceSchedule.from_betas([1e-5, 0.3, 0.001, 0.9, 0.2]),
    "single": VarianceSchedule.from_betas([0.3]),
}


@pytest.fixture(params=list(SCHEDULES))
def schedule(request) -> VarianceSchedule:
    return SCHEDULES[request.param]


def test_R_equals_the_product_at_every_integer_step(schedule):
    steps = np.arange(1, schedule.num_train_steps + 1)
    np.testing.assert_allclose(schedule.R(steps), np.sqrt(schedule.alpha_bar), rtol=1e-9)


def test_R_matches_the_gamma_form_in_high_precision():
    schedule = VarianceSchedule.linear(1000, 1e-4, 0.02)
    with mpmath.workdps(60):
        slope = (mpmath.mpf(0.02) - mpmath.mpf(1e-4)) / 999
        b = (1 - mpmath.mpf(1e-4)) / slope
        for t in (1.0, 1.5, 17.25, 333.3, 999.999):
            exact = mpmath.sqrt(slope**t * mpmath.gamma(b + 1) / mpmath.gamma(b - t + 1))
            assert abs(float(schedule.R(t) / exact - 1)) < 1e-12


def test_T_inverts_R_over_the_whole_range(schedule):
    total = schedule.num_train_steps
    t = np.concatenate([np.linspace(0, total, 2001), np.linspace(0, min(3, total), 501)])
    assert np.abs(schedule.T(schedule.R(t)) - t).max() < 1e-8


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.sampled_from(sorted(SCHEDULES)))
def test_T_inverts_R_at_any_step(share, name):
    schedule = SCHEDULES[name]
    t = share * schedule.num_train_steps
    assert abs(float(schedule.T(schedule.R(t))) - t) < 1e-8


def test_R_falls_strictly_also_before_the_first_step(schedule):
    t = np.linspace(0, schedule.num_train_steps, 20001)
    assert np.all(np.diff(schedule.R(t)) < 0)


def test_the_ends_are_exact(schedule):
    assert schedule.R(0.0) == 1.0
    assert schedule.T(1.0) == 0.0
    assert schedule.T(schedule.R(schedule.num_train_steps)) == schedule.num_train_steps


def test_T_refuses_levels_outside_the_schedule(schedule):
    for level in (1.0000001, np.nextafter(schedule.levels[-1], 0), float("nan")):
        with pytest.raises(
            InvalidArgumentError,
            match=tells("level", f"[{schedule.levels[-1]:.6g}, 1]", f"{level:.6g}"),
        ):
            schedule.T(level)


def test_R_refuses_steps_outside_the_schedule(schedule):
    for t in (-1e-9, schedule.num_train_steps + 1e-6):
        with pytest.raises(
            InvalidArgumentError, match=tells("t", f"[0, {schedule.num_train_steps}]", f"{t:.6g}")
        ):
            schedule.R([0.0, t])


def test_scalars_give_scalars_and_shapes_are_kept():
    schedule = SCHEDULES["ddpm"]
    assert schedule.R(3.5).shape == ()
    assert schedule.T(schedule.R(np.ones((2, 3)))).shape == (2, 3)


def test_a_schedule_survives_its_config(schedule):
    again = VarianceSchedule.from_config(schedule.config)
    np.testing.assert_array_equal(again.levels, schedule.levels)


@pytest.mark.parametrize("betas", [[], [0.1, 1.0], [0.0], [[0.1]], [0.1, float("nan")]])
def test_impossible_tables_are_refused(betas):
    with pytest.raises(InvalidArgumentError):
        VarianceSchedule.from_betas(betas)


def test_zero_terminal_signal_names_its_step():
    with pytest.raises(InvalidArgumentError, match=tells("betas", "(0, 1)", 1, "step 2 of 2")):
        VarianceSchedule.from_betas([0.5, 1.0])


@pytest.mark.parametrize(
    "config",
    [{"type": "sigmoid"}, {}, {"type": "linear", "steps": 3}, {"type": "linear", "beta_end": 2}],
)
def test_unknown_configs_are_refused(config):
    with pytest.raises(InvalidArgumentError):
        VarianceSchedule.from_config(config)
