"""Each class is measured by its own samples, against the real samples of that class."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.datasets import DIGITS, DIGITS_TEST, digits_part
from fastdpm.evaluation import drawn
from fastdpm.evaluation.by_class import accuracy_score, class_kernel_score
from fastdpm.evaluation.drawn import DrawOptions
from fastdpm.evaluation.evaluating import MeasureOptions, save_statistics
from fastdpm.evaluation.metrics import Moments, frechet_distance
from fastdpm.evaluation.sources import to_samples
from fastdpm.evaluation.statistics import REFERENCE, read_statistics
from fastdpm.models.features import FEATURES, builtin_features, find_features, load_features
from tests.evaluation.conftest import IMAGE_FEATURES, score_values, write_tiny_features
from tests.messages import tells

NAMES = ("cat", "dog", "horse")


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> str:
    """A feature network for the classes of the small model."""
    network = {**IMAGE_FEATURES.network, "num_classes": 3}
    config = replace(IMAGE_FEATURES, network=network, classes=NAMES)
    return str(write_tiny_features(tmp_path_factory.mktemp("animals") / "features", config))


@pytest.fixture
def labeled(tmp_path) -> str:
    """Real images of the three classes, of different brightness, as one file."""
    generator, labels = np.random.default_rng(0), np.arange(90) % 3
    images = generator.integers(0, 100, (90, 8, 8, 1)) + 60 * labels[:, None, None, None]
    path = tmp_path / "labeled.npz"
    np.savez(path, samples=images.astype(np.uint8), labels=labels)
    return str(path)


@pytest.fixture
def measure(animals, labeled):
    def measure(samples, against=labeled, **choices):
        return evaluate(samples, against, features=animals, per_class=True, **choices)

    return measure


def test_the_score_of_a_class_is_that_of_its_samples_alone(tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    network, scores = load_features("digits-features"), {}
    found = evaluate(DIGITS_TEST, per_class=True)
    (images, labels), (real, real_labels) = digits_part(DIGITS_TEST), digits_part(DIGITS)
    for digit in range(10):
        features, logits = network(to_samples(images[labels == digit]))
        x, y = (f.double().numpy() for f in (features, network(to_samples(real))[0]))
        y = y[real_labels == digit].astype(np.float16).astype(np.float64)
        within = [(p @ p.T / 64 + 1) ** 3 for p in (x, y)]
        means = [k[~np.eye(len(k), dtype=bool)].mean() for k in within]
        scores[digit] = {
            "kernel_distance": sum(means) - 2 * ((x @ y.T / 64 + 1) ** 3).mean(),
            "accuracy": float((logits.argmax(1) == digit).float().mean()),
        }
    for each in found.classes:
        assert score_values(each) == pytest.approx(scores[each.label], rel=1e-4, abs=1e-6)
        assert each.n == int((labels == each.label).sum())
    mean = np.mean([score["accuracy"] for score in scores.values()])
    assert found.class_means["accuracy"].value == pytest.approx(mean)
    assert any(re.search(tells(64), note) for note in found.notes)
    np.savez(tmp_path / "x.npz", images)
    assert evaluate(tmp_path / "x.npz").scores == found.scores


def test_classes_with_more_samples_than_features_have_a_frechet_distance(measure, labeled):
    found = measure(labeled)
    assert [metric.key for metric in found.class_metrics] == [
        *("kernel_distance", "frechet_distance", "accuracy"),
    ]
    assert [each.name for each in found.classes] == list(NAMES)
    assert all(each.scores["frechet_distance"].value < 1e-6 for each in found.classes)


def test_other_real_samples_of_the_same_labels_have_other_scores(folders, labeled, tmp_path):
    """Also where no class has more samples than features."""
    inverted = str(tmp_path / "inverted.npz")
    with np.load(labeled) as arrays:
        np.savez(inverted, samples=255 - arrays["samples"], labels=arrays["labels"])
    choices: Any = {"features": "digits-features", "per_class": True, "n": 60}
    found = [evaluate(folders["classes"], path, **choices) for path in (labeled, inverted)]
    first, second = (each.class_means["kernel_distance"].value for each in found)
    assert first != pytest.approx(second, rel=0.01)


def test_a_model_is_measured_by_the_classes_it_draws(measure, folders, labeled, animals):
    found = measure(folders["classes"], n=61)
    network = load_features(animals)
    model = load_model(folders["classes"])
    with np.load(labeled) as arrays:
        real = network(to_samples(arrays["samples"].transpose(0, 3, 1, 2)))[0].double().numpy()
    samples = ((model.sample(61).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    features, logits = network(samples)
    assert [each.n for each in found.classes] == [21, 20, 20]
    for label, each in enumerate(found.classes):
        moments = [Moments.of(f[label::3]) for f in (features.double().numpy(), real)]
        assert each.scores["frechet_distance"].value == pytest.approx(
            frechet_distance(*moments), rel=1e-3
        )
        recognized = float((logits[label::3].argmax(1) == label).float().mean())
        assert each.scores["accuracy"].value == pytest.approx(recognized)
    chosen = measure(folders["classes"], n=25, options=DrawOptions(class_labels="dog"))
    assert [(each.label, each.name, each.n) for each in chosen.classes] == [(1, "dog", 25)]


def test_classes_cost_no_evaluation_and_are_kept(measure, folders, animals, labeled, monkeypatch):
    plain = evaluate(folders["classes"], labeled, features=animals, n=60)

    def refuse(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(drawn.PlanDrawer, "draw", refuse)
    monkeypatch.setattr("fastdpm.models.features.FeatureNetwork.__call__", refuse)
    found = measure(folders["classes"], n=60)
    assert found.scores == plain.scores
    assert "classes" in found.to_dict()
    assert "classes" not in plain.to_dict()
    monkeypatch.setattr("fastdpm.evaluation.by_class.extract", refuse)
    assert measure(folders["classes"], n=60) == found


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_a_folder_of_samples_has_the_classes_of_its_record(measure, folders, tmp_path, kind):
    out = str(tmp_path / "drawn")
    command = ["sample", str(folders["classes"]), "-n", "60", "--out", out, "--format", kind]
    assert fastdpm(command) == 0
    model, files = measure(folders["classes"], n=60), measure(out)
    for ours, theirs in zip(files.classes, model.classes, strict=True):
        assert score_values(ours) == pytest.approx(score_values(theirs), rel=1e-4, abs=1e-7)
        assert (ours.name, ours.n) == (theirs.name, theirs.n)


def test_saved_statistics_hold_the_classes_of_their_data(
    measure, folders, animals, labeled, tmp_path
):
    path = tmp_path / "s.safetensors"
    save_statistics(labeled, path, MeasureOptions(features=animals))
    files, data = measure(folders["classes"], path, n=60), measure(folders["classes"], n=60)
    for ours, theirs in zip(files.classes, data.classes, strict=True):
        assert score_values(ours) == pytest.approx(score_values(theirs), rel=1e-5)
    content = read_statistics(path)
    assert content.classes is not None
    replace(content, classes=replace(content.classes, labels=content.classes.labels[1:])).write(
        path
    )
    with pytest.raises(DataError, match=tells("s.safetensors", "labels")):
        read_statistics(path)


def test_built_in_references_hold_every_class_and_real_samples_of_it():
    for name in builtin_features():
        known = read_statistics(FEATURES / name / REFERENCE).classes
        assert known is not None
        every = list(range(len(find_features(name)[1].classes)))
        assert list(known.moments) == list(known.held_out) == every
        assert min(np.bincount(known.labels)) >= 100
        assert all(scores["accuracy"].value > 0.7 for scores in known.held_out.values())


def test_all_or_none_recognized_has_an_error():
    for correct in (np.ones(20, dtype=bool), np.zeros(20, dtype=bool)):
        assert accuracy_score(correct).error == pytest.approx(0.5 / 21)
    half = accuracy_score(np.arange(400) % 2 == 0)
    assert half.value == 0.5
    assert half.error == pytest.approx(0.025, rel=0.01)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.5, 0.75, 1.3), (0.0, 1.0, 1.5)])
def test_the_kernel_distance_of_a_class_is_unbiased_and_states_its_spread(shift, least, most):
    generator = np.random.default_rng(0)

    def score(n, m):
        drawn, real = (generator.normal(mean, 1, (k, 6)) for k, mean in ((n, shift), (m, 0)))
        return class_kernel_score(drawn, real)

    scores = [score(24, 40) for _ in range(150)]
    values = np.array([score.value for score in scores])
    exact = np.mean([score(1000, 1000).value for _ in range(3)])
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(len(values))
    stated = np.sqrt(np.mean([score.error**2 for score in scores]))
    assert least < stated / values.std() < most


def test_other_classes_than_the_networks_have_no_accuracy(folders, features, labeled):
    found = evaluate(folders["classes"], labeled, features=features["image"], per_class=True, n=60)
    assert "accuracy" not in found.class_means
    assert [each.name for each in found.classes] == list(NAMES)
    assert any(re.search(tells("accuracy", found.network), note) for note in found.notes)


@pytest.mark.parametrize(
    ("samples", "against", "choices", "values"),
    [
        ("image", "LABELED", {}, ["tiny-image", "`per_class`"]),
        ("classes", "LABELED", {"n": 59}, [19, "horse", 20, 60, "`n`"]),
        ("classes", "LABELED", {"n": 20, "class_labels": "none"}, ["label 3", 3, 2]),
        ("classes", "IMAGES", {"n": 60}, ["40 samples of images", "labels", "Parquet"]),
        ("IMAGES", "LABELED", {}, ["images", "labels", "Parquet"]),
        ("ARRAY", "LABELED", {}, ["the array", "labels"]),
        ("LABELED", "FEW", {}, [10, "horse", "few.npz", 20, "`against`"]),
        ("classes", None, {"n": 60, "features": None}, ["digits-features", "`against`", 9]),
    ],
)
def test_what_has_no_classes_is_refused_before_anything_is_drawn(
    folders, image_folder, labeled, animals, own_cache, tmp_path, samples, against, choices, values
):
    with np.load(labeled) as arrays:
        kept = (arrays["labels"] != 2) | (np.arange(90) < 30)
        few = {name: arrays[name][kept] for name in ("samples", "labels")}
    np.savez(tmp_path / "few.npz", **few)
    known: dict[Any, Any] = {
        "LABELED": labeled,
        "IMAGES": str(image_folder),
        "FEW": str(tmp_path / "few.npz"),
    }
    known["ARRAY"] = torch.rand(40, 1, 8, 8) * 2 - 1
    options = DrawOptions(class_labels=choices.pop("class_labels", None))
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        evaluate(
            known[samples] if samples in known else folders[samples],
            known.get(against),
            options=options,
            per_class=True,
            **{"features": animals, **choices},
        )
    assert not list(own_cache.glob("*/samples/*"))


def test_the_command_prints_a_row_for_each_class(folders, animals, labeled, tmp_path, capsys):
    save = tmp_path / "r.json"
    command = ["evaluate", str(folders["classes"]), "--against", labeled, "--features", animals]
    command += ["--per-class", "--save", str(save)]
    assert fastdpm([*command, "-n", "66"]) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines()]
    names = [row[0].strip() for row in rows if len(row) > 3]
    assert [*NAMES, "mean"] == [name for name in names if name in (*NAMES, "mean")]
    record = json.loads(save.read_text())
    assert [(each["label"], each["n"]) for each in record["classes"]] == [
        (0, 22),
        (1, 22),
        (2, 22),
    ]
    for each in record["classes"]:
        assert set(each["scores"]) == {metric["key"] for metric in record["class_metrics"]}
        assert each["scores"]["accuracy"]["error"] > 0
    assert fastdpm([*command, "-n", "30"]) == 2
    assert re.search(tells("--per-class", 10, 20, 60, "-n"), capsys.readouterr().err)
    assert fastdpm(["evaluate", labeled, "--save-statistics", "x.safetensors", "--per-class"]) == 2
    assert re.search(tells("--per-class", "--save-statistics"), capsys.readouterr().err)
