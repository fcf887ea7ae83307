"""A metric is one row of a table: added there, it is measured, compared and reported."""

import csv
import json
import math
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

from fastdpm import compare, evaluate, progress
from fastdpm.evaluation import measure, metrics, speech, vocoder
from fastdpm.evaluation.cache import Cache, digest
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.evaluating import MeasureOptions, choose_drawer, open_measure
from fastdpm.evaluation.measure import FEATURE_METRICS, FeatureMetric
from fastdpm.evaluation.methods import choose_methods
from fastdpm.evaluation.metrics import Moments
from fastdpm.evaluation.report.write import write_report
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score
from fastdpm.evaluation.speech import SPEECH_METRICS, SpeechMetric
from fastdpm.evaluation.statistics import Statistics


@pytest.fixture
def add(monkeypatch):
    """Put one row more into the table of feature metrics, or that of speech metrics."""

    def add(row):
        if isinstance(row, SpeechMetric):
            monkeypatch.setattr(speech, "SPEECH_METRICS", (*SPEECH_METRICS, row))
        else:
            monkeypatch.setattr(measure, "FEATURE_METRICS", (*FEATURE_METRICS, row))

    return add


def _toy(**changes) -> FeatureMetric:
    row = FeatureMetric("toy", "Toy", "higher", lambda sets: Score(len(sets.features) / 8, 0.25))
    return replace(row, **changes)


def test_a_metric_that_is_added_is_evaluated_with_what_was_measured_before(
    add, folders, features, image_folder, monkeypatch
):
    def score():
        return evaluate(folders["image"], image_folder, n=20, features=features["image"])

    before = score()
    add(_toy(note=lambda count, reference: f"toys count to {count}"))
    monkeypatch.setattr(
        metrics, "frechet_score", lambda *args: pytest.fail("what is known was computed again")
    )
    after = score()
    assert after.scores == {**before.scores, "toy": Score(2.5, 0.25)}
    assert after.metrics[:-1] == before.metrics
    assert after.metrics[-1].name.startswith("Toy (tiny-features ")
    assert after.notes == (*before.notes, "toys count to 20")
    assert after.to_dict()["scores"]["toy"] == {"value": 2.5, "error": 0.25}
    assert after.to_dict()["metrics"][-1]["key"] == "toy"


@pytest.mark.parametrize("kind", ["image", "vocoder"])
def test_a_metric_that_is_added_is_compared_and_reported(
    add, folders, features, image_folder, sound_folder, tmp_path, kind
):
    if kind == "image":
        add(_toy())
        measuring = MeasureOptions(str(image_folder), 20, features["image"])
    else:
        add(SpeechMetric("toy", "Toy", "higher", lambda real, made, rate: 2.5))
        measuring = MeasureOptions(str(sound_folder), 2)
    methods = choose_methods(["step-linear-k0", "var-linear-k0"])
    found = compare(folders[kind], (3,), methods, measuring=measuring)
    assert found.results["metrics"][-1]["key"] == "toy"
    assert [cell["metrics"]["toy"]["value"] for cell in found.results["cells"]] == [2.5, 2.5]

    texts = {p.name: p for p in write_report(tmp_path / "out", found)}
    assert json.loads(texts["results.json"].read_text()) == found.results
    assert Comparison.from_dict(found.results).results == found.results
    rows = list(csv.DictReader(texts["results.csv"].read_text().splitlines()))
    assert [float(row["toy"]) for row in rows] == [2.5, 2.5]
    section = texts["results.md"].read_text().partition("## Toy")[2]
    assert found.metrics[-1].direction in section.splitlines()[0]
    assert found.cells[0].scores["toy"].text in section
    assert found.metrics[-1].name in texts["report.html"].read_text()


def test_pairs_that_a_metric_is_undefined_for_are_counted_and_not_in_its_mean(
    add, folders, sound_folder
):
    values = iter((math.nan, 2.0, 4.0))
    add(SpeechMetric("toy", "Toy", "higher", lambda real, made, rate: next(values)))
    found = evaluate(folders["vocoder"], sound_folder, n=3)
    assert found.scores["toy"] == Score(3.0, 1.0)
    assert next(note for note in found.notes if "Toy" in note).startswith("1 of 3 pairs")


def test_pairs_are_measured_again_with_another_version_of_a_metrics_library(
    add, folders, sound_folder, monkeypatch
):
    calls: list[int] = []

    def count(real, made, rate) -> float:
        calls.append(1)
        return 2.5

    add(SpeechMetric("toy", "Toy", "higher", count, library="numpy"))
    for _ in range(2):
        evaluate(folders["vocoder"], sound_folder, n=2)
    assert len(calls) == 2
    monkeypatch.setattr(vocoder, "version", lambda package: f"{package} 0")
    evaluate(folders["vocoder"], sound_folder, n=2)
    assert len(calls) == 4


