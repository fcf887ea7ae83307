"""The other commands, and how quickly they start."""

import re
import subprocess
import sys

import pytest

from fastdpm import Plan, load_model
from fastdpm import __version__ as fastdpm_version
from fastdpm.cli.app import run as fastdpm
from fastdpm.models import builtin_models
from fastdpm.models.presets import presets
from tests.messages import tells


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*(m for m in sys.modules if '.' not in m))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(out.stdout.split())


def test_importing_the_package_loads_neither_torch_nor_numpy():
    assert not _loaded_by("import fastdpm") & {"torch", "numpy", "scipy"}


def test_help_and_plans_need_no_torch():
    for arguments in (["--help"], ["plan", "digits"], ["plan", "lsun-bedroom"], ["models"]):
        statement = f"from fastdpm.cli.app import run; assert run({arguments}) == 0"
        assert "torch" not in _loaded_by(statement), arguments


def test_a_recipe_is_refused_without_torch():
    arguments = ["sample", "digits", "--kappa", "7"]
    statement = f"from fastdpm.cli.app import run; assert run({arguments}) == 2"
    assert "torch" not in _loaded_by(statement)


def test_help_and_version_are_quick():
    for argument in ("--help", "--version"):
        statement = f"from fastdpm.cli.app import run; assert run(['{argument}']) == 0"
        assert not _loaded_by(statement) & {"torch", "numpy", "scipy"}, argument


def test_the_version_is_that_of_the_package(capsys):
    assert fastdpm(["--version"]) == 0
    assert capsys.readouterr().out.split() == ["fastdpm", fastdpm_version]


def test_the_package_runs_as_a_module(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fastdpm", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
        )

    assert run("--version").stdout.split() == ["fastdpm", fastdpm_version]
    wrong = run("plan", "nowhere")
    assert wrong.returncode == 2
    assert re.search(tells("nowhere"), wrong.stderr)


def test_a_plan_is_printed_drawn_and_saved(folders, tmp_path, capsys):
    save, plot = tmp_path / "p.json", tmp_path / "p.png"
    arguments = ["plan", str(folders["image"]), "-S", "8", "--levels", "var"]
    assert fastdpm([*arguments, "--save", str(save), "--plot", str(plot)]) == 0
    plan = Plan.from_json(save.read_text())
    assert plan.num_rows == 8
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plan.fingerprint in capsys.readouterr().out


def test_a_plan_can_have_its_levels_by_hand(folders, capsys):
    model = str(folders["sound"])
    assert fastdpm(["plan", model, "--variances", "1e-4,0.01,0.3", "--kappa", "0"]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert re.findall(r"\d+", first)[:2] == ["3", "3"]  # variances, and network evaluations


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--plot", "p.gif"], [".png", ".pdf", ".svg", "p.gif"]),
        (["--save", "no/such/folder/p.json"], ["no/such/folder/p.json"]),
        (["--unbounded", "--levels", "step"], ["var"]),
    ],
)
def test_plans_that_cannot_be_written_are_one_line(
    folders, tmp_path, monkeypatch, capsys, arguments, values
):
    monkeypatch.chdir(tmp_path)
    assert fastdpm(["plan", str(folders["image"]), *arguments]) in (1, 2)
    out, err = capsys.readouterr()
    assert not out  # refused before anything is printed
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_models_lists_every_published_model(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert fastdpm(["models", "--presets"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in presets())


def test_models_lists_every_built_in_model(capsys):
    assert fastdpm(["models"]) == 0
    out = capsys.readouterr().out
    assert builtin_models()
    assert all(name in out for name in builtin_models())


@pytest.mark.parametrize("name", builtin_models())
def test_every_built_in_model_is_whole_and_samples(name):
    model = load_model(name)
    x = model.sample(2, num_steps=3)
    assert x.shape[0] == 2
    assert 0.01 < float(x.std()) < 1
    assert model.config.license in ("Apache-2.0", "CC-BY-SA-4.0", "unknown")
    assert model.config.provenance["samples_seen"] > 0


def test_training_runs_stops_and_resumes(tmp_path, capsys):
    pytest.importorskip("sklearn")
    out = str(tmp_path / "run")
    arguments = ["train", "digits", "--data", "sklearn:digits", "--out", out, "--device", "cpu"]
    assert fastdpm([*arguments, "--minutes", "0.01"]) == 0
    assert re.search(tells(f"{out}/model"), capsys.readouterr().out)
    assert fastdpm([*arguments, "--minutes", "1"]) == 2
    assert re.search(tells(out, "--out", "--resume"), capsys.readouterr().err)
    steps = load_model(tmp_path / "run" / "model").config.provenance["steps"]
    assert fastdpm([*arguments, "--minutes", "0.001", "--resume"]) == 0
    assert re.search(tells(f"step {steps}"), capsys.readouterr().out)
    assert load_model(tmp_path / "run" / "model").config.provenance["steps"] > steps


def test_options_replace_the_steps_and_batch_size_of_a_configuration(tmp_path):
    out = tmp_path / "run"
    arguments = ["--data", "sklearn:digits", "--out", str(out), "--device", "cpu"]
    assert fastdpm(["train", "digits", *arguments, "--steps", "3", "--batch-size", "2"]) == 0
    provenance = load_model(out / "model").config.provenance
    assert (provenance["steps"], provenance["batch_size"]) == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["mnist", "--data", "sklearn:digits"], 2, ["mnist", "cifar10", "spoken-digits-vocoder"]),
        (["digits", "--data", "nowhere"], 1, ["nowhere", "sklearn:digits"]),
        (["cifar10", "--data", "sklearn:digits"], 1, ["(1, 8, 8)", "(3, 32, 32)"]),
        (["digits"], 2, ["--data"]),
    ],
)
def test_training_that_cannot_start_is_one_line(
    tmp_path, monkeypatch, capsys, arguments, code, values
):
    monkeypatch.chdir(tmp_path)
    assert fastdpm(["train", *arguments, "--out", "run"]) == code
    err = capsys.readouterr().err
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
