"""Recipes of one's own: what a file may state, and what is refused in one line."""

import pytest

from fastdpm import InvalidArgumentError, Recipe
from fastdpm.core import read_recipes
from tests.messages import tells

RECOMMENDED = Recipe(num_steps=6, levels="var", kappa=1.0, clip="x0")


@pytest.fixture
def read(tmp_path):
    def read(text: str, *recommended: Recipe) -> dict[str, Recipe]:
        path = tmp_path / "recipes.toml"
        path.write_text(text)
        return read_recipes(path, *recommended)

    return read


def test_a_table_changes_only_what_it_states(read):
    found = read("[a]\nat_steps = [9, 5.5, 1]\n[b]\nmethod = 'dpmpp-2m'\n", RECOMMENDED)
    assert found == {
        "a": RECOMMENDED.replace(at_steps=(9.0, 5.5, 1.0)),
        "b": RECOMMENDED.replace(method="dpmpp-2m"),
    }
    assert (found["a"].kappa, found["a"].clip) == (1, "x0")
    assert read("[a]\nkappa = 0.5")["a"] == Recipe(kappa=0.5)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", ["holds no recipe", "at_steps"]),
        ("kappa = 1", ["kappa", "table"]),
        ("[a]", ["a", "table", "at least one"]),
        ("[a", ["no recipes"]),
        ("[a]\nkappa = 'x'", ["a", "kappa", "float", "'x'"]),
        ("[a]\nkapa = 1", ["a", "'kapa'", "kappa"]),
        ("[a]\nkappa = 2", ["a", "kappa", "[0, 1]", 2.0]),
        ("[a]\nat_steps = [5]\nnum_steps = 3", ["a", "at_steps", "num_steps"]),
        ("[a]\nlevels = 'nix'", ["a", "levels", "'nix'"]),
        ("['a b']\nkappa = 1", ["a b", "letter"]),
        ("[paper]\nkappa = 1", ["paper", "name of a method or a group"]),
        ("[diffusers-mine]\nkappa = 1", ["diffusers-mine", "name of a method"]),
        ("[var-linear-k1]\nkappa = 1", ["var-linear-k1", "name of a method"]),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(read, text, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        read(text)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidArgumentError, match=tells("no recipes", "nix.toml")):
        read_recipes(tmp_path / "nix.toml")


def test_levels_of_a_named_recipe_are_not_replaced_silently():
    own = Recipe(at_steps=(9.0, 1.0))
    assert own.change("mine", kappa=0.5) == own.replace(kappa=0.5)
    assert own.change(num_steps=5).at_steps is None
    with pytest.raises(InvalidArgumentError, match=tells("'mine'", 2, "num_steps")):
        own.change("mine", num_steps=5)
