"""Every option has an effect, or is refused in one line that names it."""

import re
import shutil

import numpy as np
import pytest
import torch

from fastdpm import InvalidArgumentError, Model, VarianceSchedule, compare, evaluate
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluating import MeasureOptions, save_statistics
from fastdpm.evaluation.extract import FeatureExtractor
from fastdpm.evaluation.methods import choose_methods
from fastdpm.evaluation.sources import open_data
from tests.conftest import IMAGE
from tests.messages import tells

STATISTICS = ["--save-statistics", "x.safetensors"]
AGAINST_IMAGES = ["--against", "IMAGES", "--features", "FEATURES"]
AGAINST_SOUNDS = ["--against", "SOUNDS", "--features", "SOUND_FEATURES"]


@pytest.fixture
def refused(folders, features, image_folder, sound_folder, pixels, tmp_path, monkeypatch, capsys):
    """Run a command that must be refused; give its message."""
    monkeypatch.chdir(tmp_path)
    known = {
        "IMAGE": folders["image"],
        "SOUND": folders["sound"],
        "VOCODER": folders["vocoder"],
        "IMAGES": image_folder,
        "SOUNDS": sound_folder,
        "FEATURES": features["image"],
        "SOUND_FEATURES": features["sound"],
    }

    def refused(arguments):
        if "images.npz" in arguments:
            np.savez("images.npz", pixels[..., None])
        if "images.zip" in arguments:
            shutil.make_archive("images", "zip", image_folder)
        if "sounds.npz" in arguments:
            np.savez("sounds.npz", np.zeros((24, 512), dtype=np.float32))
        if "statistics.npz" in arguments:
            np.savez("statistics.npz", mu=np.zeros(3), sigma=np.eye(3))
        if "statistics.safetensors" in arguments:
            options = MeasureOptions(features=features["image"])
            save_statistics(str(image_folder), tmp_path / "statistics.safetensors", options)
        before = set(tmp_path.iterdir())
        assert fastdpm([str(known.get(a, a)) for a in arguments]) in (1, 2)
        assert set(tmp_path.iterdir()) == before
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    return refused


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["IMAGE", *AGAINST_IMAGES, "--scale-to-peak"], ["--scale-to-peak"]),
        (["SOUND", *AGAINST_SOUNDS, "--scale-to-peak"], ["--scale-to-peak"]),
        (["VOCODER", "--against", "SOUNDS", "--scale-to-peak"], ["--scale-to-peak"]),
        (["VOCODER", "--against", "SOUNDS", "--batch-size", "2"], ["--batch-size"]),
        (["VOCODER", "--against", "SOUNDS", "--inception", "x"], ["--inception"]),
        (["VOCODER", "--against", "SOUNDS", "-n", "1"], [1, 2]),
        (["SOUND", "--against", "SOUNDS", "--inception", "x"], ["--inception", "1 x 512"]),
        (["IMAGES", *AGAINST_IMAGES, "--seed", "0"], ["--seed"]),
        (["IMAGES", *AGAINST_IMAGES, "--precision", "float32"], ["--precision"]),
        (["IMAGES", *AGAINST_IMAGES, "--dry-run"], ["--dry-run"]),
        (["IMAGES", *AGAINST_IMAGES, "--clip", "x0", "--seed", "1"], ["--clip", "--seed"]),
        (["IMAGES", *AGAINST_IMAGES, "--plan", "x.json"], ["--plan"]),
        (["IMAGES", *AGAINST_IMAGES, "--checkpoint", "x.pt"], ["celeba64-ddim"]),
        (["IMAGES", *AGAINST_IMAGES, "--scale-to-peak"], ["--scale-to-peak"]),
        (["images.zip", *AGAINST_IMAGES, "--seed", "1"], ["images.zip", "--seed"]),
        (["images.zip", *AGAINST_IMAGES, "--scale-to-peak"], ["images.zip", "--scale-to-peak"]),
        (["images.npz", *AGAINST_IMAGES, "--precision", "bf16"], ["images.npz", "--precision"]),
        (["images.npz", *AGAINST_IMAGES, "--scale-to-peak"], ["images.npz", "--scale-to-peak"]),
        (["sounds.npz", *AGAINST_SOUNDS, "--scale-to-peak"], ["--scale-to-peak"]),
        (["sklearn:digits", "--seed", "1"], ["sklearn:digits", "--seed"]),
        (["statistics.safetensors"], ["statistics.safetensors", "--against"]),
        (["statistics.npz"], ["statistics.npz", "--against"]),
        (["IMAGES", *STATISTICS, "--save", "r.json"], ["--save", "--save-statistics"]),
        (["IMAGES", *STATISTICS, *AGAINST_IMAGES], ["--against"]),
        (["IMAGES", *STATISTICS, "--seed", "1"], ["--seed"]),
        (["IMAGES", *STATISTICS, "--precision", "fp16"], ["--precision"]),
        (["IMAGES", *STATISTICS, "--dry-run"], ["--dry-run"]),
        (["IMAGES", *STATISTICS, "-S", "5"], ["--steps"]),
        (["SOUNDS", *STATISTICS, "--scale-to-peak"], ["--scale-to-peak"]),
        (["IMAGE", *STATISTICS], ["IMAGE"]),
    ],
)
def test_an_option_of_evaluate_without_an_effect_is_refused(
    refused, folders, arguments, values, own_cache
):
    values = [str(folders["image"]) if value == "IMAGE" else value for value in values]
    assert re.search(tells(*values), refused(["evaluate", *arguments]))
    assert not list(own_cache.glob("*/samples/*"))


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["IMAGE", "--methods", "standard", "-S", "5"], ["--methods", "--steps"]),
        (
            ["IMAGE", "--methods", "standard", "-n", "20", "--reference-n", "20"],
            ["-n", "--reference-n"],
        ),
        (["IMAGE", "--methods", "paper", "--reference-n", "20"], ["--methods", "--reference-n"]),
        (["IMAGE", "--methods", "multistep", "--kappa", "1"], ["--methods", "--kappa"]),
        (["VOCODER", "--against", "SOUNDS", "--batch-size", "2"], ["--batch-size"]),
        (["VOCODER", "--against", "SOUNDS", "--features", "FEATURES"], ["--features"]),
        (["SOUND", "--against", "SOUNDS", "--inception", "x"], ["--inception", "1 x 512"]),
    ],
)
def test_an_option_of_compare_without_an_effect_is_refused(refused, arguments, values):
    message = refused(["compare", *arguments, "--out", "out"])
    assert re.search(tells(*values), message)


