"""Options that would have no effect on a kind of model, or contradict each other, are refused.

Every refusal is one line that names the option, with exit code 2, before anything is written.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm.cli.app import COMMANDS
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.spec import DataSpec
from fastdpm.inverse.latents_file import read_latents
from tests.conftest import IMAGE, VOCODER, write_model
from tests.messages import tells

CLASSES = replace(
    IMAGE,
    name="tiny-classes",
    network={
        "type": "adm-unet",
        "image_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "model_channels": 32,
        "channel_mult": [1],
        "num_res_blocks": 1,
        "attention_resolutions": [],
        "num_classes": 5,
    },
    data=DataSpec("image", (1, 8, 8), classes=5),
)


@pytest.fixture(scope="module")
def places(folders, tmp_path_factory) -> dict[str, Path]:
    """Models of every kind, and inputs: {image}, {classes}, {png}, {wav} ... in a command."""
    base = tmp_path_factory.mktemp("refusals")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(base / f"{name}.png")
    soundfile.write(base / "a.wav", 0.5 * np.sin(np.arange(512) * 0.3), 8000)
    return {
        **folders,
        "classes": write_model(base / "classes", CLASSES),
        "bare": write_model(base / "bare", VOCODER),  # a vocoder without examples
        "png": base / "a.png",
        "png2": base / "b.png",
        "wav": base / "a.wav",
    }


SAMPLE = [
    ("{image} --overwrite", ["--overwrite", "--out"]),
    ("{image} --resume", ["--resume", "--out"]),
    ("{image} --class 0", ["--class"]),
    ("{sound} --class 0", ["--class"]),
    ("{vocoder} --class 0", ["--class", "--condition"]),
    ("{vocoder} --class 0 --condition {wav}", ["--class", "--condition"]),
    ("{image} --condition {wav}", ["--condition"]),
    ("{sound} --condition {wav}", ["--condition"]),
    ("{classes} --condition 0,3", ["--condition", "--class", 4]),
    ("{classes} --condition {wav}", ["--condition", "--class", 4]),
    ("{classes} --class 5", ["[0, 4]", 5]),
    ("{classes} --class 0,-1", ["[0, 4]", -1]),
    ("{classes} --class 99999999999999999999", ["[0, 4]", 99999999999999999999]),
    ("{classes} --class cat", ["--class", "cat"]),
    ("{classes} --class 0.5", ["--class", 0.5]),
    ("{classes} --class 0,3,4 -n 2", ["-n", 2, "--class", 3]),
    ("{bare}", ["8 bands", "8000 Hz"]),
    ("{image} --format wav", ["--format", "png", "webp", "npz", "wav"]),
    ("{sound} --format png", ["--format", "wav", "flac", "npz", "png"]),
    ("{vocoder} --format npy", ["--format", "wav", "flac", "npz", "npy"]),
    ("{image} --format npz --out x.npz", ["--out", "x.npz", "--format npz"]),
    ("{image} --out x.WAV", ["--out", "x.WAV", "--format wav"]),
    ("{vocoder} --condition .", ["--condition", "folder", "file"]),
    ("{image} --variances 1e-4 1e-3", ["1e-3", "commas"]),
    ("{image} --stepp 3", ["--stepp", "--steps"]),
    ("{image} --format bmp", ["--format", "png", "webp", "npz", "bmp"]),
    ("{image} --unbounded", ["var"]),
    ("{image} --unbounded --levels step", ["var"]),
    ("{image} --unbounded --at-steps 9,3", ["--unbounded", "--at-steps"]),
    ("{image} --at-steps 9,3 --variances 0.1,0.2", ["variances"]),
    ("{image} --spacing linear --at-levels 0.5", ["--spacing", "--at-levels"]),
    ("{image} --method standard --kappa 1", ["standard", "--kappa"]),
    ("{image} --method standard -S 5", ["standard", "--steps"]),
    ("{image} --method dpmpp-2m --kappa 1", ["dpmpp-2m", "--kappa"]),
    ("{image} --checkpoint {png}", ["checkpoint", "cifar10-ddpm"]),
    ("cifar10-ddpm", ["cifar10-ddpm", "--checkpoint"]),
]
READING = [  # of every command that reads inputs
    ("{image} {png} --class 0", ["--class"]),
    ("{image} {png} --condition {wav}", ["--condition"]),
    ("{classes} {png}", ["--class"]),
    ("{classes} {png} --condition 3", ["--condition", "--class", 4]),
    ("{classes} {png} --class 9", ["[0, 4]", 9]),
    ("{classes} {png} {png2} --class 0,1,2", ["--class", 2, 3]),
    ("{vocoder} {wav} --class 1", ["--class", "--condition"]),
    ("{image} {png} --resample", ["--resample"]),
    ("{image} {png} --checkpoint {png}", ["checkpoint"]),
]
ENCODING = [
    ("{image} {png} --tolerance 0.1", ["--tolerance", "--by"]),
    ("{image} {png} --keep-best", ["--keep-best", "--by"]),
]
LEVELS = [("{image} {png} --unbounded", ["var"]), ("{image} {png} --kappa 0.5", ["--kappa"])]
OTHERS = [
    ("tune {image} -S 2 --class 1", ["--class", "classes"]),
    ("tune {image} -S 2 --guidance 2", ["tiny-image", "--guidance"]),
    ("tune digits -S 2 --install", ["--install", "digits", "model folder"]),
    ("tune {image} -S 2 -n 3", ["-n", 32, 3]),
    ("tune {image} -S 24", ["--steps", 23, 24, "--teacher-steps"]),
    ("tune {image} -S 2 --against {png}", ["--against", "--measure"]),
    ("tune {vocoder} -S 2 --measure 30", ["vocoder", "--against"]),
    ("plan {image} --plan {png}", ["a.png"]),
    ("compare {image} -S 2 --plan {png} --dry-run", ["a.png"]),
    ("edit {image} {png} --kappa 2", ["--kappa", "[0, 1]", 2.0]),
    ("edit {image} {png} --strength 0.5 --at-level 0.5", ["--strength", "--at-level"]),
    ("edit {image} {png} --mask {png} --span 0:1", ["--mask", "--span"]),
    ("edit {image} {png} --span 0:1", ["--span", "--mask"]),
    ("edit {image} {png} --unbounded", ["var"]),
    ("edit {image} {png} --strength 0", ["strength", "(0, 1]", 0]),
    ("interpolate {image} {png} {png2} -n 1", ["-n", 2, 1]),
    ("likelihood {image} {png} --gray-levels 1", ["--gray-levels", 2, 1]),
    ("plan {image} --unbounded", ["var"]),
    ("plan {image} --plot x.gif", ["x.gif", ".png", ".svg"]),
    ("plan {image} --class 0", ["--class"]),
    ("decode {image} none.safetensors --batch-size 0", ["--batch-size", 0]),
    ("convert {image} --format ddpm", ["--format"]),
    ("convert {png} --preset nothing", ["nothing"]),
    ("train digits --data sklearn:digits --steps 0", ["--steps", 1, 0]),
    ("train digits --data sklearn:digits --minutes 0", ["--minutes", 0.001, 0]),
    ("likelihood {image} {png} --grey-levels 1", ["--gray-levels", 2, 1]),  # its former name
    ("likelihood {image} {png} --grey-levels=1", ["--gray-levels", 2, 1]),
    ("push {image} name", ["owner/name", "name"]),
    ("recommend {image} --budget 4 --quality 1", ["--budget", "--quality"]),
    ("recommend {image} --budget 0.5", ["--budget", "at least 1", 0.5]),
]
TABLE = [
    *((f"sample {line}", values) for line, values in SAMPLE),
    *(
        (f"{command} {line}", values)
        for command in ("encode", "reconstruct", "edit", "likelihood")
        for line, values in READING
    ),
    *((f"{c} {line}", v) for c in ("encode", "reconstruct") for line, v in ENCODING),
    *((f"{c} {line}", v) for c in ("encode", "likelihood") for line, v in LEVELS),
    *OTHERS,
]
_NO_OUT = ("sample", "plan", "likelihood", "push")
_OUT = {"encode": "x.safetensors"}


@pytest.mark.parametrize(("line", "values"), TABLE, ids=[line for line, _ in TABLE])
def test_an_option_without_an_effect_is_refused_in_one_line(
    places, tmp_path, monkeypatch, capsys, line, values
):
    monkeypatch.chdir(tmp_path)
    arguments = line.format(**places).split()
    if arguments[0] not in _NO_OUT:
        arguments += ["--out", _OUT.get(arguments[0], "x")]
    code = fastdpm(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_the_table_names_every_command_with_options_of_its_own():
    named = {line.split()[0] for line, _ in TABLE}
    assert named | {"evaluate", "compare", "cache", "models"} == set(COMMANDS)


@pytest.mark.parametrize(
    "line",
    [
        "sample {image} --kappa 7",
        "sample {classes} --class 9",
        "sample {image} --format wav",
        "encode {image} {png} --tolerance 0.1 --out x.safetensors",
        "encode {image} {png} -S 1000 --out x.safetensors",
        "edit {image} {png} --strength 3 --out x",
        "likelihood {image} {png} --levels step -S 1000",
        "reconstruct {image} {png} --levels step -S 1000 --out x",
    ],
)
def test_what_needs_no_weights_is_refused_before_they_are_read(
    places, tmp_path, monkeypatch, capsys, line
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastdpm.models.load.open_model", None)  # fails if it is called
    assert fastdpm(line.format(**places).split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_labels_choose_what_is_drawn(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = str(places["classes"])
    assert fastdpm(["sample", model, "--class", "0,3,3", "--out", "x"]) == 0
    assert fastdpm(["sample", model, "-n", "3", "--class", "3", "--out", "y"]) == 0
    first, second = (
        [np.asarray(Image.open(tmp_path / name / f"{i:06d}.png")) for i in range(3)]
        for name in ("x", "y")
    )
    assert not np.array_equal(first[0], second[0])  # of class 0 and of class 3
    for i in (1, 2):
        assert np.array_equal(first[i], second[i])


@pytest.mark.parametrize("command", ["encode", "reconstruct", "edit", "likelihood", "interpolate"])
def test_labels_are_passed_to_every_command_that_reads_inputs(
    places, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    seen = set()

    def forward(network, x, t, y):
        if y.device.type != "meta":  # where the shapes are tried
            seen.update(y.tolist())
        return torch.zeros_like(x)

    monkeypatch.setattr("fastdpm.networks.adm_unet.ADMUNet.forward", forward)
    arguments = [command, *(str(places[name]) for name in ("classes", "png", "png2"))]
    out = {"likelihood": []}.get(command, ["--out", _OUT.get(command, "x")])
    assert fastdpm([*arguments, "--class", "2", "-S", "3", *out]) == 0
    assert seen == {2}


def test_inputs_that_have_labels_need_no_class(places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = str(places["classes"])
    assert fastdpm(["sample", model, "-n", "3", "--class", "3,1", "-S", "2", "--out", "x"]) == 0
    assert fastdpm(["edit", model, "x", "-S", "2", "--out", "edited"]) == 0
    assert json.loads(Path("edited/samples.json").read_text())["labels"] == [3, 1, 3]
    images = np.zeros((2, 8, 8, 1), dtype=np.uint8)
    for labels, known in (([2, 0], True), ([2, 9], False)):
        np.savez("images.npz", samples=images, labels=labels)
        capsys.readouterr()
        code = fastdpm(["encode", model, "images.npz", "-S", "2", "--out", f"{known}.safetensors"])
        output = capsys.readouterr()
        assert code == (0 if known else 2)
        if known:
            assert "found in the inputs: 2, 0" in output.out
            condition = read_latents("True.safetensors").latents.condition
            assert condition is not None
            assert condition.tolist() == [2, 0]
        else:
            assert re.search(tells("images.npz:1", 9, 4, "--class"), output.err)


def test_an_unknown_option_is_compared_with_close_names_only(capsys):
    assert fastdpm(["sample", "digits", "--variance", "0.1"]) == 2
    assert re.search(tells("--variance", "--variances"), capsys.readouterr().err)
    assert fastdpm(["train", "digits", "--variances", "0.1"]) == 2
    err = capsys.readouterr().err
    assert re.findall(r"--[a-z-]+", err) == ["--variances", "--help"]


def test_compare_says_where_custom_levels_are_measured(capsys):
    assert fastdpm(["compare", "digits", "--variances", "0.1", "--out", "x"]) == 2
    assert re.search(tells("fastdpm evaluate --variances"), capsys.readouterr().err)
