"""``fastdpm sample`` writes what it says, resumes, and refuses what it cannot do."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm import Plan, Recipe, load_model, run
from fastdpm.cli.app import run as fastdpm
from fastdpm.core.structure import build
from fastdpm.data.tensors import sha256
from fastdpm.models import builtin_models
from tests.messages import tells


@pytest.fixture
def sample(folders, tmp_path, capsys, monkeypatch):
    """Run the command on a small model; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def sample(*arguments: str, model: str = "image") -> tuple[int, str, str]:
        code = fastdpm(["sample", str(folders.get(model, model)), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return sample


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=float)


def test_images_are_clamped_to_pixels_and_never_stretched(sample, folders, tmp_path):
    code, out, _ = sample("-n", "5", "-S", "6", "--out", "x", "--seed", "3")
    assert code == 0
    folder = tmp_path / "x"
    wanted = load_model(folders["image"]).sample(5, num_steps=6, seed=3)
    for i in range(5):
        pixels = _pixels(folder / f"{i:06d}.png")
        expected = (wanted[i, 0].clamp(-1, 1).numpy() + 1) * 127.5
        assert np.abs(pixels - expected).max() <= 0.501
    assert _pixels(folder / "grid.png").shape[0] > 100
    assert re.search(tells(5, "x", "x/grid.png"), out)
    assert re.search(tells(6, 100, 16.7), out)


def test_the_record_says_what_was_run(sample, folders, tmp_path):
    sample("-n", "2", "-S", "7", "--levels", "var", "--kappa", "0.5", "--out", "x")
    record = json.loads((tmp_path / "x" / "samples.json").read_text())
    model = load_model(folders["image"])
    plan = model.config.recipe.replace(num_steps=7, levels="var", kappa=0.5).compile(
        model.schedule
    )
    assert record["plan"]["fingerprint"] == plan.fingerprint
    assert record["weights_sha256"] == model.config.weights_sha256
    assert record["complete"] is True
    assert (record["seed"], record["n"], record["network_evaluations"], record["T"]) == (
        0,
        2,
        7,
        100,
    )
    assert "sample_rate" not in record
    assert record["files"] == ["000000.png", "000001.png"]
    assert {"fastdpm", "torch", "numpy", "python"} <= record["versions"].keys()


def test_the_record_has_the_recipe_of_the_plan(sample, folders, tmp_path, monkeypatch):
    arguments = ("-n", "2", "--variances", "1e-4,0.1,0.3", "--batch-size", "1", "--out", "x")
    calls = iter([run])

    def interrupt_the_second(*args, **kwargs):
        for draw in calls:
            return draw(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fastdpm.models.model.run", interrupt_the_second)
        assert sample(*arguments, model="sound")[0] == 130
    path = tmp_path / "x" / "samples.json"
    record = json.loads(path.read_text())
    assert record["complete"] is False
    recipe = build(Recipe, record["recipe"], "recipe")
    assert recipe.variances == (1e-4, 0.1, 0.3)
    plan = recipe.compile(load_model(folders["sound"]).schedule)
    assert plan.fingerprint == record["plan"]["fingerprint"]
    assert record["sample_rate"] == 8000
    assert sample(*arguments, "--resume", model="sound")[0] == 0
    assert json.loads(path.read_text())["recipe"]["variances"] == [1e-4, 0.1, 0.3]


def test_sounds_are_written_with_a_picture(sample, tmp_path):
    code, out, _ = sample("-n", "2", "--out", "x", model="sound")
    assert code == 0
    sound, rate = soundfile.read(tmp_path / "x" / "000001.wav")
    assert (rate, sound.shape) == (8000, (512,))
    assert (tmp_path / "x" / "sounds.png").stat().st_size > 5000
    assert re.search(tells(2, "x", "x/sounds.png"), out)


def test_a_vocoder_takes_its_examples_a_sound_or_a_mel(sample, tmp_path):
    assert sample("--out", "own", model="vocoder")[0] == 0
    assert len(list((tmp_path / "own").glob("*.wav"))) == 2
    tone = 0.5 * np.sin(np.arange(1001) * 0.3)
    soundfile.write(tmp_path / "tone.wav", tone, 8000)
    np.save(tmp_path / "mel.npy", np.zeros((8, 25), dtype=np.float32))
    torch.save(torch.zeros(8, 26), tmp_path / "tone.wav.pt")
    for source, samples in (("tone.wav", 1008), ("mel.npy", 400), ("tone.wav.pt", 416)):
        code, _, err = sample("--condition", source, "--out", f"of-{samples}", model="vocoder")
        assert code == 0, err
        sound, _ = soundfile.read(tmp_path / f"of-{samples}" / "000000.wav")
        assert sound.shape == (samples,)


def test_without_an_output_folder_a_new_one_is_made_each_time(sample, tmp_path):
    sample("-n", "1")
    sample("-n", "1")
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "tiny-image",
        "tiny-image-2",
    ]


def test_a_saved_plan_is_run_as_it_is(sample, folders, tmp_path, capsys):
    choices = ["-S", "5", "--method", "dpmpp-2m"]
    assert fastdpm(["plan", str(folders["image"]), *choices, "--save", "p.json"]) == 0
    capsys.readouterr()
    sample("-n", "2", "--plan", "p.json", "--out", "saved")
    sample("-n", "2", *choices, "--out", "direct")
    saved, direct = (
        json.loads((tmp_path / name / "samples.json").read_text())["plan"]["fingerprint"]
        for name in ("saved", "direct")
    )
    assert saved == direct == Plan.from_json((tmp_path / "p.json").read_text()).fingerprint


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(sample, tmp_path, monkeypatch):
    calls = []

    def interrupt_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    monkeypatch.setattr("fastdpm.models.model.run", interrupt_the_third)
    arguments = ("-n", "7", "--batch-size", "2", "--out", "x")
    code, _, err = sample(*arguments)
    assert code == 130
    assert re.search(tells(4, "x", "--resume"), err)
    names = {p.name for p in (tmp_path / "x").iterdir()}
    assert names == {"run.jsonl", "samples.json", *(f"{i:06d}.png" for i in range(4))}
    assert json.loads((tmp_path / "x" / "samples.json").read_text())["complete"] is False

    code, out, _ = sample(*arguments, "--resume")
    assert code == 0
    assert re.search(tells(3, 7, "x"), out)
    sample("-n", "7", "--out", "whole")
    for i in range(7):
        first, second = (_pixels(tmp_path / d / f"{i:06d}.png") for d in ("x", "whole"))
        assert np.abs(first - second).max() <= 1


def test_an_interrupt_before_the_first_sample_is_one_line(sample, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    for place in ("fastdpm.models.model.run", "fastdpm.models.find.read_config"):
        monkeypatch.setattr(place, interrupt)
        code, _, err = sample("-n", "2", "--out", "x")
        assert code == 130
        assert "--resume" not in err  # there is nothing to go on with
        assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_resuming_with_other_choices_is_refused(sample):
    sample("-n", "2", "--out", "x")
    code, _, err = sample("-n", "4", "--out", "x", "--resume", "--seed", "1")
    assert code == 2
    assert re.search(tells("x", "seed", 0, 1), err)


def test_resuming_with_another_network_of_the_same_weights_is_refused(sample, folders, tmp_path):
    model = shutil.copytree(folders["image"], tmp_path / "model")
    code, _, _ = sample("-n", "2", "--out", "x", model=str(model))
    assert code == 0
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"time_scale": 0.5}))
    code, _, err = sample("-n", "4", "--out", "x", "--resume", model=str(model))
    assert code == 2
    assert re.search(tells("x", "network"), err)
    assert not re.search(tells("weights"), err)


