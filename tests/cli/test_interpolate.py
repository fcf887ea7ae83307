"""``fastdpm interpolate`` starts and ends at its inputs, and shows the way between."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fastdpm.cli.app import run as fastdpm
from fastdpm.data.inputs import read_samples
from tests.conftest import IMAGE
from tests.messages import tells


@pytest.fixture
def interpolate(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interpolate(*arguments: str, model: str = "image") -> tuple[int, str, str]:
        code = fastdpm(["interpolate", str(folders[model]), *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return interpolate


@pytest.fixture
def images(tmp_path) -> list[np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    return list(pixels)


@pytest.fixture
def sounds(tmp_path) -> list[np.ndarray]:
    waves = [0.5 * np.sin(np.arange(512) * w) for w in (0.2, 0.5)]
    for name, wave in zip("ab", waves, strict=True):
        soundfile.write(tmp_path / f"{name}.wav", wave, 8000, subtype="FLOAT")
    return waves


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_images_end_at_the_originals_with_a_strip_and_an_animation(interpolate, images, tmp_path):
    code, out, _ = interpolate("a.png", "b.png", "-n", "5", "--out", "way")
    assert code == 0
    assert re.search(tells(5, "a.png", "b.png", "way/strip.png"), out)
    way = tmp_path / "way"
    frames = [_pixels(way / f"{i:06d}.png") for i in range(5)]
    assert np.array_equal(frames[0], images[0])
    assert np.array_equal(frames[4], images[1])
    assert not any(np.array_equal(frames[2], image) for image in images)
    strip = _pixels(way / "strip.png")
    assert strip.shape == (96 + 4, 5 * 98 + 2)
    assert np.array_equal(strip[2:98:12, 2:98:12], images[0])
    assert np.array_equal(strip[2:98:12, -98:-2:12], images[1])
    with Image.open(way / "animation.png") as animation:
        assert getattr(animation, "n_frames", 1) == 8
        shown = []
        for frame in (0, 4, 5):
            animation.seek(frame)
            shown.append(np.asarray(animation.convert("L"))[::32, ::32])
    for found, wanted in zip(shown, (frames[0], frames[4], frames[3]), strict=True):
        assert np.array_equal(found, wanted)


def test_the_record_lists_the_way_alone(interpolate, images, tmp_path):
    interpolate("a.png", "b.png", "-n", "3", "-S", "12", "--out", "way")
    record = json.loads((tmp_path / "way" / "samples.json").read_text())
    assert record["files"] == ["000000.png", "000001.png", "000002.png"]
    assert record["error_of_ends"] < 1e-4
    assert "S = 12" in record["plan"]["label"]
    assert len(read_samples(tmp_path / "way", IMAGE.data)[0]) == 3


def test_fifty_steps_are_taken_unless_others_are_set(interpolate, images, tmp_path):
    for arguments, wanted in (((), "S = 50"), (("--levels", "var"), "VAR linear, S = 50")):
        interpolate("a.png", "b.png", "-n", "2", "--out", "way", "--overwrite", *arguments)
        assert (
            wanted in json.loads((tmp_path / "way" / "samples.json").read_text())["plan"]["label"]
        )
    interpolate("a.png", "b.png", "--at-steps", "90,50,10", "--out", "hand")
    record = json.loads((tmp_path / "hand" / "samples.json").read_text())
    assert "S = 50" not in record["plan"]["label"]


def test_the_row_that_ends_at_clean_data_can_be_left_out(interpolate, images, tmp_path):
    interpolate("a.png", "b.png", "-n", "2", "-S", "9", "--without-last-row", "--out", "way")
    record = json.loads((tmp_path / "way" / "samples.json").read_text())
    assert "rows 0 to 7" in record["plan"]["label"]
    assert record["error_of_ends"] < 1e-4


def test_sounds_end_at_the_originals_and_are_joined(interpolate, sounds, tmp_path):
    code, _, _ = interpolate("a.wav", "b.wav", "-n", "3", "--out", "way", model="sound")
    assert code == 0
    way = tmp_path / "way"
    found = [soundfile.read(way / f"{i:06d}.wav")[0] for i in range(3)]
    np.testing.assert_allclose(found[0], sounds[0], atol=2 / 32768)
    np.testing.assert_allclose(found[2], sounds[1], atol=2 / 32768)
    joined, rate = soundfile.read(way / "joined.wav")
    assert len(joined) == 3 * (512 + rate // 5)
    np.testing.assert_array_equal(joined[512 + rate // 5 :][:512], found[1])
    assert (way / "strip.png").stat().st_size > 5000


def test_a_first_order_encoder_prints_how_far_its_ends_are_off(interpolate, images):
    _, out, _ = interpolate("a.png", "b.png", "-S", "4", "--by", "first", "--out", "way")
    assert re.search(tells("--by invertible", "implicit"), out)
    _, out, _ = interpolate("a.png", "b.png", "--out", "exact")
    assert "--by invertible" not in out


def test_an_earlier_run_is_replaced_only_by_overwrite_and_nothing_else_ever(
    interpolate, images, tmp_path
):
    arguments = ("a.png", "b.png", "-S", "4", "--out", "way")
    interpolate(*arguments, "-n", "9")
    code, _, err = interpolate(*arguments)
    assert code == 2
    assert re.search(tells("way", "--out", "--overwrite"), err)
    assert interpolate(*arguments, "-n", "3", "--overwrite")[0] == 0
    assert len(list((tmp_path / "way").glob("0*.png"))) == 3
    (tmp_path / "way" / "mine.txt").write_text("mine")
    (tmp_path / "way" / "000003.png").write_text("mine")
    code, _, err = interpolate(*arguments, "-n", "4", "--overwrite")
    assert code == 2
    assert re.search(tells("way", "000003.png"), err)
    assert interpolate(*arguments, "-n", "2", "--overwrite")[0] == 0
    for name in ("mine.txt", "000003.png"):
        assert (tmp_path / "way" / name).read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (("a.png", "."), ["A and B", 3]),
        (("a.png", "b.png", "-n", "1"), ["-n", 2]),
        (("a.png", "b.png", "--kappa", "1"), ["--kappa"]),
        (("a.png", "c.png"), ["c.png"]),
        (
            ("a.png", "b.png", "--by", "magic"),
            ["--by", "first", "second", "implicit", "invertible", "magic"],
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(interpolate, images, arguments, values):
    code, _, err = interpolate(*arguments, "--out", "way")
    assert code == 2
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not Path("way").exists()


def test_an_end_that_does_not_converge_is_named(interpolate, images, soon_given_up):
    code, out, err = interpolate(
        *("a.png", "b.png", "-S", "4", "--by", "implicit", "--tolerance", "1e-30", "--out", "way")
    )
    assert code == 1
    for name in ("a.png", "b.png"):
        assert re.search(tells(name, "row 3 of 4"), out)
    assert re.search(tells("--by invertible", "--without-last-row", "--keep-best"), err)
    assert not Path("way").exists()
