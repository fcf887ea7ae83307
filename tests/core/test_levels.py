"""The choices of levels are the paper's, and what they change silently they say."""

import re
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdpm import (
    InvalidArgumentError,
    NoiseLevels,
    Recipe,
    VarianceSchedule,
    levels_step,
    levels_var,
)
from fastdpm.core import levels_all, levels_custom, levels_from_variances
from tests.messages import tells

DDPM = VarianceSchedule.linear()
AUDIO = VarianceSchedule.linear(200)


def test_step_linear_takes_every_integer_exactly():
    for num_steps in range(2, 201):
        t = levels_step(AUDIO, num_steps).t
        assert t[0] == 199
        assert t[-1] == 0
        assert t.size == num_steps


def test_step_quadratic_is_the_floor_of_the_exact_square():
    from fractions import Fraction

    for num_steps in (2, 7, 29, 50, 200):
        exact = {
            int(Fraction(4 * 1000 * i * i, 5 * (num_steps - 1) ** 2)) for i in range(num_steps)
        }
        assert levels_step(DDPM, num_steps, "quadratic").t.tolist() == sorted(exact, reverse=True)


def test_merged_steps_are_noted():
    levels = levels_step(DDPM, 50, "quadratic")
    assert levels.num_steps == 49
    assert re.search(tells(50, 49), levels.notes[0])
    assert levels_step(DDPM, 29, "quadratic").notes == ()


@pytest.mark.parametrize("num_steps", [2, 3, 10, 50, 1000])
def test_unbounded_var_reaches_the_last_level_of_the_schedule(num_steps):
    for spacing in ("linear", "quadratic"):
        levels = levels_var(DDPM, num_steps, spacing, bounded=False)
        assert abs(levels.level[0] / DDPM.levels[-1] - 1) < 1e-10
        assert abs(levels.t[0] - 999) < 1e-6
        assert levels.notes == ()


def test_var_variances_have_the_stated_form():
    for spacing, power in (("linear", 1.0), ("quadratic", 0.5)):
        level = levels_var(DDPM, 20, spacing, bounded=False).level
        variances = (1 - (level[:-1] / level[1:]) ** 2)[::-1]
        steps = np.diff(variances**power)
        np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)
        assert abs(variances[0] - 1e-4) < 1e-12


def test_var_at_the_bound_starts_cleaner_and_says_so():
    levels = levels_var(DDPM, 20, "quadratic")
    largest = 1 - (levels.level[0] / levels.level[1]) ** 2
    assert abs(largest - 1e-4 * (1 + 19 * 0.95 / (20 * 0.01)) ** 2) < 1e-12
    assert levels.level[0] > DDPM.levels[-1]
    values = (f"{levels.level[0]:.4g}", 0.006353, "bounded=False", "--unbounded")
    assert re.search(tells(*values), levels.notes[0])
    assert levels_var(DDPM, 23, "quadratic").notes == ()
    assert (
        abs(1 - (levels_var(DDPM, 2).level[0] / levels_var(DDPM, 2).level[1]) ** 2 - 0.99) < 1e-12
    )


def test_var_stays_below_one_where_the_first_variance_is_large():
    schedule = VarianceSchedule.from_betas([0.3, 0.4, 0.5, 0.6, 0.7])
    for spacing in ("linear", "quadratic"):
        for bounded in (True, False):
            levels = levels_var(schedule, 3, spacing, bounded=bounded)
            assert levels.level[0] == pytest.approx(schedule.levels[-1], rel=1e-9)


@pytest.mark.parametrize(("steps", "beta"), [(10, 0.02), (7, 0.3), (50, 0.05)])
def test_var_finds_a_constant_schedule(steps, beta):
    levels = levels_var(VarianceSchedule.linear(steps, beta, beta), steps)
    assert np.allclose((levels.level[:-1] / levels.level[1:]) ** 2, 1 - beta)


def test_var_with_every_step_is_the_schedule_itself():
    np.testing.assert_allclose(levels_var(AUDIO, 200).level, AUDIO.levels[::-1], rtol=1e-9)


def test_var_without_a_root_is_refused():
    noisy = VarianceSchedule.from_betas(np.linspace(1e-4, 0.9, 100))
    with pytest.raises(InvalidArgumentError, match=tells("VAR linear", "S = 2")):
        levels_var(noisy, 2, bounded=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.sampled_from(["linear", "quadratic"]), st.booleans())
def test_var_levels_and_steps_belong_together(num_steps, spacing, bounded):
    levels = levels_var(AUDIO, num_steps, spacing, bounded=bounded)
    np.testing.assert_allclose(AUDIO.R(levels.t + 1), levels.level[:-1], rtol=1e-12)
    assert np.all((levels.t > -1) & (levels.t <= 199))


@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
@pytest.mark.parametrize("choose", [levels_step, levels_var, partial(levels_var, bounded=False)])
def test_a_single_step_goes_from_full_noise_to_clean_data(choose, spacing):
    levels = choose(DDPM, 1, spacing)
    assert levels.t.tolist() == [999.0]
    assert levels.level.tolist() == [float(DDPM.R(1000)), 1.0]


