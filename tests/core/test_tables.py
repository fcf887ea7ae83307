"""A sampler, and a choice of levels, is one row: a toy row is found wherever rows are used."""

import importlib.util
from functools import partial
from types import MappingProxyType

import pytest
import torch
from typer.testing import CliRunner

from fastdpm import InvalidArgumentError, Recipe, VarianceSchedule, compare
from fastdpm.cli.app import make_app
from fastdpm.core import choices as levels_module
from fastdpm.core import levels_custom, samplers
from fastdpm.core.choices import LevelChoice
from fastdpm.core.methods import NamedRecipe
from fastdpm.core.multistep import dpmpp_2m
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev, standard
from fastdpm.core.samplers import Sampler
from fastdpm.evaluation import choose_methods
from fastdpm.evaluation.cache import Cache
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.report.write import write_report
from fastdpm.evaluation.results import Comparison
from fastdpm.models.presets import CompareSettings
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear(100)


def toy(levels):
    """DDIM-rev under a name of its own."""
    plan = ddim_rev(levels)
    return Plan(plan.level, plan.t, plan.a, plan.b, plan.c, "toy over levels")


def halves(schedule, num_steps):
    """Levels that halve the way to clean data."""
    low = float(schedule.levels[-1])
    return levels_custom(
        schedule, level=[low + (1 - low) * (1 - 0.5**i) for i in range(num_steps)]
    )


TOYS = (
    Sampler("toy", "toy sampler", "multistep", toy, 1, "a toy"),
    Sampler("toy-kappa", "toy with kappa", "paper", ddim_rev, 1, "draws noise", takes_kappa=True),
    Sampler("toy-history", "toy with history", "toys", dpmpp_2m, 2, "looks back", history=True),
    Sampler(
        "toy-all",
        "all steps",
        "toys",
        partial(standard, variance="large"),
        1,
        "all steps",
        all_steps=True,
    ),
    Sampler("toy-apart", "toy apart", "toys", toy, 1, "by its key", compared=False),
)


@pytest.fixture
def toys(monkeypatch):
    table = MappingProxyType({**samplers.SAMPLERS, **{row.name: row for row in TOYS}})
    monkeypatch.setattr(samplers, "SAMPLERS", table)
    choice = LevelChoice("halves", "plain", halves, "a toy")
    choices = MappingProxyType({**levels_module.CHOICES, choice.name: choice})
    monkeypatch.setattr(levels_module, "CHOICES", choices)


def help_of(command):
    result = CliRunner().invoke(make_app(command), [command, "--help"], env={"COLUMNS": "200"})
    return result.output


def test_a_row_is_a_recipe_and_is_listed_by_the_command_line(toys):
    recipe = Recipe(num_steps=4, method="toy", levels="halves", spacing="plain")
    assert recipe.describe() == "toy, HALVES plain, S = 4"
    assert recipe.compile(SCHEDULE).label == "toy over levels"
    assert recipe.compile(SCHEDULE).level[1] == pytest.approx(0.5 + 0.5 * SCHEDULE.levels[-1])
    for command in ("sample", "plan", "evaluate"):
        assert "toy" in help_of(command)
        assert "halves" in help_of(command)
        assert "plain" in help_of(command)


def test_a_row_is_sampled_and_compared(toys, tmp_path):
    keys = [method.key for method in choose_methods(["multistep", "paper"])]
    assert {"toy-var-linear", "toy-halves-plain", "dpmpp-2m-halves-plain"} <= set(keys)
    assert {"halves-plain-k0", "halves-plain-k1"} <= set(keys)
    chosen = choose_methods(["toy-halves-plain", "halves-plain-k0", "standard"])
    grid = compare(
        "digits",
        (3,),
        chosen[:2],
        measuring=MeasureOptions(n=20, device="cpu", cache=Cache(tmp_path)),
        options=DrawOptions(device="cpu"),
    )
    rows = [(cell["method"], cell["group"], cell["choice"]) for cell in grid.results["cells"]]
    assert rows == [
        ("toy-halves-plain", "toy sampler", "HALVES plain"),
        ("halves-plain-k0", "DDIM-rev", "HALVES plain"),
    ]
    values = [cell["metrics"]["frechet_distance"]["value"] for cell in grid.results["cells"]]
    assert values[0] == pytest.approx(values[1], rel=1e-6)  # the toy is DDIM-rev


