"""Classes and guidance on the command line: what is drawn, recorded, resumed and refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastdpm.cli.app import run as fastdpm
from tests.conftest import CLASSES, write_model
from tests.messages import tells


def record(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "samples.json").read_text())
    return found


def test_guided_samples_are_recorded_with_what_they_took(folders, tmp_path, capsys):
    model, out = str(folders["classes"]), tmp_path / "out"
    command = ["sample", model, "--class", "horse,none", "--guidance", "2"]
    assert fastdpm([*command, "--guidance-interval", "0.2:1", "--out", str(out)]) == 0
    found = record(out)
    assert found["guidance"] == {"scale": 2.0, "interval": [0.2, 1.0]}
    assert found["recipe"]["guidance_scale"] == 2.0
    assert found["n"] == 2
    assert found["network_evaluations"] == 7
    assert "7 network evaluations" in capsys.readouterr().out
    assert fastdpm([*command, "--out", str(out), "--resume"]) == 2  # without the interval
    assert "0.2" in capsys.readouterr().err
    plain = tmp_path / "plain"
    assert (
        fastdpm(["sample", model, "--class", "none", "--guidance", "2", "--out", str(plain)]) == 0
    )
    assert record(plain)["guidance"] is None
    assert record(plain)["network_evaluations"] == 4


def test_latents_and_edits_are_guided(folders, tmp_path, capsys):
    model, images = str(folders["classes"]), tmp_path / "images"
    assert fastdpm(["sample", model, "-n", "1", "--out", str(images)]) == 0
    image, latents = str(images / "000000.png"), str(tmp_path / "l.safetensors")
    guided = ["--class", "cat", "--guidance", "2", "-S", "4"]
    capsys.readouterr()
    assert fastdpm(["encode", model, image, *guided, "--out", latents]) == 0
    assert "per input: 8" in capsys.readouterr().out
    assert fastdpm(["decode", model, latents, "--out", str(tmp_path / "decoded")]) == 0
    decoded = record(tmp_path / "decoded")
    assert (decoded["guidance"], decoded["network_evaluations"]) == ({"scale": 2.0}, 6)
    capsys.readouterr()
    changed = ["decode", model, latents, "--class", "none", "--guidance-interval", "0.5:1"]
    assert fastdpm([*changed, "--class", "3", "--out", str(tmp_path / "changed")]) == 2
    assert "cat, dog, horse" in capsys.readouterr().err
    assert fastdpm([*changed, "--class", "dog", "--out", str(tmp_path / "changed")]) == 0
    assert "as cat" in (said := capsys.readouterr().out)
    assert "as dog" in said
    found = record(tmp_path / "changed")
    assert (found["labels"], found["encoded_labels"]) == ([1], [0])
    assert found["guidance"] == {"scale": 2.0, "interval": [0.5, 1.0]}
    assert found["encoded_guidance"] == {"scale": 2.0}
    assert fastdpm(["edit", model, image, *guided, "--out", str(tmp_path / "edited")]) == 0
    edited = record(tmp_path / "edited")
    assert (edited["guidance"], edited["network_evaluations"]) == ({"scale": 2.0}, 4)
    saved = tmp_path / "bits.json"
    assert fastdpm(["likelihood", model, image, *guided, "--save", str(saved)]) == 0
    assert json.loads(saved.read_text())["network_evaluations"] == 8
    rebuilt = tmp_path / "rebuilt"
    arguments = ["--by", "invertible", "--out", str(rebuilt)]
    assert fastdpm(["reconstruct", model, image, *guided, *arguments]) == 0
    (result,) = json.loads((rebuilt / "reconstruct.json").read_text())["results"]
    assert result["guidance"] == {"scale": 2.0}
    assert result["samples"][0]["total_evaluations"] == 14


def test_the_inverse_direction_has_no_guidance_unless_it_is_set(folders, tmp_path, capsys):
    recipe = replace(CLASSES.recipe, guidance_scale=3.0)
    model = str(write_model(tmp_path / "m", replace(CLASSES, recipe=recipe)))
    images, latents = tmp_path / "images", str(tmp_path / "l.safetensors")
    assert fastdpm(["sample", model, "-n", "1", "--out", str(images)]) == 0
    assert record(images)["guidance"] == {"scale": 3.0}
    image = [str(images / "000000.png"), "--class", "cat", "-S", "4"]
    capsys.readouterr()
    assert fastdpm(["encode", model, *image, "--out", latents]) == 0
    assert "guidance 3" in (said := capsys.readouterr().out)
    assert "per input: 4" in said
    assert fastdpm(["decode", model, latents, "--out", str(tmp_path / "decoded")]) == 0
    assert record(tmp_path / "decoded")["guidance"] is None
    for command in ("interpolate", "reconstruct"):
        capsys.readouterr()
        inputs = [image[0], *image] if command == "interpolate" else image
        assert fastdpm([command, model, *inputs, "--out", str(tmp_path / command)]) == 0
        assert "guidance 3" in capsys.readouterr().out
    assert record(tmp_path / "interpolate")["guidance"] is None
    (result, *_) = json.loads((tmp_path / "reconstruct/reconstruct.json").read_text())["results"]
    assert result["guidance"] is None


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("classes", ["--class", "horze"], ["--class", "cat, dog, horse", "[0, 2]", "none"]),
        ("classes", ["--class", "3"], ["--class", "3", "cat, dog, horse", "none"]),
        ("classes", ["--guidance", "1,2"], ["--guidance", "4", "2"]),
        ("classes", ["--guidance", "nan"], ["--guidance", "nan"]),
        ("classes", ["--guidance", "strong"], ["--guidance", "strong"]),
        ("classes", ["--guidance-rescale", "0.5"], ["--guidance-rescale", "--guidance"]),
        (
            "classes",
            ["--guidance", "2", "--guidance-interval", "0.5"],
            ["--guidance-interval", "0.5"],
        ),
        ("image", ["--guidance", "2"], ["tiny-image", "--guidance"]),
        ("vocoder", ["--guidance", "2"], ["tiny-vocoder", "--guidance"]),
        ("image", ["--class", "none"], ["--class"]),
    ],
)
def test_what_cannot_be_guided_is_one_line_and_writes_nothing(
    folders, tmp_path, capsys, model, options, expected
):
    out = tmp_path / "out"
    assert fastdpm(["sample", str(folders[model]), *options, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(value in error for value in expected)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["--class", "none", "--guidance", "2"], ["no effect", "class"]),
        (["--guidance", "2", "--guidance-interval", "0.2:0.21"], ["--guidance-interval"]),
    ],
)
def test_guidance_that_changes_nothing_is_noted(folders, tmp_path, capsys, options, values):
    arguments = ["sample", str(folders["classes"]), "-n", "1", "-S", "2", *options]
    assert fastdpm([*arguments, "--out", str(tmp_path / "x")]) == 0
    assert re.search(tells(*values), capsys.readouterr().out)


def test_an_empty_option_is_refused(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in (["--out", ""], ["--out="], ["--class", ""]):
        assert fastdpm(["sample", str(folders["classes"]), *option]) == 2
        assert re.search(tells(option[0].rstrip("="), "empty"), capsys.readouterr().err)
    assert not list(tmp_path.iterdir())
