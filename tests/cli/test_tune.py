"""``fastdpm tune`` learns, measures and installs plans, and goes on where it stopped."""

import json
import shutil

import pytest

from fastdpm.cli.app import run as fastdpm
from fastdpm.core.errors import SamplingError
from fastdpm.models.config import BUILTIN
from fastdpm.models.tuned import read_tuned
from fastdpm.tuning import Tuning

FAST = ["-n", "32", "--until", "levels", "--evaluations", "500", "--teacher-steps", "12"]


@pytest.fixture
def tune(tmp_path, capsys, monkeypatch):
    """Run the command; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def tune(*arguments: str) -> tuple[int, str, str]:
        code = fastdpm(["tune", *arguments, *FAST, "--out", "tuned"])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return tune


def test_plans_are_installed_and_then_used(tune, folders, tmp_path, capsys):
    shutil.copytree(folders["image"], tmp_path / "mine")
    code, out, err = tune("mine", "-S", "2,1", "--install", "--seeds", "2")
    assert (code, err) == (0, "")
    assert "S = 2 (2 of 2), levels" in out
    assert sorted(path.name for path in (tmp_path / "tuned").glob("*.json")) == [
        "S1.json",
        "S2.json",
    ]
    tuned = read_tuned(tmp_path / "mine" / "plans" / "S2.json")
    assert tuned.plan.fingerprint == read_tuned(tmp_path / "tuned" / "S2.json").plan.fingerprint
    assert len(tuned.record["stages"]) == 2
    assert fastdpm(["sample", "mine", "-S", "2", "-n", "1", "--out", "samples"]) == 0
    record = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert record["plan"]["fingerprint"] == tuned.plan.fingerprint
    assert fastdpm(["plan", "mine", "-S", "2"]) == 0
    assert "distance to the teacher after each row" in capsys.readouterr().out


def test_a_plan_keeps_its_measured_quality(tune, tmp_path, capsys):
    shutil.copytree(BUILTIN / "digits", tmp_path / "mine")
    assert tune("mine", "-S", "2", "--install")[0] == 0
    tuned = read_tuned(tmp_path / "tuned" / "S2.json")
    assert (tuned.quality, tuned.measured_as) == ({}, "not measured")
    code, out, err = tune("mine", "-S", "2", "--install", "--measure", "130", "--resume")
    assert (code, err, "levels:" in out) == (0, "", False)  # it is measured, but not learned again
    measured = read_tuned(tmp_path / "mine" / "plans" / "S2.json")
    assert measured.plan.fingerprint == tuned.plan.fingerprint
    assert (measured.quality["n"], measured.quality["seed"]) == (130, 0)
    assert "frechet_distance" in measured.quality["scores"]
    assert measured.measured_as.endswith("(130 samples, seed 0)")
    assert f"S = 2: {measured.measured_as}" in out
    assert "(140 samples" in tune("mine", "-S", "2", "--measure", "140", "--resume")[1]
    assert fastdpm(["plan", "mine", "-S", "2"]) == 0
    assert "130 samples, seed 0" in " ".join(capsys.readouterr().out.split())


def test_a_stopped_tuning_goes_on_with_the_next_stage(tune, folders, monkeypatch):
    model, run = str(folders["image"]), Tuning.run

    def stop(tuning, num_steps, kept, keep):
        def kept_then_stopped(done):
            keep(done)
            raise SamplingError("stopped")

        return run(tuning, num_steps, kept, keep if kept else kept_then_stopped)

    monkeypatch.setattr(Tuning, "run", stop)
    assert tune(model, "-S", "2", "--seeds", "2")[0] == 1
    code, out, err = tune(model, "-S", "2", "--seeds", "2", "--resume")
    assert (code, err) == (0, "")
    assert (code, "(1 of 2), levels" in out, "(2 of 2), levels" in out) == (0, False, True)


def test_other_commands_take_tuned_plans_from_files(tune, capsys):
    model = "digits"
    assert tune(model, "-S", "1,2")[0] == 0
    plans = ["tuned/S1.json", "tuned/S2.json"]
    assert fastdpm(["plan", model, "--plan", plans[1]]) == 0
    shown = capsys.readouterr().out
    assert "tuned, S = 2" in shown
    assert "distance to the teacher" in shown
    compare = ["compare", model, "-S", "1,2,3", "--methods", "tuned,paper", "--dry-run"]
    capsys.readouterr()
    assert fastdpm([*compare, "--plan", ",".join(plans)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "tuned plan" in line)
    assert row.split() == ["tuned", "plan", "1", "2"]
    assert fastdpm([*compare, "--plan", "tuned/S1.json,tuned/S1.json"]) == 2
    assert "both for S = 1" in capsys.readouterr().err
    assert (
        fastdpm(
            ["compare", model, "-S", "2", "--methods", "paper", "--plan", plans[1], "--dry-run"]
        )
        == 2
    )
    assert "--plan needs tuned among --methods" in capsys.readouterr().err
    assert fastdpm(["compare", model, "-S", "3", "--plan", plans[1], "--dry-run"]) == 2
    assert "is for S = 2" in capsys.readouterr().err
    assert fastdpm(["plan", model, "--save", "untrained.json"]) == 0
    assert fastdpm([*compare, "--plan", "untrained.json"]) == 2
    assert "untrained.json is no tuned plan" in capsys.readouterr().err
