"""Tuned plans travel with their model, are used by default, and refuse what they are not for."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, Recipe, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.core import levels_custom
from fastdpm.core.data_form import plan_of_data_form
from fastdpm.core.guidance import GuidanceScale
from fastdpm.evaluation import Comparison, MeasureOptions, compare, prepare_recommendation
from fastdpm.models.hub import push
from fastdpm.models.identity import model_digest
from fastdpm.models.tuned import (
    PLANS,
    TunedPlan,
    as_plan,
    read_plan,
    read_tuned,
    tuned_files,
)
from tests.messages import tells


def tuned_for(model, num_steps, **changes) -> TunedPlan:
    """A plan like a learned one, with coefficients of its own."""
    level = [0.1, 0.3, 0.7, 0.9][:num_steps]
    levels = levels_custom(model.schedule, level=level)
    table = torch.eye(num_steps + 1, dtype=torch.float64).numpy() * 0.1
    plan = replace(plan_of_data_form(levels, table, f"tuned, S = {num_steps}"), notes=())
    guided = changes.get("guidance", GuidanceScale()).enabled
    clip = model.config.recipe.clip
    stated = {"model": model_digest(model, guided=guided), "clip": clip} | changes
    return TunedPlan(plan=plan, **stated)


@pytest.fixture
def folder(folders, tmp_path):
    """A model folder with tuned plans for S = 2 and for its recommended S = 4."""
    path = tmp_path / "model"
    shutil.copytree(folders["image"], path)
    (path / PLANS).mkdir()
    model = load_model(path)
    for num_steps in (2, 4):
        text = tuned_for(model, num_steps).to_json()
        (path / PLANS / f"S{num_steps}.json").write_text(text)
    return path


def test_a_model_folder_holds_its_plans(folder):
    (folder / PLANS / "notes.json").write_text("{}")
    model = load_model(folder)
    assert list(model.plans) == [2, 4]
    assert list(tuned_files(folder)) == [2, 4]
    assert (
        model.plans[4].plan.fingerprint == read_tuned(folder / PLANS / "S4.json").plan.fingerprint
    )
    (folder / PLANS / "S4.json").write_text("{}")
    with pytest.raises(ModelError, match=tells("S4.json", "tuned plan")):
        load_model(folder)


def test_the_plan_of_s_is_used_unless_levels_or_a_sampler_are_chosen(folder):
    model = load_model(folder)
    tuned = model.sample(2, plan=model.plans[4].plan)
    assert torch.equal(model.sample(2), tuned)
    assert torch.equal(model.sample(2, method="tuned"), tuned)
    assert torch.equal(model.sample(2, plan=model.plans[4]), tuned)
    two = model.sample(2, plan=model.plans[2].plan)
    assert torch.equal(model.sample(2, num_steps=2), two)
    recipe = model.config.recipe
    for choices in ({"levels": "step"}, {"kappa": 0.0}, {"recipe": recipe}, {"num_steps": 3}):
        plan = recipe.replace(num_steps=choices.get("num_steps")).compile(model.schedule)
        assert torch.equal(model.sample(2, **choices), model.sample(2, plan=plan))
    clipped = model.sample(2, clip="x0")
    assert torch.equal(clipped, model.sample(2, recipe=recipe, clip="x0"))


@pytest.mark.parametrize(
    ("choices", "values"),
    [
        ({"method": "tuned", "num_steps": 3}, ["S = 3", "2, 4", "tune"]),
        ({"method": "tuned", "levels": "var"}, ["levels", "tuned"]),
        ({"method": "tuned", "recipe": Recipe()}, ["recipe", "tuned"]),
        ({"method": "tuned", "clip": "x0"}, ["tuned, S = 4", "clip none", ".plan"]),
    ],
)
def test_what_contradicts_a_tuned_plan_is_refused(folder, choices, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        load_model(folder).sample(1, **choices)


def test_a_plan_of_another_model_is_refused(folder, class_model):
    tuned = load_model(folder).plans[2]
    with pytest.raises(InvalidArgumentError, match=tells("tuned, S = 2", "another model")):
        class_model.sample(1, plan=tuned)
    assert class_model.sample(1, plan=tuned.plan).shape == (1, 1, 8, 8)
    with pytest.raises(InvalidArgumentError, match=tells("no tuned plan", "tune")):
        class_model.sample(1, method="tuned")


def test_a_tuned_plan_brings_its_guidance_and_clipping(class_model):
    guidance = GuidanceScale(2.0, (0.2, 0.8))
    tuned = tuned_for(class_model, 2, guidance=guidance, clip="x0", condition="classes")
    found = class_model.sample(3, plan=tuned)
    stated = {"guidance_scale": 2.0, "guidance_interval": (0.2, 0.8), "clip": "x0"}
    assert torch.equal(found, class_model.sample(3, plan=tuned.plan, **stated))
    with pytest.raises(InvalidArgumentError, match=tells("guidance 2", "0.2")):
        class_model.sample(3, plan=tuned, guidance_scale=1.0)


def test_the_command_line_uses_it_and_says_when_it_does_not(folder, tmp_path, capsys):
    out = tmp_path / "out"

    def draw(*options: str) -> tuple[int, str]:
        shutil.rmtree(out, ignore_errors=True)
        code = fastdpm(["sample", str(folder), "-n", "1", "--out", str(out), *options])
        found = capsys.readouterr()
        return code, found.out + found.err

    label = '"tuned, S = 4"'
    for chosen in ("", "--method tuned", f"--plan {folder / PLANS / 'S4.json'}"):
        assert draw(*chosen.split())[0] == 0
        assert label in (out / "samples.json").read_text()
    code, text = draw("-S", "3")
    assert (code, "no tuned plan for S = 3, only for 2, 4" in text) == (0, True)
    code, text = draw("--clip", "x0")
    assert (code, "learned for clip none" in text) == (0, True)
    assert label not in (out / "samples.json").read_text()
    code, text = draw("--levels", "var")
    assert (code, "not used, because of --levels" in text) == (0, True)
    code, text = draw("--levels", "var", "-S", "3")
    assert (code, "tuned" in text) == (0, False)
    assert draw("--clip", "x0", "--anyway")[0] == 0
    assert label in (out / "samples.json").read_text()
    code, text = draw("--method", "tuned", "--clip", "x0")
    assert (code, "--anyway" in text) == (2, True)
    assert draw("--method", "tuned", "--clip", "x0", "--anyway")[0] == 0
    assert label in (out / "samples.json").read_text()
    for chosen in ("--anyway --levels var", "--method tuned --levels var"):
        assert draw(*chosen.split())[0] == 2
    assert fastdpm(["plan", str(folder)]) == 0
    assert "tuned, S = 4" in capsys.readouterr().out


def test_plans_and_tuned_plans_are_read_alike(folder, tmp_path):
    tuned = read_plan(folder / PLANS / "S2.json")
    assert isinstance(tuned, TunedPlan)
    path = tmp_path / "plan.json"
    path.write_text(tuned.plan.to_json())
    assert as_plan(read_plan(path)).fingerprint == tuned.plan.fingerprint
    path.write_text("no plan")
    with pytest.raises(InvalidArgumentError, match=tells("plan.json")):
        read_plan(path)
    with pytest.raises(InvalidArgumentError, match=tells("missing.json")):
        read_plan(tmp_path / "missing.json")


def test_evaluate_measures_it_by_default(folder, features, image_folder):
    measuring = {"against": str(image_folder), "features": features["image"], "n": 20}
    tuned = load_model(folder).plans[4]
    by_default = evaluate(folder, **measuring)
    assert by_default.scores == evaluate(folder, plan=tuned, **measuring).scores
    own = load_model(folder).config.recipe
    assert by_default.scores != evaluate(folder, recipe=own, **measuring).scores


def test_compare_and_recommend_include_it(folder, features, image_folder, tmp_path):
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    found = compare(folder, (2, 3), ["tuned", "step-linear-k0"], measuring=measuring)
    cells = {(cell.method, cell.num_steps): cell for cell in found.cells}
    assert set(cells) == {("tuned", 2), ("step-linear-k0", 2), ("step-linear-k0", 3)}
    fingerprint = load_model(folder).plans[2].plan.fingerprint
    assert cells["tuned", 2].plan == fingerprint
    found.write(tmp_path / "report")
    assert Comparison.read(tmp_path / "report").cells == found.cells
    prepared = prepare_recommendation(
        folder, steps=2, methods=["tuned", "var-linear-k0"], measuring=measuring
    )
    assert prepared.identity["tuned"] == {
        str(s): plan.plan.fingerprint for s, plan in load_model(folder).plans.items()
    }
    chosen = prepared.run()
    assert {cell.method for cell in chosen.comparison.cells} >= {"tuned", "var-linear-k0"}
    only = compare(folder, 2, "tuned", measuring=measuring).recommend()
    assert "-S 2 --method tuned" in only.lines[0]


def test_a_plan_that_does_not_fit_its_folder_is_not_compared(folder, features, image_folder):
    path = folder / PLANS / "S2.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"model": "0" * 16}))
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    with pytest.raises(InvalidArgumentError, match=tells("tuned, S = 2", "another model")):
        compare(folder, 2, "tuned", measuring=measuring)


def test_models_without_plans_have_no_such_method(folders, features, image_folder):
    measuring = MeasureOptions(str(image_folder), 40, features["image"])
    with pytest.raises(InvalidArgumentError, match=tells("no tuned plans", "tune")):
        compare(folders["image"], 2, "tuned", measuring=measuring)


def test_push_publishes_them(folder, monkeypatch):
    sent = []
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("fastdpm.models.hub._prepare", lambda *a, **k: None)
    monkeypatch.setattr(
        "fastdpm.models.hub._commit", lambda api, folder, files, *a: sent.extend(files)
    )
    push(folder, "me/model")
    assert {"plans/S2.json", "plans/S4.json"} < set(sent)
