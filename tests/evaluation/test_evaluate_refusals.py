"""What cannot be measured is refused before anything is drawn, and the message names it."""

import re

import numpy as np
import pytest
from PIL import Image

from fastdpm import DataError, InvalidArgumentError, MissingExtraError, evaluate
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation.evaluating import MeasureOptions, save_statistics
from tests.messages import tells


def test_a_recording_that_is_too_short_is_named_before_any_is_spoken(
    folders, sound_folder, own_cache
):
    import soundfile

    soundfile.write(sound_folder / "001.wav", np.full(200, 0.1), 8000)
    (sound_folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=tells("notes.txt", 1, sound_folder)):
        evaluate(folders["vocoder"], str(sound_folder), n=3)
    (sound_folder / "notes.txt").unlink()
    with pytest.raises(DataError, match=tells("001.wav", 208, 513, "8000 Hz")):
        evaluate(folders["vocoder"], str(sound_folder), n=3)
    assert not list(own_cache.glob("*/samples/*"))


def _refuse_import(monkeypatch, package: str) -> None:
    import sys

    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_missing_extra_is_named(measure, folders, monkeypatch):
    _refuse_import(monkeypatch, "torchmetrics")
    with pytest.raises(MissingExtraError, match=tells("torchmetrics", "fastdpm[eval]")):
        measure(folders["image"], n=20)


def test_a_missing_extra_is_named_before_anything_is_drawn(
    measure, folders, monkeypatch, own_cache
):
    _refuse_import(monkeypatch, "sklearn")
    with pytest.raises(MissingExtraError, match=tells("scikit-learn", "fastdpm[eval]")):
        measure(folders["image"], n=20)
    assert not list(own_cache.glob("*/samples/*"))


def test_colour_is_not_measured_as_grey(measure, folders, image_folder):
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(image_folder / "zzz.png")
    with pytest.raises(DataError, match=tells("zzz.png", "(3, 8, 8)", "(1, 8, 8)")):
        measure(folders["image"], n=20)


def test_fewer_samples_than_requested_are_noted(measure, image_folder):
    assert any(re.search(tells(50, 40), note) for note in measure(image_folder, n=50).notes)


def test_too_few_samples_say_how_many_are_needed(measure, folders):
    with pytest.raises(InvalidArgumentError, match=tells(19, 20)):
        measure(folders["image"], n=19)


def test_images_of_mixed_sizes_are_refused(measure, image_folder, folders):
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(image_folder / "zzz.png")
    with pytest.raises(DataError, match=tells("zzz.png", "(1, 9, 8)", "(1, 8, 8)")):
        measure(folders["image"], n=20)


def test_sounds_of_mixed_rates_are_refused(folders, features, sound_folder, own_cache):
    import soundfile

    soundfile.write(sound_folder / "zzz.wav", np.ones(4000) * 0.1, 16000)
    with pytest.raises(DataError, match=tells("zzz.wav", "16000 Hz", "8000 Hz")):
        evaluate(folders["sound"], str(sound_folder), n=20, features=features["sound"])
    assert not list(own_cache.glob("*/statistics/*"))


def test_statistics_of_another_network_are_refused(
    measure, features, image_folder, folders, tmp_path
):
    path = tmp_path / "s.safetensors"
    save_statistics(str(image_folder), path, MeasureOptions(features=features["other"]))
    with pytest.raises(
        InvalidArgumentError,
        match=tells("tiny-features e5925ce8", "tiny-features e232df28", "`features`"),
    ):
        measure(folders["image"], path, n=20)


def test_a_folder_that_holds_more_than_samples_is_refused(measure, image_folder, folders):
    (image_folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=tells("notes.txt", 1, image_folder)):
        measure(folders["image"], n=20)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["IMAGE", "--against", "nowhere"], ["nowhere", "sklearn:digits"]),
        (["nowhere"], ["nowhere", "digits", "spoken-digits"]),
        (["IMAGE", "--save", "no/x.json"], ["no/x.json"]),
        (["IMAGES", "--save-statistics", "no/x.safetensors"], ["no/x.safetensors"]),
        (["SOUNDS", "--features", "FEATURES", "--against", "IMAGES"], ["SOUNDS", ".png"]),
        (["VOCODER"], ["--against"]),
        (
            ["VOCODER", "--against", "SOUNDS", "--features", "FEATURES"],
            ["--features", "--inception"],
        ),
        (["IMAGE", "--features", "nowhere"], ["nowhere", "digits-features"]),
        (
            ["SOUND", "--features", "FEATURES", "--against", "SOUNDS"],
            ["1 x 512 at 8000 Hz", "FEATURES", "1 x 8 x 8", "--features"],
        ),
        (["IMAGE", "--inception", "nowhere"], ["Inception-v3", "nowhere", "auto"]),
        (
            ["IMAGE", "--features", "FEATURES", "--inception", "auto"],
            ["--features", "--inception"],
        ),
        (["IMAGE", "-n", "5"], [5, 20]),
        (["IMAGE", "--against", "x.npy"], ["x.npy", ".npz"]),
        (["IMAGES", "-S", "5"], ["IMAGES", "--steps"]),
        (["IMAGES", "--features", "FEATURES"], ["tiny-features e232df28", "--against"]),
        (["IMAGE", "--save-statistics", "x.safetensors"], ["IMAGE"]),
        (
            ["IMAGES", "--features", "FEATURES", "--save-statistics", "x.txt"],
            [".safetensors", "x.txt"],
        ),
        (["IMAGE", "--cache", "FILE"], ["FILE", "--cache"]),
        (["FEATURES"], ["config.json", "fastdpm-model"]),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    folders,
    features,
    image_folder,
    sound_folder,
    tmp_path,
    monkeypatch,
    capsys,
    arguments,
    values,
):
    (tmp_path / "file").write_text("x")
    known = {
        "IMAGE": folders["image"],
        "SOUND": folders["sound"],
        "VOCODER": folders["vocoder"],
        "IMAGES": image_folder,
        "SOUNDS": sound_folder,
        "FEATURES": features["image"],
        "FILE": tmp_path / "file",
    }
    monkeypatch.chdir(tmp_path)
    assert fastdpm(["evaluate", *(str(known.get(a, a)) for a in arguments)]) in (1, 2)
    err = capsys.readouterr().err
    assert re.search(tells(*(known.get(v, v) for v in values)), err)
    assert err.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()
