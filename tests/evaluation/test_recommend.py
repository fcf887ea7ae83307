"""A recommendation is the best within its wish, and says what it is not different from."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fastdpm import InvalidArgumentError, Recipe, recommend
from fastdpm.cli.app import run as fastdpm
from fastdpm.core import read_recipes
from fastdpm.evaluation import MeasureOptions, comparing, prepare_recommendation
from fastdpm.evaluation.recommendation import differences
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score
from tests.evaluation.reports import FD, make_cell, make_results
from tests.messages import tells

KEYS = ("var-linear-k0", "var-quadratic-k1", "dpmpp-2m-var-linear", "diffusers-ddpm-leading")


@pytest.fixture
def comparison() -> Comparison:
    """Four methods at S = 4, 8 and 16; diffusers' DDPM, which has no recipe, is the best."""
    cells = [
        make_cell(key, "", s, (3 - i / 2) / s + (0.001 * i), error=0.01, method=key)
        for i, key in enumerate(KEYS)
        for s in (4, 8, 16)
    ]
    return Comparison.from_dict(make_results(cells))


def test_a_budget_buys_the_best_cell_that_has_a_recipe(comparison):
    found = comparison.recommend(budget=10)
    assert (found.cell.method, found.cell.num_steps) == ("dpmpp-2m-var-linear", 8)
    assert found.recipe == Recipe(num_steps=8, levels="var", method="dpmpp-2m")
    assert [cell.num_evaluations for cell in found.front] == [4, 8, 16]
    assert {cell.method for cell in found.front} == {"diffusers-ddpm-leading"}
    assert comparison.recommend().cell.num_steps == 16


def test_a_quality_is_bought_as_cheaply_as_possible(comparison):
    for quality, num_steps in ((0.51, 4), (0.4, 8), (0.26, 8), (0.2, 16)):
        found = comparison.recommend(quality=quality)
        assert found.reached
        assert (found.cell.method, found.cell.num_steps) == ("dpmpp-2m-var-linear", num_steps)
    far = comparison.recommend(quality=0.01)
    assert not far.reached
    assert far.cell.num_steps == 16
    assert "0.01 is not reached" in str(far)


