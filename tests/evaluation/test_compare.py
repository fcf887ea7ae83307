"""A comparison measures every method alike, counts real evaluations, and goes on after a kill."""

import json
import re
import shutil
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fastdpm import (
    InvalidArgumentError,
    MissingExtraError,
    Model,
    SamplingError,
    VarianceSchedule,
    compare,
    evaluate,
)
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.tensors import sha256, write_tensors
from fastdpm.evaluation.comparing import prepare
from fastdpm.evaluation.drawn import DrawOptions, PlanDrawer
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.evaluation.methods import choose_methods
from fastdpm.evaluation.scores import read_scores
from fastdpm.models.find import find_model
from fastdpm.models.presets import CompareSettings
from tests.messages import tells


@pytest.fixture
def run(folders, features, image_folder):
    """Compare methods of the small image model."""

    def run(names, steps=(4,), n=20, kappas=None, log=lambda line: None, reference_n=None):
        return compare(
            folders["image"],
            steps,
            choose_methods(names, kappas),
            measuring=MeasureOptions(str(image_folder), n, features["image"]),
            reference_n=reference_n,
            log=log,
        )

    return run


def test_the_papers_grid_is_every_choice_at_every_s_and_the_standard_sampler_once(run):
    found = run(["paper", "standard"], steps=(4, 7), reference_n=22)
    cells = found.results["cells"]
    assert len(cells) == 8 * 2 + 1
    grid = [(c["group"], c["choice"], c["num_steps"]) for c in cells[:-1]]
    assert len(set(grid)) == 16
    assert ("DDPM-rev", "VAR quadratic", 7) in grid
    last = cells[-1]
    assert (last["family"], last["num_steps"], last["n"]) == ("standard", 100, 22)
    assert last["evaluations"] == 100
    assert all(
        c["failed"] is None and c["metrics"]["frechet_distance"]["value"] > 0 for c in cells
    )
    assert set(found.pictures) == {c["id"] for c in cells}
    assert found.pictures[last["id"]].shape == (8, 8, 8, 1)


@pytest.mark.parametrize(
    ("total", "names", "counts"),
    [(30, ["var-linear-k0"], [5, 10, 20]), (3, ["var-linear-k0"], [3]), (30, ["standard"], [30])],
)
def test_default_steps_above_T_are_left_out(total, names, counts, features, image_folder):
    schedule = VarianceSchedule.linear(total, 1e-4, 0.1)
    model = Model.wrap(torch.nn.Conv2d(1, 1, 1).eval(), schedule, (1, 8, 8))
    measuring = MeasureOptions(str(image_folder), 20, features["image"])
    prepared = prepare(model, methods=names, measuring=measuring)
    assert [trial.cell.num_steps for trial in prepared.trials] == counts
    with pytest.raises(InvalidArgumentError, match=tells(40, f"[1, {total}]")):
        prepare(model, [2, 40], ["var-linear-k0"], measuring=measuring)


def test_any_kappa_and_the_multistep_plans_take_part(run):
    keys = [
        c["method"] for c in run(["paper", "dpmpp-2m-var-linear"], kappas=(0.3,)).results["cells"]
    ]
    assert keys == [
        "step-linear-k0.3",
        "step-quadratic-k0.3",
        "var-linear-k0.3",
        "var-quadratic-k0.3",
        "dpmpp-2m-var-linear",
    ]


def test_a_cell_says_what_evaluating_its_recipe_says(run, folders, features, image_folder):
    from fastdpm import Recipe

    cell = run(["var-linear-k1"]).results["cells"][0]
    recipe = Recipe(num_steps=4, levels="var", spacing="linear", kappa=1.0)
    alone = evaluate(
        folders["image"], image_folder, n=20, recipe=recipe, features=features["image"]
    )
    for key, score in alone.scores.items():
        assert read_scores({key: cell["metrics"][key]}) == {key: score}


def test_evaluations_are_counted_and_not_steps(run):
    names = ["step-quadratic-k0", "diffusers-pndm-leading", "diffusers-ddim-trailing"]
    merged, pndm, ddim = run(names, steps=(40,)).results["cells"]
    assert merged["evaluations"] < 40  # steps that repeat are merged
    assert any(
        re.search(tells(40, f"{merged['evaluations']:g}"), note) for note in merged["notes"]
    )
    assert pndm["evaluations"] == 49
    assert ddim["evaluations"] == 40