def test_a_used_folder_is_refused_and_overwriting_replaces_only_samples(sample, tmp_path):
    sample("-n", "5", "--out", "x")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    code, _, err = sample("-n", "2", "--out", "x")
    assert code == 2
    assert re.search(tells("x", "--out", "--overwrite"), err)
    assert sample("-n", "2", "--out", "x", "--overwrite")[0] == 0
    names = {p.name for p in (tmp_path / "x").iterdir()}
    samples = {"000000.png", "000001.png", "grid.png", "samples.json"}
    assert names == {*samples, "run.jsonl", "notes.txt"}


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(sample, tmp_path, monkeypatch):
    import errno
    import os

    def full(handle: int, mode: str) -> None:
        os.close(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fastdpm.data.files.os.fdopen", full)
    code, _, err = sample("-n", "2", "--out", "x")
    assert code == 1
    assert err.count("\n") == 1
    assert re.search(tells("x/run.jsonl", "disk is full", "--out"), err)
    assert not (tmp_path / "x").exists()


def test_a_disk_that_fills_within_a_batch_leaves_what_can_be_resumed(
    sample, tmp_path, monkeypatch
):
    import errno

    from fastdpm.data.pixels import write_png

    written = []

    def fill(path: Path, pixels: np.ndarray) -> None:
        written.append(path)
        if len(written) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_png(path, pixels)

    monkeypatch.setattr("fastdpm.output.sample_files.write_png", fill)
    code, _, err = sample("-n", "8", "--batch-size", "4", "--out", "x")
    assert code == 1
    assert re.search(tells("--resume", "--out"), err)
    assert err.count("\n") == 1
    names = {p.name for p in (tmp_path / "x").iterdir()}
    assert names == {"run.jsonl", "samples.json", *(f"{i:06d}.png" for i in range(4))}
    assert sample("-n", "8", "--out", "x", "--resume")[0] == 0


def test_overwriting_keeps_the_old_run_until_there_is_a_new_one(sample, tmp_path, monkeypatch):
    sample("-n", "3", "--out", "x")
    before = {p.name for p in (tmp_path / "x").iterdir()}

    def broken(*args, **kwargs):
        return run(args[0], lambda x, t: x * float("nan"), *args[2:], **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr("fastdpm.models.model.run", broken)
        assert sample("-n", "2", "--out", "x", "--overwrite")[0] == 1
    assert {p.name for p in (tmp_path / "x").iterdir()} == before


def test_a_saved_plan_leaves_nothing_to_choose(sample, folders, tmp_path):
    assert fastdpm(["plan", str(folders["image"]), "--save", "p.json"]) == 0
    code, _, err = sample("--plan", "p.json", "-S", "9", "--kappa", "1")
    assert code == 2
    assert re.search(tells("--plan", "--steps", "--kappa"), err)


def test_a_network_that_fails_leaves_no_folder(sample, folders, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        return run(args[0], lambda x, t: x * float("nan"), *args[2:], **kwargs)

    monkeypatch.setattr("fastdpm.models.model.run", broken)
    code, _, err = sample("-n", "2", "-S", "3", "--out", "x")
    assert code == 1
    assert re.search(tells("row 0 of 3"), err)
    assert not (tmp_path / "x").exists()


USAGE = [
    (["-S", "0"], ["--steps", 1, 0]),
    (["-S", "101"], ["[1, 100]", 101]),
    (["-S", "ten"], ["--steps"]),
    (["--kappa", "1.5"], ["kappa", "[0, 1]", 1.5]),
    (["--levels", "best"], ["levels", "var", "step", "best"]),
    (["--spacing", "cubic"], ["spacing", "linear", "quadratic", "cubic"]),
    (["--method", "euler"], ["method", "ddim-rev", "dpmpp-2m", "euler"]),
    (["--precision", "int8"], ["precision", "float32", "int8"]),
    (["--clip", "hard"], ["clip", "none", "x0", "dynamic", "hard"]),
    (["--device", "tpu"], ["device", "auto", "cpu", "cuda", "tpu"]),
    (["--at-levels", "0.9,0.5"], ["level", 0.9, 0.5]),
    (["--at-levels", "0.9,x"], ["--at-levels", "0.9,x"]),
    (["--at-steps", "100,5"], ["steps", "(-1, 99]", 100]),
    (["--at-steps", "50,5", "-S", "3"], ["--at-steps", "--steps"]),
    (["--plan", "missing.json"], ["missing.json"]),
    (["--condition", "x.wav"], ["condition"]),
    (["--seed", "-1"], ["--seed"]),
    (["-n", "0"], ["-n"]),
    (["--resume"], ["--resume", "--out"]),
    (["--colour"], ["--colour"]),
]


@pytest.mark.parametrize(("arguments", "values"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_usage_errors_are_one_line_with_exit_code_2(sample, tmp_path, arguments, values):
    code, out, err = sample(*arguments)
    assert code == 2, (out, err)
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("write", "values"),
    [
        (
            lambda p: soundfile.write(p / "c.wav", np.ones(500), 16000),
            ["c.wav", "16000 Hz", "8000"],
        ),
        (lambda p: (p / "c.wav").write_bytes(b"RIFF"), ["c.wav"]),
        (lambda p: np.save(p / "c.npy", np.zeros((9, 30))), ["(9, 30)", 8]),
        (lambda p: np.save(p / "c.npy", np.zeros((8, 2))), ["(8, 2)"]),
        (lambda p: (p / "c.npy").write_bytes(b"x"), ["c.npy"]),
        (lambda p: torch.save({"mel": torch.zeros(8, 30)}, p / "c.pt"), ["c.pt", "dict"]),
        (
            lambda p: torch.save(torch.zeros(8, 30, dtype=torch.int64), p / "c.pt"),
            ["c.pt", "torch.int64"],
        ),
        (lambda p: torch.save(torch.zeros(9, 30), p / "c.pt"), ["(9, 30)", 8]),
        (lambda p: (p / "c.pt").write_bytes(b"\x80\x02cos\nmkdir\n."), ["c.pt", "os.mkdir"]),
        (lambda p: (p / "c.safetensors").write_bytes(b"x"), ["c.safetensors"]),
    ],
)
def test_conditions_that_do_not_fit_are_one_line(sample, tmp_path, write, values):
    write(tmp_path)
    source = next(tmp_path.glob("c.*")).name
    code, _, err = sample("--condition", source, "--out", "x", model="vocoder")
    assert code in (1, 2)
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_an_unknown_model_and_an_absent_device_are_one_line(tmp_path, capsys, folders):
    assert fastdpm(["sample", "mnist"]) == 2
    assert re.search(tells("mnist", *builtin_models()), capsys.readouterr().err)
    if not torch.cuda.is_available():
        assert fastdpm(["sample", str(folders["image"]), "--device", "cuda"]) == 1
        assert re.search(tells("CUDA", 0), capsys.readouterr().err)
    damaged = Path(shutil.copytree(folders["image"], tmp_path / "damaged"))
    (damaged / "model.safetensors").write_bytes(b"nothing")
    assert fastdpm(["sample", str(damaged)]) == 1
    found, wanted = (
        sha256(damaged / "model.safetensors"),
        load_model(folders["image"]).config.weights_sha256,
    )
    assert re.search(
        tells("model.safetensors", f"{found[:12]}...", f"{wanted[:12]}..."),
        capsys.readouterr().err,
    )