def test_the_key_of_a_pair_is_that_of_earlier_releases(folders, sound_folder, own_cache):
    handle = ModelHandle(folders["vocoder"])
    opened = vocoder.VocoderMeasure(str(sound_folder), handle.config.data, 2, Cache(own_cache))
    source = opened.source(handle, choose_drawer(handle, None, None), DrawOptions())
    opened.measure(source)
    keys = [m.key for m in opened.metrics]
    packages = {"pesq": "pesq", "stoi": "pystoi"}
    libraries = {key: version(package) for key, package in packages.items() if key in keys}
    kept = {path.stem for path in own_cache.glob("*/pairs/*.json")}
    assert kept == {digest(1, libraries, part.key, keys) for part in source.parts}
    sound = opened.recordings[1][0]
    part = ModelSource(
        handle,
        choose_drawer(handle, None, None),
        DrawOptions(),
        Cache(own_cache),
        digest(sound.tobytes().hex(), 1),
    )
    assert source.parts[1].key == part.key


def test_a_recording_is_hashed_once_in_a_comparison(folders, sound_folder, monkeypatch):
    hashed: list[int] = []

    def watch(*parts):
        hashed.extend(parts[1:] if isinstance(parts[0], str) and len(parts[0]) > 1000 else ())
        return digest(*parts)

    monkeypatch.setattr(vocoder, "digest", watch)
    measuring = MeasureOptions(str(sound_folder), 2)
    compare(folders["vocoder"], (3, 4), ["step-linear-k0"], measuring=measuring)
    assert hashed == [0, 1]


def test_a_bar_is_shown_only_where_something_is_drawn(
    folders, features, image_folder, sound_folder, monkeypatch
):
    shown: list[int] = []
    bar = progress.sampling_bar

    def watch():
        shown.append(1)
        return bar()

    monkeypatch.setattr(progress, "sampling_bar", watch)
    images = MeasureOptions(str(image_folder), 20, features["image"], progress=True)
    sounds = MeasureOptions(str(sound_folder), 2, progress=True)
    for kind, measuring in (("image", images), ("vocoder", sounds)):
        handle = ModelHandle(folders[kind])
        opened = open_measure(handle.config.data, measuring)
        shown.clear()
        for wanted in (1, 1):
            source = opened.source(handle, choose_drawer(handle, None, None), DrawOptions())
            opened.measure(source)
            assert len(shown) == wanted


def test_the_progress_bar_is_imported_where_it_is_shown():
    code = "import sys, fastdpm.evaluation.comparing; print('fastdpm.progress' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout.strip() == b"False"


def test_a_metric_is_measured_for_its_modality_alone(
    add, folders, features, image_folder, sound_folder
):
    add(_toy(modalities=("audio",)))
    images = evaluate(folders["image"], image_folder, n=20, features=features["image"])
    sounds = evaluate(folders["sound"], sound_folder, n=20, features=features["sound"])
    assert ("toy" in images.scores, "toy" in sounds.scores) == (False, True)


def test_a_metric_is_left_out_where_the_reference_lacks_what_it_needs(tmp_path):
    from fastdpm.evaluation.inception import InceptionExtractor
    from fastdpm.evaluation.statistics import INCEPTION

    class Inception(InceptionExtractor):
        name, fingerprint = INCEPTION, "0"

        def __init__(self) -> None:
            pass

    moments = Moments.of(np.random.default_rng(0).standard_normal((30, 4)))
    reference = Statistics(INCEPTION, "0", "moments", moments)
    opened = measure.FeatureMeasure(Inception(), reference, 20, Cache(tmp_path), "image")
    assert [m.name for m in opened.metrics] == ["FID", "Inception score"]
    for m in FEATURE_METRICS:
        if m.needs == "features":
            assert m.printed(INCEPTION).name in opened.left_out[0]


def test_precision_and_recall_share_their_distances(monkeypatch, folders, features, image_folder):
    calls: list[int] = []
    both = metrics.precision_recall_scores

    def count(*args):
        calls.append(1)
        return both(*args)

    monkeypatch.setattr(metrics, "precision_recall_scores", count)
    found = evaluate(folders["image"], image_folder, n=20, features=features["image"])
    assert {"precision", "recall"} <= found.scores.keys()
    assert len(calls) == 1


def test_every_metric_of_a_table_has_a_key_and_a_name_of_its_own():
    for table in (FEATURE_METRICS, SPEECH_METRICS):
        assert len({m.key for m in table}) == len({m.name for m in table}) == len(table)
