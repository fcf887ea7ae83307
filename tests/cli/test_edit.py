"""``fastdpm edit`` and ``fastdpm likelihood``: what they write, say and refuse."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fastdpm.cli import app as cli
from tests.messages import tells


@pytest.fixture
def command(folders, tmp_path, capsys, monkeypatch):
    """Run a command on a small model; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "in" / f"{i}.png")
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 2:6] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    wave = (np.sin(np.arange(512) * 0.3) * 20_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", wave, 8000, subtype="PCM_16")

    def command(name: str, *arguments: str, model: str = "image") -> tuple[int, str, str]:
        code = cli.run([name, str(folders[model]), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_files_keep_the_pixels_outside_the_mask_to_the_last_bit(command, tmp_path):
    code, out, err = command("edit", "in", "--mask", "m.png", "--out", "x", "--kappa", "1")
    assert code == 0, err
    mask = _pixels(tmp_path / "m.png") == 255
    for i in range(3):
        before, after = _pixels(tmp_path / "in" / f"{i}.png"), _pixels(tmp_path / f"x/{i:06d}.png")
        assert np.array_equal(before[~mask], after[~mask])
        assert (before[mask] != after[mask]).mean() > 0.5
    record = json.loads((tmp_path / "x" / "samples.json").read_text())
    assert record["inputs"] == ["0.png", "1.png", "2.png"]
    assert record["painted"] == 0.25
    assert record["complete"] is True
    sheet = _pixels(tmp_path / "x" / "edited.png")
    assert sheet.shape[0] == pytest.approx(sheet.shape[1], rel=0.05)
    assert re.search(tells(3, "25 %", "level 0.07496", "x/edited.png"), out)


def test_an_edit_of_part_of_the_rows_says_where_it_began(command, tmp_path):
    code, out, err = command("edit", "in/0.png", "-S", "10", "--strength", "0.3", "--out", "x")
    assert code == 0, err
    assert re.search(tells(1, "level 0.8783", 3, "x/edited.png"), out)
    code, out, _ = command("edit", "in/0.png", "-S", "10", "--at-level", "0.9", "--out", "y")
    assert re.search(tells(1, "level 0.9", "y/edited.png"), out)
    assert _pixels(tmp_path / "y" / "edited.png").shape[0] < 3 * 260


def test_a_span_of_a_sound_is_painted_and_the_rest_kept(command, tmp_path):
    code, out, err = command("edit", "a.wav", "--span", "0.01:0.03", "--out", "x", model="sound")
    assert code == 0, err
    before = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    after = soundfile.read(tmp_path / "x" / "000000.wav", dtype="int16")[0]
    kept = np.ones(512, dtype=bool)
    kept[80:240] = False
    assert np.array_equal(before[kept], after[kept])
    assert not np.array_equal(before[~kept], after[~kept])
    assert (tmp_path / "x" / "edited.png").stat().st_size > 5000
    assert re.search(tells(1, "31.2 %", "x/edited.png"), out)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--strength", "0.5", "--at-level", "0.5"], ["--strength", "--at-level"]),
        (["--strength", "2"], ["strength", "(0, 1]", 2]),
        (["--at-level", "1"], ["level", 1]),
        (["--method", "dpmpp-2m"], ["--method"]),
        (["--mask", "none.png"], ["none.png", ".npy"]),
        (["--mask", "big.png"], ["mask", "(9, 8)", "(8, 8)"]),
        (["--mask", "in/0.png"], ["in/0.png", 95, 255, 0]),
        (["--mask", "m.png", "--span", "0:1"], ["--mask", "--span"]),
        (["--span", "0:1"], ["--span", "--mask"]),
    ],
)
def test_what_cannot_be_edited_is_one_line(command, tmp_path, arguments, values):
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(tmp_path / "big.png")
    code, _, err = command("edit", "in", *arguments, "--out", "x")
    assert code == 2
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("span", "values"),
    [("0.1", ["--span", "0.1"]), ("0.03:0.01", ["0.064 seconds", "0.03:0.01"])],
)
def test_what_is_no_span_is_one_line(command, span, values):
    code, _, err = command("edit", "a.wav", "--span", span, "--out", "x", model="sound")
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(tells(*values), err)


def test_bits_are_printed_saved_and_drawn(command, tmp_path):
    arguments = ["-S", "4", "--save", "b.json", "--plot", "b.png"]
    code, out, err = command("likelihood", "in", *arguments)
    assert code == 0, err
    record = json.loads((tmp_path / "b.json").read_text())
    assert f"{record['bits_per_dimension']:.4f} ± {record['standard_error']:.4f}" in out
    assert record["bits_per_dimension"] == pytest.approx(sum(record["terms"]))
    assert record["bits_per_dimension"] == pytest.approx(np.mean(record["per_sample"]))
    assert (len(record["terms"]), record["samples"]) == (5, 3)
    assert record["inputs"] == ["0.png", "1.png", "2.png"]
    assert re.search(tells("gray levels", 256, "8-bit", "b.json", "b.png"), out)
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    for variance in ("small", "large"):
        command(
            "likelihood", "in", "-S", "4", "--variance", variance, "--save", f"{variance}.json"
        )
    small, large = (
        json.loads((tmp_path / f"{v}.json").read_text())["bits_per_dimension"]
        for v in ("small", "large")
    )
    assert large == record["bits_per_dimension"] != small


def test_sounds_are_judged_at_16_bits_and_rounding_is_printed(command):
    code, out, err = command("likelihood", "a.wav", model="sound")
    assert code == 0, err
    assert re.search(tells("gray levels", 65536, "16-bit", "by 0 of a step", "1 sample"), out)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--grey-levels", "17"], ["0.5 steps", 17, "--gray-levels"]),
        (["--variance", "learned"], ["variance", "learned", "small", "large"]),
        (["--variance", "medium"], ["variance", "small", "large", "learned", "medium"]),
        (["--kappa", "0"], ["--kappa"]),
        (["--save", "no/b.json"], ["no/b.json"]),
    ],
)
def test_what_has_no_likelihood_is_one_line(command, arguments, values):
    code, _, err = command("likelihood", "in", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(tells(*values), err)


def test_digits_have_17_grey_levels(command, capsys):
    assert cli.run(["likelihood", "digits", "sklearn:digits-test", "-n", "4", "-S", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(tells("gray levels", 17), out)
