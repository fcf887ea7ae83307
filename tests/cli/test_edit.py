"""``fastdpm edit`` and ``fastdpm likelihood``: what they write, say and refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fastdpm.cli import app as cli


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
    assert "3 painted, 25 % of each, from level" in out


def test_an_edit_of_part_of_the_rows_says_where_it_began(command, tmp_path):
    code, out, err = command("edit", "in/0.png", "-S", "10", "--strength", "0.3", "--out", "x")
    assert code == 0, err
    assert "1 edited, from level 0.8783 in 3" in out
    code, out, _ = command("edit", "in/0.png", "-S", "10", "--at-level", "0.9", "--out", "y")
    assert "1 edited, from level 0.9 in" in out
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
    assert "painted, 31.2 % of each" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strength", "0.5", "--at-level", "0.5"], "give --strength or --at-level, not both"),
        (["--strength", "2"], "the strength must lie in (0, 1], got 2"),
        (["--at-level", "1"], "the level to go back to must be noisier than 1"),
        (["--method", "dpmpp-2m"], "No such option: --method"),
        (["--mask", "none.png"], "no mask at 'none.png'"),
        (["--mask", "big.png"], "the mask has shape (9, 8), the data (8, 8) pixels"),
        (["--mask", "in/0.png"], "in/0.png holds value"),
        (["--mask", "m.png", "--span", "0:1"], "give --mask or --span, not both"),
        (["--span", "0:1"], "--span is of sounds: give --mask"),
    ],
)
def test_what_cannot_be_edited_is_one_line(command, tmp_path, arguments, said):
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(tmp_path / "big.png")
    code, _, err = command("edit", "in", *arguments, "--out", "x")
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("span", "said"),
    [("0.1", "takes two times in seconds"), ("0.03:0.01", "within the 0.064 seconds")],
)
def test_what_is_no_span_is_one_line(command, span, said):
    code, _, err = command("edit", "a.wav", "--span", span, "--out", "x", model="sound")
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_bits_are_printed_saved_and_drawn(command, tmp_path):
    arguments = ["-S", "4", "--save", "b.json", "--plot", "b.png"]
    code, out, err = command("likelihood", "in", *arguments)
    assert code == 0, err
    record = json.loads((tmp_path / "b.json").read_text())
    assert f"{record['bits_per_dimension']:.4f} ± {record['standard_error']:.4f} bits" in out
    assert record["bits_per_dimension"] == pytest.approx(sum(record["terms"]))
    assert record["bits_per_dimension"] == pytest.approx(np.mean(record["per_sample"]))
    assert (len(record["terms"]), record["samples"]) == (5, 3)
    assert record["inputs"] == ["0.png", "1.png", "2.png"]
    assert "grey levels: 256, as 8-bit images have" in out
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


def test_sounds_are_judged_at_16_bits_and_rounding_is_told(command):
    code, out, err = command("likelihood", "a.wav", model="sound")
    assert code == 0, err
    assert "grey levels: 65536, as 16-bit sounds have; values rounded to them, by 0 of" in out
    assert "bits per dimension, 1 sample\n" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grey-levels", "17"], "of a step from the nearest of 17 grey levels: state how many"),
        (["--variance", "learned"], "this one returns none: use 'small' or 'large'"),
        (["--variance", "medium"], "variance must be one of"),
        (["--kappa", "0"], "No such option: --kappa"),
        (["--save", "no/b.json"], "there is no folder no"),
    ],
)
def test_what_has_no_likelihood_is_one_line(command, arguments, said):
    code, _, err = command("likelihood", "in", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err


def test_digits_have_17_grey_levels(command, capsys):
    assert cli.run(["likelihood", "digits", "sklearn:digits-test", "-n", "4", "-S", "4"]) == 0
    out = capsys.readouterr().out
    assert "grey levels: 17, those of the model's data; values rounded" in out
