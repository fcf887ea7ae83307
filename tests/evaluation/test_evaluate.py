"""Evaluating measures what it says, computes nothing twice, and survives an interrupt."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fastdpm import DataError, InvalidArgumentError, MissingExtraError, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation import drawn
from fastdpm.evaluation.evaluate import MeasureOptions, choose_sampler, save_statistics
from fastdpm.evaluation.metrics import Moments, frechet_distance
from fastdpm.evaluation.sources import to_samples
from fastdpm.evaluation.statistics import read_statistics
from fastdpm.models.features import load_features


@pytest.fixture
def measure(features, image_folder):
    """Evaluate with the small image network, by default against the folder of images."""

    def measure(samples, against=None, **choices):
        choices.setdefault("features", features["image"])
        return evaluate(samples, str(against or image_folder), **choices)

    return measure


def _values(found) -> dict[str, float]:
    return {key: score.value for key, score in found.scores.items()}


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
    assert _values(files) == pytest.approx(_values(model), rel=1e-5)
    assert files.n == 30


def test_folder_npz_and_zip_of_the_same_images_score_alike(
    measure, image_folder, pixels, tmp_path, folders
):
    import shutil

    np.savez(tmp_path / "x.npz", pixels[..., None])
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", image_folder)
    against = [image_folder, tmp_path / "x.npz", archive]
    found = [_values(measure(folders["image"], source, n=20)) for source in against]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert measure(tmp_path / "x.npz").scores["frechet_distance"].value < 1e-6


def test_a_repeated_call_computes_nothing(measure, folders, monkeypatch):
    first = measure(folders["image"], n=25)

    def refuse(*args, **kwargs):
        raise AssertionError("computed again")

    for place in (
        "fastdpm.models.model.run",
        "fastdpm.models.features.FeatureNetwork.__call__",
        "fastdpm.evaluation.metrics.frechet_score",
        "fastdpm.evaluation.drawn.open_model",
    ):
        monkeypatch.setattr(place, refuse)
    assert measure(folders["image"], n=25) == first


def test_more_samples_draw_only_what_is_missing(measure, folders, tmp_path, monkeypatch):
    measure(folders["image"], n=25)
    asked = []
    draw = drawn.PlanSampler.draw

    def watch(self, model, samples, options, callback):
        asked.extend(samples)
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(drawn.PlanSampler, "draw", watch)
    grown = measure(folders["image"], n=40)
    assert asked == list(range(25, 40))
    monkeypatch.setenv("FASTDPM_CACHE", str(tmp_path / "elsewhere"))
    assert _values(grown) == pytest.approx(_values(measure(folders["image"], n=40)), rel=1e-5)


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
    assert _values(found[0]) == pytest.approx(_values(found[1]), rel=1e-3)


def test_an_interrupted_evaluation_goes_on_with_what_it_has(
    folders, features, image_folder, capsys, monkeypatch, own_cache
):
    from fastdpm.models.model import Model

    draw = Model.sample_batches
    calls: list[int] = []

    def stop_after_two(self, *args, **kwargs):
        for number, batch in enumerate(draw(self, *args, **kwargs)):
            if number == 2 and not calls:
                calls.append(1)
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(Model, "sample_batches", stop_after_two)
    command = ["evaluate", str(folders["image"]), "--against", str(image_folder), "-n", "30"]
    command += ["--features", features["image"], "--batch-size", "8"]
    assert fastdpm(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    kept = sorted(path.name for path in own_cache.glob("*/samples/*/*"))
    assert kept == ["000000000-000000008.npz", "000000008-000000016.npz"]
    assert fastdpm(command) == 0
    assert "30 samples of tiny-image" in capsys.readouterr().out
    assert not list(own_cache.rglob("*.part"))


def test_saved_statistics_stand_for_their_data(measure, folders, features, image_folder, tmp_path):
    path = tmp_path / "s.safetensors"
    save_statistics(str(image_folder), path, MeasureOptions(features=features["image"]))
    assert read_statistics(path).moments.count == 40
    assert _values(measure(folders["image"], path, n=20)) == _values(
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
    asked = []
    draw = drawn.PlanSampler.draw

    def watch(self, model, samples, options, callback):
        asked.extend(samples)
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(drawn.PlanSampler, "draw", watch)
    grown = evaluate(folders["vocoder"], str(sound_folder), n=5)
    assert asked == [3, 4]
    assert grown.scores["log_mel_error"].value != found.scores["log_mel_error"].value


def test_a_recording_that_is_too_short_is_named_before_any_is_spoken(
    folders, sound_folder, own_cache
):
    import soundfile

    soundfile.write(sound_folder / "001.wav", np.full(200, 0.1), 8000)
    (sound_folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is no sound"):
        evaluate(folders["vocoder"], str(sound_folder), n=3)
    (sound_folder / "notes.txt").unlink()
    with pytest.raises(DataError, match=r"001\.wav has 208 samples, the metrics need at least"):
        evaluate(folders["vocoder"], str(sound_folder), n=3)
    assert not list(own_cache.glob("*/samples/*"))


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
    assert "4 network evaluations each" in out


def _refuse_import(monkeypatch, package: str) -> None:
    import sys

    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_missing_extra_is_named(measure, folders, monkeypatch):
    _refuse_import(monkeypatch, "torchmetrics")
    with pytest.raises(MissingExtraError, match=r"torchmetrics is not installed.*fastdpm\[eval\]"):
        measure(folders["image"], n=20)


def test_a_missing_extra_is_named_before_anything_is_drawn(
    measure, folders, monkeypatch, own_cache
):
    _refuse_import(monkeypatch, "sklearn")
    with pytest.raises(MissingExtraError, match="scikit-learn is not installed"):
        measure(folders["image"], n=20)
    assert not list(own_cache.glob("*/samples/*"))


def test_what_the_api_draws_can_be_measured(measure, folders, tmp_path):
    drawn_here = load_model(folders["image"]).sample(25)
    np.savez(tmp_path / "x.npz", drawn_here.numpy())
    model, array = measure(folders["image"], n=25), measure(tmp_path / "x.npz")
    assert _values(array) == pytest.approx(_values(model), rel=1e-5)
    for value in (np.nan, 1.5):
        np.savez(tmp_path / "x.npz", drawn_here.numpy() * 0 + value)
        with pytest.raises(DataError, match=r"not finite or outside \[-1, 1\]"):
            measure(tmp_path / "x.npz")


def test_colour_is_not_measured_as_grey(measure, folders, image_folder):
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(image_folder / "zzz.png")
    with pytest.raises(DataError, match=r"zzz\.png has shape \(3, 8, 8\)"):
        measure(folders["image"], n=20)


def test_fewer_samples_than_asked_for_are_told(measure, image_folder):
    assert "50 samples were asked for, 40 are there" in measure(image_folder, n=50).notes


def test_too_few_samples_say_how_many_are_needed(measure, folders):
    with pytest.raises(
        InvalidArgumentError, match=r"19 samples are too few: the metrics need at least 20"
    ):
        measure(folders["image"], n=19)


def test_images_of_mixed_sizes_are_refused(measure, image_folder, folders):
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(image_folder / "zzz.png")
    with pytest.raises(DataError, match=r"zzz\.png has shape \(1, 9, 8\), but \(1, 8, 8\) is"):
        measure(folders["image"], n=20)


def test_sounds_of_mixed_rates_are_refused(folders, features, sound_folder, own_cache):
    import soundfile

    soundfile.write(sound_folder / "zzz.wav", np.ones(4000) * 0.1, 16000)
    with pytest.raises(DataError, match=r"zzz\.wav is sampled at 16000 Hz"):
        evaluate(folders["sound"], str(sound_folder), n=20, features=features["sound"])
    assert not list(own_cache.glob("*/statistics/*"))


def test_statistics_of_another_network_are_refused(
    measure, features, image_folder, folders, tmp_path
):
    path = tmp_path / "s.safetensors"
    save_statistics(str(image_folder), path, MeasureOptions(features=features["other"]))
    with pytest.raises(InvalidArgumentError, match="statistics of feature network tiny-features"):
        measure(folders["image"], path, n=20)


def test_a_folder_that_holds_more_than_samples_is_refused(measure, image_folder, folders):
    (image_folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"notes\.txt is no image: move 1 such files out"):
        measure(folders["image"], n=20)


def test_features_that_are_not_finite_are_refused_and_not_kept(
    measure, folders, monkeypatch, own_cache
):
    from fastdpm.models.features import FeatureNetwork

    call = FeatureNetwork.__call__

    def broken(self, samples):
        features, logits = call(self, samples)
        return features * torch.nan, logits

    monkeypatch.setattr(FeatureNetwork, "__call__", broken)
    with pytest.raises(DataError, match="are not finite, first those of sample 0"):
        measure(folders["image"], n=20)
    assert not list(own_cache.glob("*/features/*/*"))


def test_a_damaged_cache_says_what_to_delete(measure, folders, own_cache):
    measure(folders["image"], n=20)
    for path in own_cache.glob("*/features/*/*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match="fastdpm cache --clear"):
        measure(folders["image"], n=21)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IMAGE", "--against", "nowhere"], "no data at 'nowhere'"),
        (["nowhere"], "no model and no samples at 'nowhere': give a built-in name (digits,"),
        (["IMAGE", "--save", "no/x.json"], "there is no folder no"),
        (["IMAGES", "--save-statistics", "no/x.safetensors"], "there is no folder no"),
        (["SOUNDS", "--features", "FEATURES", "--against", "IMAGES"], "holds no images"),
        (["VOCODER"], "give them to --against"),
        (["VOCODER", "--against", "SOUNDS", "--features", "FEATURES"], "drop --features"),
        (["IMAGE", "--features", "nowhere"], "no feature network 'nowhere'"),
        (["SOUND", "--features", "FEATURES", "--against", "SOUNDS"], "holds no images"),
        (["IMAGE", "--inception", "nowhere"], "no weights of Inception-v3 at 'nowhere'"),
        (["IMAGE", "--features", "FEATURES", "--inception", "auto"], "not both"),
        (["IMAGE", "-n", "5"], "5 samples are too few: the metrics need at least 20"),
        (["IMAGE", "--against", "x.npy"], "x.npy is a pickled array"),
        (["IMAGES", "-S", "5"], "is no model, so --steps would change nothing"),
        (["IMAGES", "--features", "FEATURES"], "comes without statistics"),
        (["IMAGE", "--save-statistics", "x.safetensors"], "is a model"),
        (
            ["IMAGES", "--features", "FEATURES", "--save-statistics", "x.txt"],
            "a .safetensors file",
        ),
        (["IMAGE", "--cache", "FILE"], "is a file: choose another --cache"),
        (["FEATURES"], "not a model"),
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
    message,
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
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "x.safetensors").exists()


def test_the_cache_is_listed_and_emptied_and_nothing_else(measure, folders, own_cache, capsys):
    measure(folders["image"], n=20)
    (own_cache / "mine.txt").write_text("mine")
    (own_cache / "samples").mkdir()
    (own_cache / "samples" / "000000.png").write_text("mine")
    assert fastdpm(["cache"]) == 0
    assert "features" in capsys.readouterr().out
    assert fastdpm(["cache", "--clear"]) == 0
    assert sorted(path.name for path in own_cache.iterdir()) == ["mine.txt", "samples"]
    assert (own_cache / "samples" / "000000.png").is_file()


def test_two_processes_that_share_a_cache_do_not_mix_up_samples(folders, own_cache):
    from fastdpm.evaluation.cache import Cache

    handle = drawn.ModelHandle(folders["image"])
    sampler = choose_sampler(handle, None, None)
    options = drawn.DrawOptions(batch_size=10)
    first, second = (
        drawn.ModelSource(handle, sampler, options, Cache(own_cache)).batches(0, 40)
        for _ in range(2)
    )
    together = [next(source, None) for _ in range(4) for source in (first, second)]
    kept = drawn.ModelSource(handle, sampler, options, Cache(own_cache))
    found = np.concatenate(list(kept.batches(0, 40)))
    alone = drawn.ModelSource(handle, sampler, options, Cache(own_cache / "other"))
    assert np.array_equal(found, np.concatenate(list(alone.batches(0, 40))))
    ours = [values for values in together[::2] if values is not None]
    assert np.array_equal(np.concatenate(ours), found)
    assert len(found) == kept.shards.count == 40


def test_a_model_whose_weights_changed_is_drawn_again(measure, folders):
    model = load_model(folders["image"])
    before = measure(model, n=20)
    for parameter in model.network.parameters():
        parameter.mul_(0.5)
    assert _values(measure(model, n=20)) != _values(before)


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
    assert _values(files) == pytest.approx(_values(model), rel=1e-3, abs=1e-5)
    assert plain.n == 24
    assert capsys.readouterr().err == ""


def test_the_peak_of_memory_is_that_of_a_batch_and_not_of_all_samples(folders, own_cache):
    import tracemalloc

    from fastdpm.evaluation.cache import Cache

    shards = Cache(own_cache).shards("samples", "x")
    batch = np.zeros((50, 3, 64, 64), dtype=np.uint8)
    for first in range(0, 1000, 50):
        cost = {"seconds": np.ones(50), "evaluations": np.full(50, 7)}
        shards.append(first, {"samples": batch, **cost})
    handle = drawn.ModelHandle(folders["image"])
    source = drawn.ModelSource(
        handle, choose_sampler(handle, None, None), drawn.DrawOptions(), Cache(own_cache)
    )
    source.shards = shards
    tracemalloc.start()
    assert source.cost(1000) == (1000.0, 7.0)
    for values in source.batches(0, 1000):
        assert len(values) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * batch.nbytes
