"""Spacings of steps are those of diffusers, and scales those of their definition."""

import re

import numpy as np
import pytest

from fastdpm import InvalidArgumentError, Recipe, VarianceSchedule, levels_step
from fastdpm.core import levels_sigma, levels_spaced
from tests.messages import tells

DDPM = VarianceSchedule.linear()
COSINE = VarianceSchedule.cosine()


@pytest.mark.parametrize(
    ("spacing", "steps"),
    [
        ("leading", [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]),
        ("leading-open", [900, 810, 720, 630, 540, 450, 360, 270, 180, 90]),
        ("linspace", [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("linspace-open", [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]),
        ("trailing", [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    ],
)
def test_steps_are_those_of_diffusers(spacing, steps):
    levels = levels_spaced(DDPM, 10, spacing)
    assert levels.t.tolist() == steps
    np.testing.assert_allclose(levels.level[:-1], DDPM.R(np.array(steps) + 1.0))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # their use of NumPy
@pytest.mark.parametrize("name", ["DDIMScheduler", "UniPCMultistepScheduler"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("num_steps", [3, 7, 24])
def test_steps_that_do_not_divide_t_are_those_of_diffusers(name, spacing, num_steps):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(timestep_spacing=spacing, beta_schedule="linear")
    scheduler.set_timesteps(num_steps)
    open_ended = "" if name == "DDIMScheduler" or spacing == "trailing" else "-open"
    levels = levels_spaced(DDPM, num_steps, f"{spacing}{open_ended}")
    assert levels.t.tolist() == scheduler.timesteps.tolist()


@pytest.mark.parametrize("schedule", [DDPM, COSINE], ids=["linear", "cosine"])
def test_scales_are_spaced_as_defined(schedule):
    def scales(spacing: str) -> np.ndarray:
        level = levels_sigma(schedule, 12, spacing).level[:-1]
        assert level[0] == schedule.levels[-1]
        assert spacing == "ays" or level[-1] == schedule.levels[1]
        return np.sqrt(1 - level**2) / level

    roots = scales("karras") ** (1 / 7)
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0], rtol=1e-6)
    logs = np.log(scales("log-snr"))
    np.testing.assert_allclose(np.diff(logs), np.diff(logs)[0], rtol=1e-6)
    assert np.all(np.diff(scales("ays")) < 0)


def test_ten_scales_for_stable_diffusion_are_the_published_ones():
    schedule = VarianceSchedule.scaled_linear(beta_start=0.00085, beta_end=0.012)
    level = levels_sigma(schedule, 10, "ays").level[:-1]
    published = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152]
    np.testing.assert_allclose(np.sqrt(1 - level**2) / level, published, rtol=5e-3)


def test_quadratic_steps_may_start_anywhere():
    assert levels_step(DDPM, 10, "quadratic", start=0.8).t.tolist() == (
        levels_step(DDPM, 10, "quadratic").t.tolist()
    )
    whole = levels_step(COSINE, 10, "quadratic", start=1.0)
    assert whole.t[0] == 999
    assert whole.notes == ()
    (note,) = levels_step(COSINE, 10, "quadratic").notes
    assert re.search(tells(0.3052, "`start`"), note)
    for start in (0.0, 1.1, -1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match=tells("`start`", "(0, 1]")):
            levels_step(DDPM, 10, "quadratic", start=start)
    with pytest.raises(InvalidArgumentError, match=tells("`start`", "quadratic")):
        levels_step(DDPM, 10, "linear", start=0.5)


def test_one_of_two_names_is_enough_to_choose_levels():
    recipe = Recipe(levels="step", spacing="quadratic", start=0.9)
    assert recipe.replace(num_steps=5).start == 0.9
    sigma = recipe.replace(levels="sigma")
    assert (sigma.levels, sigma.spacing, sigma.start) == ("sigma", "karras", None)
    assert sigma.replace(spacing="trailing").levels == "step"
    assert sigma.replace(spacing="log-snr").levels == "sigma"
    assert recipe.replace(levels="var").spacing == "quadratic"
    with pytest.raises(InvalidArgumentError, match=tells("spacing", "karras", "trailing")):
        recipe.replace(levels="sigma", spacing="trailing")
    with pytest.raises(InvalidArgumentError, match=tells("`start`", "VAR linear")):
        recipe.replace(levels="var", spacing="linear", start=0.5)


@pytest.mark.parametrize("method", ["heun", "dpm-solver-2", "restart", "unipc-3"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 9, 10])
def test_s_counts_evaluations(method, num_steps):
    for spacing in ("linear", "trailing"):
        recipe = Recipe(num_steps=num_steps, method=method, spacing=spacing)
        assert recipe.compile(DDPM).num_rows == num_steps
