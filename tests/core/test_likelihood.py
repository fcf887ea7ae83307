"""Coefficients of the bound: the posterior of the diffusion, by Bayes' rule and in closed form."""

import numpy as np
import pytest

from fastdpm import InvalidArgumentError, VarianceSchedule, levels_step
from fastdpm.core import levels_all
from fastdpm.core.choices import CHOICES
from fastdpm.core.likelihood import GreyLevels, bound_coefficients, forward_variances
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
LEVELS = [
    choice.function(SCHEDULE, num_steps)
    for choice in CHOICES.values()
    for num_steps in (2, 10, 50)
]


def test_over_all_steps_the_variances_are_those_of_the_schedule():
    found = bound_coefficients(levels_all(SCHEDULE))
    betas, alpha_bar = SCHEDULE.betas, SCHEDULE.alpha_bar
    np.testing.assert_allclose(found.largest[::-1], betas, rtol=1e-9)
    posterior = (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:]) * betas[1:]
    np.testing.assert_allclose(found.posterior[::-1], posterior, rtol=1e-8)
    assert found.smallest[-1] == found.posterior[-1]


@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels.label)
def test_the_posterior_is_that_of_bayes_rule(levels):
    """Precisions add: that of x' given x0, and that of x given x'."""
    found, eta = bound_coefficients(levels), forward_variances(levels)
    r, r_next = levels.level[:-2], levels.level[1:-1]
    precision = 1 / (1 - r_next**2) + (r / r_next) ** 2 / eta[:-1]
    np.testing.assert_allclose(found.posterior, 1 / precision, rtol=1e-9)
    of_x0 = r_next / (1 - r_next**2) / precision
    np.testing.assert_allclose(
        found.mean_scale, of_x0 * np.sqrt(1 - r**2) / r, rtol=1e-9, err_msg="of eps"
    )


@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels.label)
def test_an_error_of_x0_costs_what_the_signal_to_noise_ratios_say(levels):
    """KL with the posterior's variance is half the rise of SNR times the squared error of x0."""
    found = bound_coefficients(levels)
    snr = levels.level[:-1] ** 2 / (1 - levels.level[:-1] ** 2)
    of_eps = found.mean_scale**2 / found.posterior
    np.testing.assert_allclose(of_eps, np.diff(snr) / snr[:-1], rtol=1e-8)


def test_levels_that_stop_above_clean_data_have_no_likelihood():
    with pytest.raises(InvalidArgumentError, match=tells("(1)", 0.364506)):
        bound_coefficients(levels_step(SCHEDULE, 10)[:5])


def test_grey_levels_are_placed_as_images_and_sounds_have_them():
    image, sound = GreyLevels.spanning(256), GreyLevels.signed(65_536)
    assert image.low == -1
    assert image.high == pytest.approx(1, abs=1e-12)
    assert image.step == 1 / 127.5
    assert (sound.low, sound.high, sound.step) == (-1, 32767 / 32768, 1 / 32768)
    for count in (0, 1, -3):
        for make in (GreyLevels.spanning, GreyLevels.signed):
            with pytest.raises(InvalidArgumentError, match=tells(2, count)):
                make(count)