def test_all_methods_start_from_the_same_noise(run, folders):
    """DDIM over the same steps is one process, whoever runs it."""
    from fastdpm import ddim_rev, load_model
    from fastdpm.core import levels_custom

    found = run(["diffusers-ddim-trailing"], steps=(5,))
    model = load_model(folders["image"])
    plan = ddim_rev(levels_custom(model.schedule, t=[99, 79, 59, 39, 19]))
    ours = (model.sample(8, plan=plan).clamp(-1, 1) + 1) * 127.5
    theirs = next(iter(found.pictures.values())).transpose(0, 3, 1, 2)
    assert np.abs(ours.numpy() - theirs).max() < 0.6


def test_a_killed_comparison_repeats_no_finished_cell(run, monkeypatch):
    drawn: list[str] = []
    draw = PlanDrawer.draw

    def watch(self, model, samples, options, callback):
        if len(drawn) == 2:
            drawn.append("killed")
            raise KeyboardInterrupt
        drawn.append(self.key)
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(PlanDrawer, "draw", watch)
    with pytest.raises(KeyboardInterrupt):
        run(["paper"], kappas=(0.0,))
    assert run(["paper"], kappas=(0.0,)).results["cells"][3]["failed"] is None
    keys = [key for key in drawn if key != "killed"]
    assert len(keys) == len(set(keys)) == 4


def test_a_method_that_cannot_take_s_says_so_in_its_own_cell(run):
    cells = run(["diffusers-pndm-leading", "step-linear-k0"], steps=(3, 5)).results["cells"]
    assert re.search(tells("[4, 100]", 3), cells[0]["failed"])
    assert cells[0]["metrics"] == {}
    assert [c["failed"] for c in cells[1:]] == [None, None, None]


def test_a_sampler_that_breaks_down_does_not_end_the_comparison(run, monkeypatch):
    draw = PlanDrawer.draw

    def fail(self, model, samples, options, callback):
        if "STEP" in self.plan.label:
            raise SamplingError("row 0 of 4: not finite")
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(PlanDrawer, "draw", fail)
    cells = run(["step-linear-k0", "var-linear-k0"]).results["cells"]
    assert [c["failed"] for c in cells] == ["row 0 of 4: not finite", None]


def test_progress_is_reported_after_every_cell(run):
    lines: list[str] = []
    run(["step-linear-k0", "var-linear-k0"], log=lines.append)
    assert len(lines) == 2
    assert lines[0].startswith("1 of 2: S = 4, DDIM-rev, STEP linear: FD (tiny-features ")
    assert lines[1].endswith("about 0 s left")


def test_a_vocoder_is_compared_by_pairs(folders, sound_folder):
    found = compare(
        folders["vocoder"],
        (3,),
        choose_methods(["paper", "standard"], (1.0,)),
        measuring=MeasureOptions(str(sound_folder), 2),
    )
    assert found.results["metrics"][0]["key"] == "log_mel_error"
    assert found.results["cells"][-1]["n"] == 2
    assert found.pictures[found.results["cells"][0]["id"]].ndim == 2


