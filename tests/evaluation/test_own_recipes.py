"""Recipes of one's own in model folders, and by name wherever a model samples."""

import re

import pytest
import torch

from fastdpm import InvalidArgumentError, Recipe, compare, convert, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.core.methods import gits_recipes
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.report.words import options_of
from tests.messages import tells

_TEXT = """
[by-hand]
at_steps = [90, 40.5, 3]
kappa = 0.5

[other]
method = "dpmpp-2m"
spacing = "trailing"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "recipes.toml"
    path.write_text(_TEXT)
    return path


@pytest.fixture
def model(folders, file, tmp_path):
    """A model with the recipes in its folder, of which it recommends one."""
    convert(folders["image"], tmp_path / "model", recipes=file, recipe="other")
    return load_model(tmp_path / "model")


def test_a_model_folder_keeps_recipes_and_recommends_one(model, tmp_path):
    assert model.config.recipe.method == "dpmpp-2m"
    assert model.config.recipes["by-hand"].at_steps == (90.0, 40.5, 3.0)
    assert "by-hand" in (tmp_path / "model" / "README.md").read_text()


def test_a_recipe_is_sampled_by_its_name_or_as_it_is(model):
    own = Recipe(at_steps=(90.0, 40.5, 3.0), kappa=0.5)
    expected = model.sample(2, plan=own.compile(model.schedule))
    assert torch.equal(model.sample(2, recipe="by-hand"), expected)
    assert torch.equal(model.sample(2, recipe=own), expected)
    by_key = model.sample(2, recipe="var-quadratic-k1", num_steps=4)
    stated = Recipe(levels="var", spacing="quadratic", kappa=1.0)
    assert torch.equal(by_key, model.sample(2, recipe=stated, num_steps=4))
    with pytest.raises(InvalidArgumentError, match=tells("by-hand", "num_steps")):
        model.sample(2, recipe="by-hand", num_steps=4)
    with pytest.raises(InvalidArgumentError, match=tells("'nix'", "by-hand, other", "key")):
        model.sample(2, recipe="nix")
    with pytest.raises(InvalidArgumentError, match=tells("recipe", "plan")):
        model.sample(2, recipe="by-hand", plan=own.compile(model.schedule))


def test_a_recipe_is_compared_at_its_own_number_of_steps(model, file, features, image_folder):
    measuring = MeasureOptions(str(image_folder), 20, features["image"])
    more = {"short": Recipe(at_levels=(0.3, 0.8))}
    found = compare(
        model, [4, 5], ["by-hand", "short", "other"], recipes=more, measuring=measuring
    )
    cells = [(cell.method, cell.num_steps, cell.evaluations) for cell in found.cells]
    assert cells == [("by-hand", 3, 3), ("short", 2, 2), ("other", 4, 4), ("other", 5, 5)]
    assert found.cells[1].recipe == Recipe(at_levels=(0.3, 0.8))
    again = evaluate(
        model,
        recipe=found.cells[0].recipe,
        n=20,
        against=str(image_folder),
        features=features["image"],
    )
    assert again.scores == found.cells[0].scores
    grouped = compare(model, 4, "recipes", measuring=measuring)
    assert {cell.method for cell in grouped.cells} == {"by-hand", "other"}


def test_what_a_comparison_cannot_use_is_refused(folders, file, features, image_folder):
    measuring = MeasureOptions(str(image_folder), 20, features["image"])
    for steps, methods, recipes, values in (
        (4, "recipes", None, ["no recipes", "recipes"]),
        (4, ["by-hand"], file, ["steps", "no effect"]),
        (4, ["nix"], file, ["'nix'", "by-hand, other"]),
        (None, "high", {"high": Recipe(at_steps=(500.0,))}, ["'high'", 500]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            compare(folders["image"], steps, methods, recipes=recipes, measuring=measuring)


def test_the_levels_of_gits_are_sampled_by_the_options_of_the_report(
    folders,
    features,
    image_folder,
    capsys,
):
    model = str(folders["image"])
    measuring = MeasureOptions(str(image_folder), 20, features["image"])
    methods = ["dpmpp-2m-gits", "heun-gits", "gits-k1"]
    found = compare(model, [5], methods, measuring=measuring)
    assert [cell.evaluations for cell in found.cells] == [5, 5, 5]
    stated = [cell.recipe for cell in found.cells if cell.recipe is not None]
    assert [len(recipe.at_levels or ()) for recipe in stated] == [5, 3, 5]
    again = compare(model, [5], methods, measuring=measuring)
    assert again.cells == found.cells
    for cell in found.cells:
        options = options_of(found, cell).partition(" --clip")[0].split()
        assert fastdpm(["plan", model, *options]) == 0
        assert cell.plan in capsys.readouterr().out
    with pytest.raises(InvalidArgumentError, match=tells("gits-k0", "comparison")):
        next(gits_recipes([0.0])).at(5)


def test_a_sampler_of_diffusers_without_a_recipe_is_sampled_by_its_plan(folders, tmp_path, capsys):
    model = str(folders["image"])
    named = [model, "--recipe", "diffusers-deis-leading", "-S", "4"]
    assert fastdpm(["sample", *named, "-n", "2", "--out", str(tmp_path / "out")]) == 0
    assert "4 network evaluations" in capsys.readouterr().out
    assert fastdpm(["plan", *named]) == 0
    assert "4 network evaluations" in capsys.readouterr().out
    for arguments, values in (
        (["sample", *named, "--kappa", "0.5"], ["--recipe", "--kappa"]),
        (["sample", model, "--recipe", "diffusers-nix"], ["--recipe", "diffusers-nix"]),
        (["sample", model, "--recipe", "diffusers-ddpm-leading"], ["draws noise"]),
    ):
        assert fastdpm(arguments) == 2
        assert re.search(tells(*values), capsys.readouterr().err)


def test_commands_take_recipes_by_name(folders, file, tmp_path, capsys):
    model = str(folders["image"])
    named = ["plan", model, "--recipes", str(file), "--recipe"]
    assert fastdpm([*named, "by-hand"]) == 0
    assert re.search(tells("3 custom levels", "40.500"), capsys.readouterr().out)
    assert fastdpm(["plan", model, "--recipe", "diffusers-unipc-trailing", "-S", "5"]) == 0
    assert re.search(tells("UniPC 2", "STEP trailing, S = 5"), capsys.readouterr().out)
    for arguments, values in (
        ([*named, "by-hand", "-S", "4"], ["by-hand", "--steps"]),
        ([*named, "nix"], ["--recipe", "by-hand, other"]),
        (["plan", model, "--recipe", "unipc-3-gits"], ["unipc-3-gits", "compare"]),
        (["plan", model, "--recipes", str(file)], ["by-hand, other", "--recipe"]),
        (["plan", model, "--recipe", "diffusers-ddpm-leading"], ["diffusers-ddpm-leading"]),
    ):
        assert fastdpm(arguments) == 2
        assert re.search(tells(*values), capsys.readouterr().err)
