"""A sampler, and a choice of levels, is one row: a toy row is found wherever rows are used."""

from types import MappingProxyType

import pytest
import torch
from typer.testing import CliRunner

from fastdpm import Recipe, VarianceSchedule, choose_methods, compare, levels_given
from fastdpm.cli.app import make_app
from fastdpm.core import choices as levels_module
from fastdpm.core import samplers
from fastdpm.core.choices import LevelChoice
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev
from fastdpm.core.samplers import Sampler
from fastdpm.evaluation.cache import Cache
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluate import MeasureOptions

SCHEDULE = VarianceSchedule.linear(100)


def toy(levels):
    """DDIM-rev under a name of its own."""
    plan = ddim_rev(levels)
    return Plan(plan.level, plan.t, plan.a, plan.b, plan.c, "toy over levels")


def halves(schedule, num_steps):
    """Levels that halve the way to clean data."""
    low = float(schedule.levels[-1])
    return levels_given(schedule, level=[1 - (1 - low) * 0.5**i for i in range(num_steps)])


@pytest.fixture
def toys(monkeypatch):
    row = Sampler("toy", "toy sampler", "multistep", toy, 1, "a toy")
    table = MappingProxyType({**samplers.SAMPLERS, "toy": row})
    monkeypatch.setattr(samplers, "SAMPLERS", table)
    choice = LevelChoice("halves", "plain", halves, "a toy")
    choices = MappingProxyType({**levels_module.CHOICES, choice.name: choice})
    monkeypatch.setattr(levels_module, "CHOICES", choices)


def help_of(command):
    result = CliRunner().invoke(make_app(command), [command, "--help"], env={"COLUMNS": "200"})
    return result.output


def test_a_row_is_a_recipe_and_is_told_by_the_command_line(toys):
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
    assert plan.draws_noise == (row.takes_kappa or row.all_steps)
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
