"""Evaluating measures what it says."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch

from fastdpm import DataError, InvalidArgumentError, compare, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation import drawn
from fastdpm.evaluation.evaluating import MeasureOptions, save_statistics
from fastdpm.evaluation.metrics import Moments, frechet_distance
from fastdpm.evaluation.sources import to_samples
from fastdpm.evaluation.statistics import read_statistics
from fastdpm.evaluation.vocoder import silent_part
from fastdpm.models.features import load_features
from tests.evaluation.conftest import score_values
from tests.messages import tells


def test_a_model_is_measured_by_the_features_of_its_pixels(measure, folders, features, pixels):
    found = measure(folders["image"], n=50)
    network = load_features(features["image"])
    samples = load_model(folders["image"]).sample(50)
    rounded = ((samples.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    real = network(to_samples(pixels[:, None]))[0].double().numpy()
    wanted = frechet_distance(Moments.of(network(rounded)[0].double().numpy()), Moments.of(real))
    assert found.scores["frechet_distance"].value == pytest.approx(wanted, rel=1e-4)
    assert found.n == 50
    assert found.evaluations == 4
    assert found.seconds > 0


def test_only_inception_is_called_fid(measure, folders):
    found = measure(folders["image"], n=20)
    names = [metric.name for metric in found.metrics]
    assert re.fullmatch(r"FD \(tiny-features [0-9a-f]{8}\)", names[0])
    assert not [name for name in names if "FID" in name or "KID" in name]


def test_a_folder_of_samples_scores_as_the_model_that_drew_it(measure, folders, tmp_path):
    out = str(tmp_path / "drawn")
    assert fastdpm(["sample", str(folders["image"]), "-n", "30", "--out", out]) == 0
    model, files = measure(folders["image"], n=30), measure(out)
    assert score_values(files) == pytest.approx(score_values(model), rel=1e-5)
    assert files.n == 30


def test_folder_npz_and_zip_of_the_same_images_score_alike(
    measure, image_folder, pixels, tmp_path, folders
):
    import shutil

    np.savez(tmp_path / "x.npz", pixels[..., None])
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", image_folder)
    against = [image_folder, tmp_path / "x.npz", archive]
    found = [score_values(measure(folders["image"], source, n=20)) for source in against]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert measure(tmp_path / "x.npz").scores["frechet_distance"].value < 1e-6


def test_the_batch_size_changes_no_score(measure, folders, tmp_path):
    from fastdpm.evaluation.cache import Cache
    from fastdpm.evaluation.drawn import DrawOptions

    found = [
        measure(
            folders["image"],
            n=30,
            options=DrawOptions(batch_size=size),
            cache=Cache(tmp_path / str(size)),
        )
        for size in (7, 30)
    ]
    assert score_values(found[0]) == pytest.approx(score_values(found[1]), rel=1e-3)


def test_saved_statistics_stand_for_their_data(measure, folders, features, image_folder, tmp_path):
    path = tmp_path / "s.safetensors"
    save_statistics(str(image_folder), path, MeasureOptions(features=features["image"]))
    assert read_statistics(path).moments.count == 40
    assert score_values(measure(folders["image"], path, n=20)) == score_values(
        measure(folders["image"], n=20)
    )


def test_a_sound_model_is_measured_as_the_paper_does(folders, features, sound_folder):
    found = evaluate(folders["sound"], str(sound_folder), n=24, features=features["sound"])
    assert [metric.key for metric in found.metrics] == [
        "frechet_distance",
        "inception_score",
        "modified_inception_score",
        "am_score",
    ]
    assert 1 <= found.scores["inception_score"].value <= 4
    itself = evaluate(
        str(sound_folder), str(sound_folder), features=features["sound"], scale_to_peak=True
    )
    assert itself.scores["frechet_distance"].value < 1e-6


def test_a_vocoder_is_measured_against_its_recordings(folders, sound_folder, monkeypatch):
    found = evaluate(folders["vocoder"], str(sound_folder), n=3)
    assert found.n == 3
    assert "log_mel_error" in found.scores
    assert found.scores["log_mel_error"].value > 0
    again = evaluate(folders["vocoder"], str(sound_folder), n=3)
    assert again.to_dict() == found.to_dict()
    indices = []
    draw = drawn.PlanDrawer.draw

    def watch(self, model, samples, options, callback):
        indices.extend(samples)
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(drawn.PlanDrawer, "draw", watch)
    grown = evaluate(folders["vocoder"], str(sound_folder), n=5)
    assert indices == [3, 4]
    assert grown.scores["log_mel_error"].value != found.scores["log_mel_error"].value


def test_digital_silence_and_missing_recordings_are_noted(folders, tmp_path):
    quiet = np.random.default_rng(0).normal(0, 0.1, (3, 4000))
    quiet[1, 1000:2000] = 0
    quiet[2, :100] = 0
    (tmp_path / "in").mkdir()
    for i, sound in enumerate(quiet):
        soundfile.write(tmp_path / "in" / f"{i}.wav", sound, 8000)
    found = evaluate(folders["vocoder"], tmp_path / "in", n=5)
    assert any(re.search(tells("1 of 3", "5%", "log-mel"), note) for note in found.notes)
    assert any(re.search(tells(3, 5, "n", "recordings"), note) for note in found.notes)
    first = evaluate(folders["vocoder"], tmp_path / "in", n=3)
    assert not any("`n`" in note for note in first.notes)
    measuring = MeasureOptions(str(tmp_path / "in"), 5)
    compared = compare(folders["vocoder"], [3], ["var-linear-k1"], measuring=measuring)
    assert any(re.search(tells(3, 5, "n", "recordings"), line) for line in compared.left_out)
    assert any("log-mel" in note for note in compared.notes)
    parts = [silent_part(sound) for sound in quiet.astype(np.float32)]
    assert parts == pytest.approx([0, 0.25, 0], abs=0.03)


def test_the_command_prints_every_metric_with_its_error(
    folders, features, image_folder, tmp_path, capsys
):
    save = tmp_path / "r.json"
    command = ["evaluate", str(folders["image"]), "--against", str(image_folder), "-n", "20"]
    assert fastdpm([*command, "--features", features["image"], "--save", str(save)]) == 0
    out = capsys.readouterr().out
    record = json.loads(save.read_text())
    for metric in record["metrics"]:
        assert metric["name"] in out
        assert record["scores"][metric["key"]]["error"] >= 0
    assert re.search(tells(20, "tiny-image", "S = 4"), out)
    assert any(re.search(tells(4), line.replace("S = 4", "")) for line in out.splitlines())


def test_what_the_api_draws_can_be_measured(measure, folders, tmp_path):
    drawn_here = load_model(folders["image"]).sample(25)
    np.savez(tmp_path / "x.npz", drawn_here.numpy())
    model, array = measure(folders["image"], n=25), measure(tmp_path / "x.npz")
    assert score_values(array) == pytest.approx(score_values(model), rel=1e-5)
    for value in (np.nan, 1.5):
        np.savez(tmp_path / "x.npz", drawn_here.numpy() * 0 + value)
        with pytest.raises(DataError, match=tells("x.npz", "[-1, 1]")):
            measure(tmp_path / "x.npz")


def test_files_in_the_order_of_their_classes_score_as_in_any_other(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    from fastdpm.data.datasets import DIGITS_TEST, digits_part

    images, labels = digits_part(DIGITS_TEST)
    chance = np.random.default_rng(1).permutation(len(images))
    for name, order in (("sorted", np.argsort(labels)), ("shuffled", chance)):
        np.savez(tmp_path / f"{name}.npz", images[order].transpose(0, 2, 3, 1))
    for n in (None, 200):
        by_class, mixed = (evaluate(tmp_path / f"{k}.npz", n=n) for k in ("sorted", "shuffled"))
        for key, score in by_class.scores.items():
            apart = abs(score.value - mixed.scores[key].value)
            assert apart < 4 * (score.error + mixed.scores[key].error), (n, key)


def test_sounds_are_measured_at_their_own_level(folders, features, tmp_path, capsys):
    out = tmp_path / "drawn"
    assert fastdpm(["sample", str(folders["sound"]), "-n", "24", "--out", str(out)]) == 0
    network, reference = features["sound"], str(out)
    model = evaluate(folders["sound"], reference, n=24, features=network)
    files = evaluate(out, reference, features=network)
    (out / "samples.json").unlink()
    (out / "sounds.png").unlink()
    plain = evaluate(out, reference, features=network)
    assert score_values(files) == pytest.approx(score_values(model), rel=1e-3, abs=1e-5)
    assert plain.n == 24
    assert capsys.readouterr().err == ""


def test_a_reference_in_memory_is_the_one_in_a_file(folders, features, tmp_path):
    real = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    np.save(tmp_path / "real.npy", real.numpy())
    found = [
        evaluate(folders["image"], against, n=20, features=features["image"])
        for against in (real, real.numpy(), tmp_path / "real.npy")
    ]
    assert found[0].scores == found[1].scores == found[2].scores
    assert "40 samples" in found[0].against


def test_floats_from_0_to_1_are_not_taken_for_floats_from_minus_1(folders, features):
    real = torch.rand(40, 1, 8, 8)
    with pytest.raises(DataError, match=tells("[-1, 1]", "[0, 1]", "2 * x - 1")):
        evaluate(folders["image"], real, n=20, features=features["image"])


def test_samples_in_memory_are_measured_like_those_in_a_file(image_folder, features, tmp_path):
    drawn = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    np.savez(tmp_path / "drawn.npz", drawn.numpy())
    kept, read = (
        evaluate(samples, image_folder, features=features["image"])
        for samples in (drawn, tmp_path / "drawn.npz")
    )
    assert kept.scores == read.scores
    with pytest.raises(InvalidArgumentError, match=tells("Linear", "Model.wrap")):
        evaluate(torch.nn.Linear(1, 1), image_folder)  # type: ignore[arg-type]
