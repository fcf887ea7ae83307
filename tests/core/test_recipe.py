"""A recipe defines one plan, and every choice has an effect or is refused."""

import pytest

from fastdpm import InvalidArgumentError, Recipe, VarianceSchedule, ddim_rev, levels_var
from fastdpm.core import GuidanceScale
from tests.messages import tells

AUDIO = VarianceSchedule.linear(200)


def test_a_recipe_compiles_to_the_plan_it_names():
    recipe = Recipe(num_steps=8, levels="var", spacing="quadratic", kappa=0.5)
    expected = ddim_rev(levels_var(AUDIO, 8, "quadratic"), 0.5)
    assert recipe.compile(AUDIO).fingerprint == expected.fingerprint


@pytest.mark.parametrize("method", ["standard", "standard-large"])
def test_standard_methods_take_every_step(method):
    assert Recipe(method=method).compile(AUDIO).num_rows == 200


def test_every_method_compiles_to_a_different_plan():
    methods = ["ddim-rev", "dpmpp-2m", "dpmpp-3m", "multistep-3", "standard", "standard-large"]
    prints = {Recipe(num_steps=12, method=m).compile(AUDIO).fingerprint for m in methods}
    assert len(prints) == len(methods)


def test_custom_levels_replace_computed_ones():
    assert Recipe(at_steps=(150.0, 50.0, 0.0)).compile(AUDIO).t.tolist() == [150, 50, 0]
    assert Recipe(at_levels=(0.5, 0.9)).compile(AUDIO).level.tolist() == [0.5, 0.9, 1.0]
    assert Recipe(variances=(0.01, 0.3)).compile(AUDIO).num_rows == 2


def test_a_number_of_steps_drops_custom_levels():
    assert Recipe(at_steps=(150.0, 0.0)).replace(num_steps=5).compile(AUDIO).num_rows == 5


def test_custom_levels_replace_each_other():
    assert Recipe(variances=(0.01, 0.3)).replace(at_steps=(50.0, 5.0)).variances is None


def test_a_multistep_method_drops_the_recommended_noise():
    assert Recipe(kappa=1.0).replace(method="dpmpp-2m").kappa == 0


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ({"levels": "auto"}, ["levels", "var", "step", "auto"]),
        ({"spacing": "cubic"}, ["spacing", "linear", "quadratic", "cubic"]),
        ({"method": "euler"}, ["method", "ddim-rev", "dpmpp-2m", "standard", "euler"]),
        ({"clip": "hard"}, ["clip", "none", "x0", "dynamic", "hard"]),
        ({"kappa": 1.5}, ["kappa", "[0, 1]", 1.5]),
        ({"method": "dpmpp-2m", "kappa": 1.0}, ["dpmpp-2m", "kappa", "1.0"]),
        ({"method": "standard", "num_steps": 5}, ["standard", "num_steps"]),
        ({"method": "standard", "kappa": 0.5}, ["standard", "kappa"]),
        ({"at_steps": (5.0,), "num_steps": 5}, ["at_steps", "num_steps"]),
        ({"at_steps": (5.0,), "at_levels": (0.5,)}, ["at_levels", "at_steps"]),
        ({"levels": "step", "bounded": False}, ["levels", "var"]),
    ],
)
def test_choices_that_contradict_each_other_are_refused(choices, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        Recipe().replace(**choices)


def test_a_guidance_replaces_the_whole_guidance():
    recipe = Recipe(guidance_scale=2.0, guidance_interval=(0.2, 0.9), guidance_rescale=0.5)
    assert recipe.replace(guidance_scale=GuidanceScale(3.0)).guidance == GuidanceScale(3.0)
    assert recipe.replace(guidance_scale=3.0).guidance.interval == (0.2, 0.9)


def test_a_recipe_describes_itself():
    assert Recipe().describe() == "ddim-rev, STEP linear, S = 20, kappa = 0"
    assert Recipe(method="standard").describe() == "standard, all steps"
    assert "2 custom levels" in Recipe(at_levels=(0.1, 0.2)).describe()
