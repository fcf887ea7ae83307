"""A recommendation is the best within its wish, and says what it is not different from."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fastdpm import InvalidArgumentError, Recipe, recommend
from fastdpm.cli.app import run as fastdpm
from fastdpm.core import read_recipes
from fastdpm.core.recipes import recipes_text
from fastdpm.evaluation import MeasureOptions, comparing, prepare_recommendation
from fastdpm.evaluation.recommendation import Recommendation, differences
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
    with pytest.raises(InvalidArgumentError, match=tells("by name")):
        comparison.select(KEYS[-1]).recommend()


def test_the_lines_say_what_to_use_why_and_what_fewer_evaluations_give(comparison):
    what, why, instead = comparison.recommend(budget=8).lines
    assert "-S 8 --method dpmpp-2m --levels var --spacing linear" in what
    assert "(but diffusers-ddpm-leading cannot be sampled by name)" in why
    assert "different from all others" in why
    assert "by chance" in why
    assert "4 evaluations give 0.378 ± 0.010 (diffusers-ddpm-leading)" in instead


@pytest.mark.parametrize(("count", "splits"), [(2, 20), (4, 20), (10, 20), (4, 0)])
def test_equal_cells_are_seldom_called_different_from_the_best(count, splits):
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        halves = random.standard_normal((count, splits))
        values = random.standard_normal(count)
        scores = [Score(x, 1.0, tuple(h)) for x, h in zip(values, halves, strict=True)]
        best = min(scores, key=lambda score: score.value)
        others = [score.minus(best) for score in scores if score is not best]
        wrong += any(differences(others, count * (count - 1) // 2))
    assert wrong < 1000 * 0.05 + 3 * math.sqrt(1000 * 0.05 * 0.95)


def test_large_differences_are_found():
    assert differences([Score(5, 1), Score(0.1, 1), Score(2.5, 1)]) == [True, False, True]
    assert differences([Score(5, 1), Score(2.5, 1)], tests=6) == [True, False]
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
    assert sum(found.screening.plans.values()) == len(found.screening.comparison.cells)
    best = found.comparison.select(num_steps=6).recommend().cell
    assert found.fresh[best.id].metrics != best.metrics
    assert found.score == found.fresh[found.cell.id].scores[FD]
    assert any("round 1 of 1" in line for line in lines)
    assert len(found.lines) == 3


def test_rounds_keep_the_best_quarter_and_extend_its_samples(search):
    prepared = search(steps=5, methods=["paper", "multistep"], n=400, finalists=2)
    assert prepared.rounds.sizes(12) == [50, 200]
    assert prepared.rounds.sizes(8) == [200]  # a second round would have the finalists only
    cells = prepared.run().screening.comparison.cells
    assert {cell.n for cell in cells} == {200}
    plans = len(prepared._screening(5, prepared.methods)[1])
    assert len(cells) == max(2, math.ceil(plans / 4))


def test_equal_plans_are_screened_once(search):
    def screened(num_steps, methods):
        prepared = search(4, methods=methods)
        return [t.cell.method for t in prepared._screening(num_steps, prepared.methods)[1]]

    methods = ["heun-var-linear", "var-linear-k0", "unipc-2-var-linear", "step-linear-k0"]
    assert len(screened(4, methods)) == 4
    assert screened(1, methods) == ["step-linear-k0"]  # the recommended one stands for all
    theirs = ["diffusers-ddim-leading", "diffusers-unipc-leading"]  # without plans of ours
    assert screened(4, theirs) == theirs


def test_recipes_with_custom_levels_are_finalists_at_their_own_s(search):
    more = {"three": Recipe(at_steps=(90.0, 40.0, 3.0)), "two": Recipe(at_levels=(0.2, 0.9))}
    found = search(4, methods=["three", "two", "var-linear-k0"], recipes=more).run()
    cells = [(c.method, c.num_steps) for c in found.comparison.cells if c.method in more]
    assert sorted(cells) == [("three", 3), ("two", 2)]
    only = search(4, methods=["three"], recipes=more).run()
    assert {cell.num_steps for cell in only.comparison.cells} == {3}
    with pytest.raises(InvalidArgumentError, match=tells("methods", 2)):
        search(2, methods=["three"], recipes=more).run()


def test_by_default_everything_is_screened_also_where_gits_has_too_few_levels(search):
    prepared = search(quality=0.1, methods=None)
    assert prepared.counts[-1] == 64
    _, trials = prepared._screening(64, prepared.methods)
    assert len(trials) > 200
    assert "dpmpp-2m-gits" not in [trial.cell.method for trial in trials]
    _, trials = prepared._screening(4, prepared.methods)
    assert "dpmpp-2m-gits" in [trial.cell.method for trial in trials]


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
    assert parts["S = 4, finalists"] == (3 * 40, 4)  # one, the recommended, and the best again
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
        ({"budget": 4, "screen_n": 3}, ["screen_n", 20, 3]),
        ({"budget": 4, "clip": "nix"}, ["clip", "nix"]),
        ({"budget": 4, "methods": ["standard"]}, ["methods", "few-step"]),
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


def test_guidance_holds_for_all_plans_also_those_of_gits(folders, features, image_folder):
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    methods = ["ipndm-2-gits", "step-linear-k0"]

    def search(scale):
        return prepare_recommendation(
            folders["classes"],
            steps=3,
            methods=methods,
            measuring=measuring,
            guidance_scale=scale,
        )

    found, strong = search(1).run(), search(40).run()
    assert {cell.guidance for cell in found.comparison.cells} == {""}
    assert {cell.guidance for cell in strong.comparison.cells} == {"guidance 40"}
    assert {cell.num_evaluations for cell in strong.comparison.cells} == {6}
    levels = (
        [cell.recipe.at_levels for cell in one.comparison.cells if cell.method == methods[0]]
        for one in (found, strong)
    )
    assert next(levels) != next(levels)
    with pytest.raises(InvalidArgumentError, match=tells("guidance_scale", "one number", "rows")):
        search((1, 2))


def test_recommend_and_its_preparation_agree(folders, features, image_folder, search):
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    found = recommend(folders["image"], 4, methods=KEYS[:2], measuring=measuring)
    again = search(4, methods=KEYS[:2]).run()
    assert found.cell == again.cell
    assert found.lines == again.lines


def test_recipes_are_written_completely_and_read_back(tmp_path):
    recipes = {
        "best-4": Recipe(num_steps=4, levels="var", spacing="quadratic"),
        "a.b": Recipe(spacing="quadratic", start=0.5, guidance_scale=(1.0, 2.0)),
        "c": Recipe(at_levels=(0.25, 1 / 3), method="unipc-3"),
        "f": Recipe(guidance_scale=1.5, guidance_interval=(0.2, 0.9)),
        "d": Recipe(method="standard", clip="x0"),
        "e": Recipe(levels="var", bounded=False, kappa=0.3),
        "g": Recipe(guidance_scale=2.5, guidance_rescale=0.5),
    }
    path = tmp_path / "recipes.toml"
    path.write_text(recipes_text(recipes))
    base = Recipe(levels="var", bounded=False, guidance_scale=2.0, guidance_interval=(0.1, 0.2))
    for recommended in (Recipe(), base, Recipe(spacing="quadratic", start=0.7)):
        assert read_recipes(path, recommended) == recipes


def test_the_recommended_recipe_is_written_also_behind_a_better_one_without(comparison):
    found = comparison.recommend(budget=10)
    assert isinstance(found, Recommendation)
    assert found.recipes["best-8"] == found.recipe