def test_the_command_writes_tables_figures_and_a_report(
    folders, features, image_folder, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    command = ["compare", str(folders["image"]), "-S", "3,4", "--methods", "paper,standard"]
    command += ["--against", str(image_folder), "--features", features["image"], "-n", "20"]
    assert fastdpm([*command, "--out", str(out)]) == 0
    names = {path.name for path in out.iterdir()}
    assert {
        "results.json",
        "results.csv",
        "results.md",
        "distance.png",
        "samples.png",
        "report.html",
    } <= names
    record = json.loads((out / "results.json").read_text())
    assert len(record["cells"]) == 17
    assert re.search(tells("17 of 17"), capsys.readouterr().out)
    assert fastdpm([*command, "--out", str(out)]) == 2
    assert re.search(tells(out, "--resume", "--overwrite"), capsys.readouterr().err)
    assert fastdpm([*command, "--out", str(out), "--resume"]) == 0
    other = [*command, "--out", str(out), "--seed", "1"]
    assert fastdpm(other) == 2
    err = capsys.readouterr().err
    assert re.search(tells(out, "--seed", 0, 1, "--out", "--overwrite"), err)
    assert err.count("\n") == 1
    assert fastdpm([*other, "--dry-run"]) == 0  # which writes nothing
    overwriting = [*other, "--overwrite"]
    monkeypatch.setattr(sys, "argv", ["fastdpm", *overwriting])
    assert fastdpm(overwriting) == 0
    written = json.loads((out / "results.json").read_text())
    assert written["seed"] == 1
    assert "--overwrite" not in written["command"]


def test_methods_of_diffusers_need_it_and_are_left_out_by_default(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "diffusers" else find(name)
    )
    assert {method.family for method in choose_methods()} == {"paper", "multistep", "standard"}
    with pytest.raises(MissingExtraError, match=tells("diffusers", "fastdpm[diffusers]")):
        choose_methods(["diffusers"])


def test_an_unknown_method_names_the_known_forms():
    for name in ("ddim", "var-cubic-k0", "step-linear-k", "dpmpp-2m"):
        with pytest.raises(
            InvalidArgumentError,
            match=tells(repr(name), "paper", "multistep", "standard", "var-linear-k0"),
        ):
            choose_methods([name])
    with pytest.raises(InvalidArgumentError, match=tells("kappas", "[0, 1]", "2.0")):
        choose_methods(["var-linear-k2"])
    with pytest.raises(InvalidArgumentError, match=tells("stepquadratic-k1", "step-quadratic-k1")):
        choose_methods(["stepquadratic-k1"])


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["-S", "0"], ["[1, 100]", 0]),
        (["-S", "5,200"], ["[1, 100]", 200]),
        (["-S", "x"], ["--steps", "'x'"]),
        (["-S", ""], ["-S", "empty"]),
        (["-S", "inf"], ["--steps", "inf"]),
        (["--reference-n", "50"], ["standard", "--reference-n"]),
        (["--methods", "step-linear-k0,standard", "--reference-n", "10"], [10, 20]),
        (["--out", "file/x"], ["file", "--out"]),
        (["-S", "2.5"], ["--steps", 2.5]),
        (["--methods", "nothing"], ["nothing", "paper", "multistep", "standard"]),
        (["--methods", "paper", "--kappa", "2"], ["kappa", "[0, 1]", "2.0"]),
        (["--kappa", "0.5"], ["--kappa", "paper", "--methods"]),
        (["--clip", "hard"], ["clip", "none", "x0", "dynamic", "hard"]),
        (["-n", "19"], [19, 20]),
        (["--checkpoint", "x.ckpt"], ["celeba64-ddim"]),
        (["--out", "FILE"], ["file", "--out"]),
        (["--out", "USED"], ["USED", "--out"]),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    folders, features, image_folder, tmp_path, monkeypatch, capsys, arguments, values
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    known = {"FILE": "file", "USED": str(image_folder)}
    command = ["compare", str(folders["image"]), "--against", str(image_folder), "--out", "out"]
    command += ["--features", features["image"], "-n", "20", "--methods", "step-linear-k0"]
    assert fastdpm([*command, *(known.get(a, a) for a in arguments)]) in (1, 2)
    err = capsys.readouterr().err
    assert re.search(tells(*(known.get(str(v), v) for v in values)), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_preset_wants_its_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert fastdpm(["compare", "cifar10-ddpm", "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert re.search(tells("cifar10-ddpm", "--checkpoint", "https://"), err)
    assert err.count("\n") == 1
    command = ["compare", "cifar10-ddpm", "--out", "out", "--checkpoint", "x.ckpt"]
    assert fastdpm(command) == 1
    assert re.search(tells("x.ckpt"), capsys.readouterr().err)
    found = find_model("cifar10-ddpm")
    monkeypatch.setattr("fastdpm.models.find._of_checkpoint", lambda *args: found)
    assert fastdpm(command) == 2
    assert re.search(tells("FID", "--against", "--inception"), capsys.readouterr().err)


def test_what_is_not_stated_is_taken_from_a_table_of_the_paper(folders, features, image_folder):
    table = CompareSettings((3,), ("step-linear-k0", "standard"), 21, "sound")

    def cells(*stated, n=None):
        measuring = MeasureOptions(str(image_folder), n, features["image"])
        found = compare(folders["image"], *stated, table=table, measuring=measuring)
        return [(cell.method, cell.num_steps, cell.n) for cell in found.cells]

    assert cells() == [("step-linear-k0", 3, 21), ("standard", 100, 21)]
    assert cells((4,), ["var-linear-k0"], n=20) == [("var-linear-k0", 4, 20)]


def test_a_table_of_fid_wants_its_statistics_and_inception(folders, image_folder):
    table = CompareSettings((3,), ("step-linear-k0",), 20, "fid")
    incomplete = (
        MeasureOptions(),
        MeasureOptions(str(image_folder)),
        MeasureOptions(inception="auto"),
    )
    for measuring in incomplete:
        with pytest.raises(InvalidArgumentError, match=tells("against", "inception", "FID")):
            compare(folders["image"], table=table, measuring=measuring)


def test_a_method_that_is_named_twice_is_compared_once(run, folders, features, image_folder):
    (method,) = choose_methods(["step-linear-k0"])
    found = compare(
        folders["image"],
        (3, 3),
        [method, method, "step-linear-k0", "step-linear-k0.0"],
        measuring=MeasureOptions(str(image_folder), 20, features["image"]),
    )
    assert [cell.method for cell in found.cells] == ["step-linear-k0"]


def test_two_methods_of_one_key_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells("step-linear-k0.123457")):
        choose_methods(["paper"], [0.12345671, 0.1234567])


def test_the_batch_size_changes_no_result(folders, features, image_folder, tmp_path):
    from fastdpm.evaluation.cache import Cache

    method = choose_methods(["step-linear-k1"])
    values = []
    for size in (5, 20):
        measuring = MeasureOptions(
            str(image_folder), 20, features["image"], cache=Cache(tmp_path / str(size))
        )
        cell = compare(
            folders["image"],
            (3,),
            method,
            measuring=measuring,
            options=DrawOptions(batch_size=size),
        ).results["cells"][0]
        values.append({key: score["value"] for key, score in cell["metrics"].items()})
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_another_model_of_the_same_name_is_another_comparison(
    folders, features, image_folder, tmp_path, capsys
):
    other = tmp_path / "other" / folders["image"].name
    shutil.copytree(folders["image"], other)
    weights = other / "model.safetensors"
    write_tensors(weights, {n: v.half().float() for n, v in load_file(weights).items()})
    record = json.loads((other / "config.json").read_text())
    record["weights_sha256"] = sha256(weights)
    (other / "config.json").write_text(json.dumps(record))
    stated = ["-S", "3", "-n", "20", "--methods", "var-linear-k0", "--out", str(tmp_path / "out")]
    stated += ["--against", str(image_folder), "--features", features["image"]]
    assert fastdpm(["compare", str(folders["image"]), *stated]) == 0
    assert fastdpm(["compare", str(other), *stated]) == 2
    assert re.search(tells(tmp_path / "out", "--overwrite"), capsys.readouterr().err)


def test_one_s_and_one_method_may_stand_alone(folders, features, image_folder):
    measuring = MeasureOptions(against=str(image_folder), n=20, features=features["image"])
    alone, listed = (
        compare(folders["image"], steps, methods, measuring=measuring)
        for steps, methods in ((1, "var-linear-k0"), ([1], ["var-linear-k0"]))
    )
    assert alone.cells == listed.cells
    assert alone.cells[0].failed is None
    assert alone.left_out == ()
    as_arrays: Any = map(np.asarray, (20, 0, [1], [1.0]))
    n, seed, steps, kappas = as_arrays
    arguments: Any = {"steps": steps, "kappas": kappas, "options": DrawOptions(seed=seed[()])}
    measured = replace(measuring, n=n[()])
    numpy = compare(folders["image"], methods="paper", measuring=measured, **arguments)
    assert alone.cells[0].metrics in [cell.metrics for cell in numpy.cells]
    with pytest.raises(InvalidArgumentError, match=tells("`steps`", 1.5)):
        compare(folders["image"], [1.5], measuring=measuring)  # type: ignore[list-item]