@pytest.mark.parametrize("choose", [levels_step, levels_var])
def test_a_number_of_steps_is_a_whole_number_of_any_type(choose):
    wanted = choose(AUDIO, 10).level
    for count in (10.0, np.int64(10)):
        np.testing.assert_array_equal(choose(AUDIO, count).level, wanted)
    for wrong in (5.5, "3", True, None, [2]):
        with pytest.raises(InvalidArgumentError, match=tells("`num_steps`", repr(wrong))):
            choose(AUDIO, wrong)


@pytest.mark.parametrize("num_steps", [0, -3, 201])
@pytest.mark.parametrize("choose", [levels_step, levels_var])
def test_the_number_of_steps_is_bounded(choose, num_steps):
    with pytest.raises(InvalidArgumentError, match=tells("[1, 200]", num_steps)):
        choose(AUDIO, num_steps)


def test_an_unknown_spacing_is_refused():
    with pytest.raises(
        InvalidArgumentError, match=tells("spacing", "linear", "quadratic", "cubic")
    ):
        levels_step(AUDIO, 5, "cubic")


def test_variances_by_hand_give_the_published_steps():
    # Kong et al. 2021, appendix B: DiffWave's six-step schedule on T = 50 (its steps, rounded).
    schedule = VarianceSchedule.linear(50, 1e-4, 0.05)
    levels = levels_from_variances(schedule, [1e-4, 1e-3, 0.01, 0.05, 0.2, 0.35])
    assert levels.level[0] == pytest.approx(
        np.sqrt(np.prod([0.9999, 0.999, 0.99, 0.95, 0.8, 0.65]))
    )
    assert np.all(np.diff(levels.t) < 0)


def test_variances_beyond_the_schedule_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells(0.09487, 0.3636)):
        levels_from_variances(AUDIO, [0.1, 0.99])
    with pytest.raises(InvalidArgumentError, match=tells("variances", "(0, 1)", "[0.1, 1.0]")):
        levels_from_variances(AUDIO, [0.1, 1.0])


def test_falling_variances_are_noted():
    rising, falling = (levels_from_variances(AUDIO, v) for v in ([0.1, 0.2], [0.2, 0.1]))
    assert len(falling.notes) == len(rising.notes) + 1
    assert re.search(tells("0.1,0.2"), falling.notes[-1])  # what to pass instead


def test_a_custom_start_far_from_noise_is_noted():
    assert re.search(tells("level 0.9", 0.006353), levels_custom(DDPM, level=[0.9]).notes[0])
    assert levels_from_variances(AUDIO, [0.01, 0.1]).notes
    assert levels_custom(DDPM, t=[999.0, 10.0]).notes == ()


def test_custom_levels_and_steps_agree():
    by_step = levels_custom(DDPM, t=[900.5, 300, 0])
    by_level = levels_custom(DDPM, level=by_step.level[:-1])
    np.testing.assert_allclose(by_level.t, by_step.t, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ({}, []),
        ({"t": [5.0], "level": [0.5]}, []),
        ({"t": [1000.0]}, ["(-1, 999]", 1000]),
        ({"t": [-1.0]}, ["(-1, 999]", -1]),
        ({"t": [10, 20]}, ["`t`", "fall", "20 after 10"]),
        ({"t": [10, 10]}, ["`t`", "fall", "10 after 10"]),
        ({"level": [0.5, 0.4]}, ["level 1", 0.4, 0.5]),
        ({"level": [0.5, 1.0]}, ["level 1 of 3", "(0, 1)"]),
        ({"level": [0.0, 0.5]}, ["level 0 of 3", "(0, 1)"]),
        ({"level": [0.001, 0.5]}, ["level", "[0.00635282, 1]", 0.001]),
    ],
)
def test_impossible_levels_by_hand_are_refused(arguments, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        levels_custom(DDPM, **arguments)


def test_a_part_of_a_chain_keeps_its_levels():
    levels = levels_step(DDPM, 10)
    part = levels[3:7]
    np.testing.assert_array_equal(part.level, levels.level[3:8])
    np.testing.assert_array_equal(part.t, levels.t[3:7])
    with pytest.raises(InvalidArgumentError, match=tells(10, "slice(7, 7, None)")):
        levels[7:7]


def test_levels_cannot_be_changed_afterwards():
    levels = levels_all(AUDIO)
    assert levels.num_steps == 200
    with pytest.raises(ValueError, match="read-only"):
        levels.level[0] = 0.5


def test_mismatched_tables_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells("S + 1", "(2,)")):
        NoiseLevels(np.array([0.5, 1.0]), np.array([3.0, 2.0]))


@pytest.mark.parametrize("name", ["at_levels", "at_steps", "variances"])
def test_nothing_by_hand_is_refused(name):
    with pytest.raises(InvalidArgumentError, match="none"):
        Recipe().replace(**{name: ()}).compile(VarianceSchedule.linear())
