"""The scale of guidance of each row, and what it costs."""

import numpy as np
import pytest

from fastdpm import InvalidArgumentError, Recipe, VarianceSchedule
from fastdpm.core import GuidanceScale
from fastdpm.core.structure import build, plain
from tests.messages import tells

LEVEL = np.array([0.1, 0.4, 0.8])


@pytest.mark.parametrize(
    ("guidance", "scales", "evaluations"),
    [
        (GuidanceScale(), [1, 1, 1], 3),
        (GuidanceScale(2), [2, 2, 2], 6),
        (GuidanceScale(0), [0, 0, 0], 3),
        (GuidanceScale(-1), [-1, -1, -1], 6),
        (GuidanceScale(0, rescale=0.5), [0, 0, 0], 6),
        (GuidanceScale(2, interval=(0.4, 0.5)), [1, 2, 1], 4),
        (GuidanceScale((1, 0, 3)), [1, 0, 3], 4),
    ],
)
def test_each_row_has_a_scale_and_two_evaluations_if_it_is_neither_0_nor_1(
    guidance, scales, evaluations
):
    assert guidance.per_row(LEVEL).tolist() == scales
    assert guidance.evaluations(LEVEL) == evaluations


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"scale": float("nan")}, ["guidance_scale", "nan"]),
        ({"scale": [1, float("inf")]}, ["guidance_scale", "inf"]),
        ({"scale": "2"}, ["guidance_scale", "'2'"]),
        ({"scale": True}, ["guidance_scale", "True"]),
        ({"scale": []}, ["guidance_scale", "none"]),
        ({"scale": 2, "rescale": 1.5}, ["guidance_rescale", "[0, 1]", 1.5]),
        ({"scale": 2, "interval": (0.9, 0.2)}, ["guidance_interval", "(0.9, 0.2)"]),
        ({"scale": 2, "interval": (0.2,)}, ["guidance_interval", "(0.2,)"]),
        ({"scale": [2, 3], "interval": (0.2, 0.9)}, ["guidance_scale", "guidance_interval"]),
        ({"interval": (0.2, 0.9)}, ["guidance_interval", "guidance_scale", 1]),
        ({"rescale": 0.5}, ["guidance_rescale", "guidance_scale", 1]),
    ],
)
def test_a_value_out_of_range_or_without_effect_is_refused(values, expected):
    with pytest.raises(InvalidArgumentError, match=tells(*expected)):
        GuidanceScale(**values)


def test_a_list_has_one_scale_for_each_row():
    with pytest.raises(InvalidArgumentError, match=tells("guidance_scale", 3, 2)):
        GuidanceScale((1, 2)).per_row(LEVEL)
    twice = np.array([0.1, 0.1, 0.8])
    assert GuidanceScale((2, 2, 3)).per_row(twice).tolist() == [2, 2, 3]
    with pytest.raises(InvalidArgumentError, match=tells("guidance_scale")):
        GuidanceScale((1, 2, 3)).per_row(twice)


def test_an_unguided_recipe_is_written_as_before():
    recipe = Recipe(num_steps=3)
    assert not {name for name in plain(recipe) if "guidance" in name}
    assert recipe == Recipe(num_steps=3, guidance_scale=1)
    assert recipe.describe() == "ddim-rev, STEP linear, S = 3, kappa = 0"


@pytest.mark.parametrize(
    "choices",
    [
        {"guidance_scale": 2.5},
        {"guidance_scale": [1, 2, 3]},
        {"guidance_scale": np.array([1.0, 2.0, 3.0])},
        {"guidance_scale": 2, "guidance_interval": (0.2, 0.9), "guidance_rescale": 0.7},
    ],
)
def test_a_guided_recipe_survives_its_file_and_compiles_to_the_same_plan(choices):
    recipe = Recipe(num_steps=3).replace(**choices)
    assert build(Recipe, plain(recipe), "recipe") == recipe
    schedule = VarianceSchedule.linear(50)
    plans = [r.compile(schedule).fingerprint for r in (recipe, Recipe(num_steps=3))]
    assert plans[0] == plans[1]
    assert recipe.describe() != Recipe(num_steps=3).describe()


def test_no_guidance_drops_the_recommended_interval():
    recipe = Recipe(guidance_scale=2, guidance_interval=(0.2, 0.9), guidance_rescale=0.5)
    assert recipe.replace(guidance_scale=1) == Recipe()
    assert recipe.replace(guidance_scale=3).guidance_interval == (0.2, 0.9)


def test_a_number_keeps_the_interval_and_numbers_the_rescaling_of_the_default():
    default = GuidanceScale(2, interval=(0.1, 0.9), rescale=0.5)
    assert GuidanceScale.of(None, default) == default
    assert GuidanceScale.of(None) == GuidanceScale(1)
    assert GuidanceScale.of(3, default) == GuidanceScale(3, (0.1, 0.9), 0.5)
    assert GuidanceScale.of([3, 1], default) == GuidanceScale((3, 1), None, 0.5)
    assert GuidanceScale.of(1, default) == GuidanceScale(1)
    assert GuidanceScale.of(GuidanceScale(4), default) == GuidanceScale(4)
    recipe = Recipe(
        num_steps=2, guidance_scale=2, guidance_interval=(0.1, 0.9), guidance_rescale=0.5
    )
    for value in (3, [3, 1], 1, GuidanceScale(4)):
        changed = recipe.replace(guidance_scale=value).guidance
        assert changed == GuidanceScale.of(value, default)
    narrow = recipe.replace(guidance_scale=3, guidance_interval=(0.2, 0.3))
    assert narrow.guidance == GuidanceScale(3, (0.2, 0.3), 0.5)