def test_compare_needs_a_folder_unless_it_only_estimates(refused):
    message = refused(["compare", "IMAGE", "-n", "20", "--methods", "step-linear-k0"])
    assert re.search(tells("--out", "--dry-run"), message)


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("seed", DrawOptions(seed=1)),
        ("precision", DrawOptions(precision="bf16")),
        ("condition", DrawOptions(condition=torch.zeros(1))),
    ],
)
def test_samples_that_exist_take_no_option_of_a_model(measure, image_folder, option, options):
    with pytest.raises(InvalidArgumentError, match=tells(f"`{option}`", image_folder)):
        measure(image_folder, options=options)


def test_a_vocoder_takes_its_condition_from_the_recordings(folders, sound_folder):
    options = DrawOptions(condition=torch.zeros(8, 20))
    with pytest.raises(InvalidArgumentError, match=tells("`condition`")):
        evaluate(folders["vocoder"], str(sound_folder), n=2, options=options)
    with pytest.raises(InvalidArgumentError, match=tells("`condition`")):
        compare(
            folders["vocoder"],
            (3,),
            choose_methods(["step-linear-k0"]),
            measuring=MeasureOptions(str(sound_folder), 2),
            options=options,
        )


def test_class_labels_are_the_condition_that_samples_are_drawn_with(features, image_folder):
    class Labeled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.25))

        def forward(self, x, t, labels):
            return x * self.scale * labels.reshape(-1, 1, 1, 1)

    schedule = VarianceSchedule.linear(20, 1e-4, 0.1)
    model = Model.wrap(Labeled().eval(), schedule, (1, 8, 8), classes=4)
    stated = {"n": 20, "features": features["image"]}

    def score(**options):
        found = evaluate(model, image_folder, options=DrawOptions(**options), **stated)
        return found.scores["frechet_distance"]

    assert score(class_labels=3) == score(condition=torch.tensor([3]))
    assert score(class_labels=[0, 3]) != score(class_labels=3) != score()
    with pytest.raises(InvalidArgumentError, match=tells("`class_labels`", "`condition`")):
        score(class_labels=3, condition=torch.tensor([3]))
    compared = compare(
        model,
        [model.config.recipe.num_steps],
        ["var-linear-k0"],
        measuring=MeasureOptions(str(image_folder), **stated),
        options=DrawOptions(class_labels=3),
    )
    assert compared.cells[0].metrics["frechet_distance"] == score(class_labels=3)


def test_sounds_that_fastdpm_wrote_are_never_scaled(folders, features, tmp_path, sound_folder):
    out = tmp_path / "drawn"
    assert fastdpm(["sample", str(folders["sound"]), "-n", "20", "--out", str(out)]) == 0
    with pytest.raises(InvalidArgumentError, match=tells(out, "`scale_to_peak`")):
        evaluate(out, str(sound_folder), features=features["sound"], scale_to_peak=True)


@pytest.mark.parametrize(
    "values", [{"precision": "half"}, {"seed": -1}, {"batch_size": 0}], ids=str
)
def test_options_are_checked_when_they_are_made(values):
    (name,) = values
    with pytest.raises(InvalidArgumentError, match=tells(f"`{name}`")):
        DrawOptions(**values)


def test_the_batch_size_limits_what_the_feature_network_reads(
    image_folder, features, tmp_path, monkeypatch, capsys
):
    sizes = []
    call = FeatureExtractor.__call__

    def watch(self, values):
        sizes.append(len(values))
        return call(self, values)

    monkeypatch.setattr(FeatureExtractor, "__call__", watch)
    command = ["evaluate", str(image_folder), "--features", features["image"], "--batch-size", "9"]
    assert fastdpm([*command, "--save-statistics", str(tmp_path / "s.safetensors")]) == 0
    assert sizes == [9, 9, 9, 9, 4]
    np.savez(tmp_path / "x.npz", np.zeros((20, 8, 8, 1), dtype=np.uint8))
    batches = open_data(str(tmp_path / "x.npz"), IMAGE.data, scale=False, batch_size=8)
    assert [len(values) for values in batches.batches(0, 20)] == [8, 8, 4]


def test_the_number_of_samples_is_said_once(image_folder, features, capsys, tmp_path):
    against = ["--against", str(image_folder), "--features", features["image"]]
    assert fastdpm(["evaluate", str(image_folder), *against, "-n", "25"]) == 0
    out = capsys.readouterr().out
    assert len(re.findall("samples of", out)) == 2  # of the samples, and of the reference
    assert re.search(tells("25 samples of images", "40 samples of images"), out)
    assert re.search(tells("25 of the 40"), out)