def test_what_cannot_be_recommended_is_refused(comparison):
    for wish, values in (
        ({"budget": 3}, ["budget", 3, 4]),
        ({"budget": 0.5}, ["budget", "at least 1", 0.5]),
        ({"budget": 4, "quality": 1}, ["budget", "quality"]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            comparison.recommend(**wish)
    with pytest.raises(InvalidArgumentError, match=tells("recipe")):
        comparison.select(KEYS[-1]).recommend()


def test_the_lines_say_what_to_use_why_and_what_fewer_evaluations_give(comparison):
    what, why, instead = comparison.recommend(budget=8).lines
    assert "-S 8 --method dpmpp-2m --levels var --spacing linear" in what
    assert "after diffusers-ddpm-leading, whose samples no recipe draws" in why
    assert "different from all others" in why
    assert "by chance" in why
    assert "4 evaluations give 0.378 ± 0.010 (diffusers-ddpm-leading)" in instead


def test_holms_method_finds_no_more_than_its_level_of_false_differences():
    random = np.random.default_rng(0)
    wrong = [
        any(differences([Score(x, 1.0) for x in random.standard_normal(6)])) for _ in range(2000)
    ]
    assert abs(np.mean(wrong) - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 2000)
    assert differences([Score(5, 1), Score(0.1, 1), Score(2.2, 1)]) == [True, False, False]
    assert differences([Score(5, 1), Score(2.3, 1)]) == [True, True]
    assert differences([]) == []
    assert differences([Score(5)]) == [False]


@pytest.fixture
def search(folders, features, image_folder):
    """Search among a few methods of the small image model."""

    def search(budget=None, quality=None, methods=KEYS[:3], n=40, **choices):
        measuring = MeasureOptions(str(image_folder), n, features["image"])
        return prepare_recommendation(
            folders["image"], budget, quality, methods=methods, measuring=measuring, **choices
        )

    return search


def test_finalists_have_another_seed_and_the_recommended_recipe_beside_them(search):
    lines: list[str] = []
    found = search(6, finalists=1).run(log=lines.append)
    assert found.comparison.seed == 1
    assert found.screening.seed == 0
    assert found.screening.n == 20
    assert {cell.n for cell in found.comparison.cells} == {40}
    assert sorted({cell.num_steps for cell in found.comparison.cells}) == [2, 3, 6]
    assert found.baseline in {cell.method for cell in found.comparison.cells}
    assert found.screening.plans == len(found.screening.comparison.cells)
    assert any("round 1 of 1" in line for line in lines)
    assert len(found.lines) == 3


def test_rounds_keep_the_best_quarter_and_extend_its_samples(search):
    prepared = search(5, methods=["paper", "multistep"], n=400, finalists=2)
    assert prepared._rounds(20) == [50, 200]
    cells = prepared.run().screening.comparison.cells
    assert {cell.n for cell in cells} == {200}
    at_five = [cell for cell in cells if cell.num_steps == 5]
    plans = len(prepared._screening(5)[1])
    assert len(at_five) == max(2, math.ceil(plans / 4))


def test_equal_plans_are_screened_once(search):
    methods = ["var-linear-k0", "unipc-2-var-linear", "dpmpp-2m-var-linear"]
    assert [len(search(4, methods=methods)._screening(s)[1]) for s in (1, 4)] == [1, 3]
    theirs = ["diffusers-ddim-leading", "diffusers-unipc-leading"]  # without plans of ours
    assert len(search(4, methods=theirs)._screening(4)[1]) == 2


def test_the_search_for_a_quality_ends_at_the_smallest_s_that_reaches_it(search):
    values = {}

    def measured(self, measure):
        value = 2 / self.cell.num_steps
        values[self.cell.num_steps] = value
        scores = {metric.key: Score(value, 0.001) for metric in measure.metrics}
        return replace(self.cell, metrics=scores, evaluations=self.cell.num_steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing.Trial, "measured", measured)
        patch.setattr(comparing.PreparedComparison, "run", _planned)
        found = search(quality=0.29).run()
    assert found.cell.num_steps == 7
    assert sorted(values) == [4, 6, 7, 8]


def _planned(self, command="", log=None):
    """A comparison whose cells are measured, without samples."""
    cells = [trial.measured(self.measure) for trial in self.trials]
    return self._comparison(cells)


def test_an_estimate_counts_every_round_and_the_cache(search):
    prepared = search(4, finalists=1)
    cost = prepared.estimate()
    parts = {cell.method: (cell.left, cell.evaluations) for cell in cost.cells}
    assert parts["S = 4, round 1"] == (3 * 20, 4)
    assert parts["S = 4, finalists"] == (2 * 40, 4)
    assert cost.evaluations == sum(cell.total for cell in cost.cells)
    prepared.run()
    again = {cell.method: cell.left for cell in prepared.estimate().cells}
    assert again["S = 4, round 1"] == 0


@pytest.mark.parametrize(
    ("wish", "values"),
    [
        ({"budget": 0.5}, ["budget", "at least 1"]),
        ({"budget": 4, "quality": 1.0}, ["budget", "quality"]),
        ({"budget": 4, "finalists": 0}, ["finalists", 0]),
        ({"budget": 4, "screen_n": 0}, ["screen_n", 0]),
        ({"budget": 4, "methods": ["nix"]}, ["nix", "method"]),
    ],
)
def test_a_search_that_cannot_be_made_is_refused(search, wish, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        search(**wish)


def test_the_command_writes_a_report_and_recipes_that_sample_uses(
    folders, features, image_folder, tmp_path, capsys
):
    model, out = str(folders["image"]), tmp_path / "out"
    common = ["--against", str(image_folder), "--features", features["image"], "-n", "40"]
    chosen = ["--methods", "var-linear-k0,dpmpp-2m-var-linear", "--budget", "4", "--out", str(out)]
    assert fastdpm(["recommend", model, *common, *chosen]) == 0
    shown = capsys.readouterr().out
    assert "estimate" in shown
    assert (out / "front.png").read_bytes()[:4] == b"\x89PNG"
    text = (out / "recommendation.txt").read_text()
    assert len(text.splitlines()) == 3
    assert Comparison.read(out).metrics[0].key == FD
    assert json.loads((out / "screening.json").read_text())["seed"] == 0
    recipes = read_recipes(out / "recipes.toml")
    name, best = list(recipes.items())[-1]
    assert name == f"best-{best.num_steps}"
    sample = ["sample", model, "-n", "1", "--out", str(tmp_path / "drawn")]
    assert fastdpm([*sample, "--recipes", str(out / "recipes.toml"), "--recipe", name]) == 0


def test_recommend_and_its_preparation_agree(folders, features, image_folder, search):
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    found = recommend(folders["image"], 4, methods=KEYS[:2], measuring=measuring)
    again = search(4, methods=KEYS[:2]).run()
    assert found.cell == again.cell
    assert found.lines == again.lines