def test_every_kind_of_row_is_in_the_default_comparison(toys, folders, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "diffusers" else find(name)
    )
    found = compare(
        folders["image"],
        (3,),
        measuring=MeasureOptions(n=20, device="cpu", cache=Cache(tmp_path / "cache")),
        options=DrawOptions(device="cpu"),
    )
    wanted = {"standard", "toy-all"}
    for name in (name for name, row in levels_module.CHOICES.items() if row.compared):
        wanted |= {f"{name}-k0", f"{name}-k1", f"toy-kappa-{name}-k0", f"toy-kappa-{name}-k1"}
        multistep = ("dpmpp-2m", "dpmpp-3m", "multistep-3", "toy", "toy-history")
        wanted |= {f"{row}-{name}" for row in multistep}
    assert {cell.method for cell in found.cells} == wanted
    assert len(found.cells) == len(wanted)
    cells = {cell.method: cell for cell in found.cells}
    assert [cell.method for cell in found.cells if cell.failed] == []
    assert cells["toy-all"].num_steps == cells["toy-all"].evaluations == 100
    for kappa in (0, 1):
        ours, toy = (cells[f"{row}halves-plain-k{kappa}"] for row in ("", "toy-kappa-"))
        assert ours.metrics == toy.metrics
        assert ours.name != toy.name
    read = Comparison.from_dict(found.results)
    assert [cell.method for cell in read.references] == ["standard", "toy-all"]
    assert read.families == ("paper", "multistep", "toys")
    assert read.steps == (3,)
    pages = {path.name: path for path in write_report(tmp_path / "out", found)}
    text = pages["results.md"].read_text(encoding="utf-8")
    assert all(cell.group in text for cell in found.cells)


def test_a_row_says_whether_it_is_compared_by_default(toys):
    everything = {method.key for method in choose_methods()}
    assert {"toy-apart-var-linear", "standard-large", "standard-learned"}.isdisjoint(everything)
    keys = ["toy-apart-var-linear", "standard-large"]
    assert [method.key for method in choose_methods(keys)] == keys


def test_a_second_sampler_of_a_family_takes_no_ones_place(toys):
    methods = choose_methods(["paper"], [0.0, 0.5])
    recipes = {row.key: row.recipe for row in methods if isinstance(row, NamedRecipe)}
    for name, choice in levels_module.CHOICES.items():
        for kappa in ("0", "0.5") if choice.compared else ():
            for row, method in (("", "ddim-rev"), ("toy-kappa-", "toy-kappa")):
                chosen = Recipe(levels=choice.levels, spacing=choice.spacing)
                recipe = chosen.replace(method=method, kappa=float(kappa))
                assert recipes[f"{row}{name}-k{kappa}"] == recipe


def test_two_rows_that_give_one_key_are_refused(monkeypatch):
    rows = [Sampler(name, "toy", "toys", toy, 1, "a toy") for name in ("a", "a-b")]
    choices = [LevelChoice(name, "c", halves, "a toy") for name in ("b-b", "b")]
    monkeypatch.setattr(samplers, "SAMPLERS", {row.name: row for row in rows})
    monkeypatch.setattr(levels_module, "CHOICES", {c.name: c for c in choices})
    with pytest.raises(InvalidArgumentError, match=tells("a-b-b-c")):
        choose_methods(["toys"])


def test_help_of_compare_lists_rows_and_kappas_and_presets_accept_them(toys):
    text = help_of("compare")
    for family in ("paper", "multistep", "standard", "toys", "diffusers"):
        assert family in text
    keys = ("toy-kappa-halves-plain-k0.5", "toy-history-var-linear", "toy-all")
    assert CompareSettings((5,), keys, 10, "fid").methods == keys


def test_a_row_is_a_method_of_the_diffusers_scheduler(toys):
    pytest.importorskip("diffusers")
    from fastdpm import FastDPMScheduler

    scheduler = FastDPMScheduler(
        num_train_timesteps=100, method="toy", levels="halves", spacing="plain"
    )
    scheduler.set_timesteps(4)
    assert scheduler.plan.label == "toy over levels"
    x = torch.ones(1, 1, 4, 4)
    assert torch.isfinite(scheduler.step(0.1 * x, scheduler.timesteps[0], x).prev_sample).all()


@pytest.mark.parametrize("row", samplers.SAMPLERS.values(), ids=lambda row: row.name)
def test_a_row_says_what_its_plans_do(row):
    recipe = Recipe(num_steps=6, method=row.name, kappa=0.5 if row.takes_kappa else 0.0)
    plan = recipe.compile(SCHEDULE)
    assert plan.draws_noise == (row.takes_kappa or row.draws_noise)
    assert (max(plan.a.shape[1], plan.b.shape[1]) > 1) == row.history
    assert (plan.num_rows == 100) == row.all_steps
    assert row.summary


@pytest.mark.parametrize("choice", levels_module.CHOICES.values(), ids=lambda choice: choice.name)
@pytest.mark.parametrize("num_steps", [2, 3, 7, 40])
def test_a_choice_of_levels_stays_within_the_schedule(choice, num_steps):
    found = choice.function(SCHEDULE, num_steps)
    assert 2 <= found.num_steps <= num_steps
    assert found.level[0] >= SCHEDULE.levels[-1] * (1 - 1e-9)
    assert found.level[-1] == 1
