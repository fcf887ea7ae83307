"""Evaluating computes nothing twice, survives an interrupt, and keeps nothing that is wrong."""

import re

import numpy as np
import pytest
import torch

from fastdpm import DataError, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation import drawn
from fastdpm.evaluation.evaluating import choose_drawer
from tests.evaluation.conftest import score_values
from tests.messages import tells


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
    indices = []
    draw = drawn.PlanDrawer.draw

    def watch(self, model, samples, options, callback):
        indices.extend(samples)
        return draw(self, model, samples, options, callback)

    monkeypatch.setattr(drawn.PlanDrawer, "draw", watch)
    grown = measure(folders["image"], n=40)
    assert indices == list(range(25, 40))
    monkeypatch.setenv("FASTDPM_CACHE", str(tmp_path / "elsewhere"))
    assert score_values(grown) == pytest.approx(
        score_values(measure(folders["image"], n=40)), rel=1e-5
    )


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
    err = capsys.readouterr().err
    assert re.search(tells(own_cache), err)
    assert err.count("\n") == 1
    kept = sorted(path.name for path in own_cache.glob("*/samples/*/*"))
    assert kept == ["000000000-000000008.npz", "000000008-000000016.npz"]
    assert fastdpm(command) == 0
    assert re.search(tells(30, "tiny-image"), capsys.readouterr().out)
    assert not list(own_cache.rglob("*.part"))


def test_features_that_are_not_finite_are_refused_and_not_kept(
    measure, folders, monkeypatch, own_cache
):
    from fastdpm.models.features import FeatureNetwork

    call = FeatureNetwork.__call__

    def broken(self, samples):
        features, logits = call(self, samples)
        return features * torch.nan, logits

    monkeypatch.setattr(FeatureNetwork, "__call__", broken)
    with pytest.raises(DataError, match=tells("40 samples", "sample 0")):
        measure(folders["image"], n=20)
    assert not list(own_cache.glob("*/features/*/*"))


def test_a_damaged_cache_says_what_to_delete(measure, folders, own_cache):
    measure(folders["image"], n=20)
    for path in own_cache.glob("*/features/*/*.npz"):
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=tells(path, "fastdpm cache --clear")):
        measure(folders["image"], n=21)


def test_the_cache_is_listed_and_emptied_and_nothing_else(measure, folders, own_cache, capsys):
    measure(folders["image"], n=20)
    (own_cache / "mine.txt").write_text("mine")
    (own_cache / "samples").mkdir()
    (own_cache / "samples" / "000000.png").write_text("mine")
    assert fastdpm(["cache"]) == 0
    assert re.search(
        tells(own_cache, "samples", "features", "statistics"), capsys.readouterr().out
    )
    assert fastdpm(["cache", "--clear"]) == 0
    assert sorted(path.name for path in own_cache.iterdir()) == ["mine.txt", "samples"]
    assert (own_cache / "samples" / "000000.png").is_file()


def test_two_processes_that_share_a_cache_do_not_mix_up_samples(folders, own_cache):
    from fastdpm.evaluation.cache import Cache

    handle = drawn.ModelHandle(folders["image"])
    sampler = choose_drawer(handle, None, None)
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
    assert score_values(measure(model, n=20)) != score_values(before)


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
        handle, choose_drawer(handle, None, None), drawn.DrawOptions(), Cache(own_cache)
    )
    source.shards = shards
    tracemalloc.start()
    assert source.cost(1000) == (1000.0, 7.0)
    for values in source.batches(0, 1000):
        assert len(values) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * batch.nbytes
