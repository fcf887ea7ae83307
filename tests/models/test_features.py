"""Feature networks: their folders, their checks, and features independent of the batch."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import FeaturesConfig
from fastdpm.models.features import (
    FEATURES,
    builtin_features,
    features_for,
    load_features,
)
from fastdpm.models.folder import write_folder
from fastdpm.networks.build import CLASSIFIERS, build_network
from tests.messages import tells

CONFIG = FeaturesConfig(
    name="tiny-features",
    network={
        "type": "image-classifier",
        "in_channels": 1,
        "num_classes": 3,
        "widths": [4, 6],
        "stem_channels": 4,
    },
    data=DataSpec("image", (1, 8, 8), description="nothing"),
    classes=("a", "b", "c"),
    license="CC-BY-SA-4.0",
    attribution="By nobody.",
    provenance={"steps": 3},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    weights = build_network(CONFIG.network, CLASSIFIERS).state_dict()
    write_folder(tmp_path, CONFIG, weights)
    return tmp_path


def _edit(folder: Path, **change: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_a_folder_is_read_back_as_it_was_written(folder):
    network = load_features(folder)
    assert replace(network.config, weights_sha256="") == CONFIG
    assert network.fingerprint == network.config.weights_sha256[:16]
    assert len(network.fingerprint) == 16
    assert (network.name, network.num_features) == ("tiny-features", 6)
    card = (folder / "README.md").read_text()
    for text in ("license: cc-by-sa-4.0", "Classes: a, b, c", "By nobody.", "| steps | 3 |"):
        assert text in card


def test_another_network_has_another_fingerprint(folder, tmp_path):
    first = load_features(folder).fingerprint
    torch.manual_seed(1)
    weights = build_network(CONFIG.network, CLASSIFIERS).state_dict()
    write_folder(tmp_path / "other", CONFIG, weights)
    assert load_features(tmp_path / "other").fingerprint != first


def test_samples_of_another_shape_are_refused(folder):
    network = load_features(folder)
    for shape in ((2, 3, 8, 8), (2, 1, 8, 9), (1, 8, 8)):
        with pytest.raises(
            InvalidArgumentError, match=tells("tiny-features", "(1, 8, 8)", shape[1:])
        ):
            network(torch.zeros(shape))


def test_loading_leaves_the_global_random_numbers_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_features(folder)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("name", builtin_features())
def test_a_built_in_network_measures_each_sample_by_itself(name):
    network = load_features(name)
    shape = network.config.data.shape
    x = torch.rand(7, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    features, logits = network(x.double())
    assert features.shape == (7, network.num_features)
    assert logits.shape == (7, len(network.config.classes))
    assert features.dtype == logits.dtype == torch.float32
    assert not features.requires_grad
    alone = [network(x[i : i + 1]) for i in range(7)]
    torch.testing.assert_close(features, torch.cat([f for f, _ in alone]), rtol=0, atol=2e-6)
    torch.testing.assert_close(logits, torch.cat([g for _, g in alone]), rtol=0, atol=1e-5)
    assert float(features.std(0).mean()) > 0.01


@pytest.mark.parametrize("name", builtin_features())
def test_a_built_in_network_says_where_it_comes_from(name):
    network = load_features(name)
    made = network.config.provenance
    assert made["command"].startswith(f"fastdpm train {name} ")
    assert made["held_out_count"] >= 300
    assert 0.5 < made["held_out_accuracy"] <= 1
    assert network.config.attribution
    assert (FEATURES / name / "README.md").is_file()


def test_the_built_in_networks_are_small():
    sizes = [path.stat().st_size for path in FEATURES.glob("*/model.safetensors")]
    assert sum(sizes) < 5e6


def test_the_network_for_data_fits_its_shape_and_sample_rate():
    assert features_for(DataSpec("image", (1, 8, 8), description="any")) == "digits-features"
    assert features_for(DataSpec("image", (1, 9, 8))) is None
    assert features_for(DataSpec("audio", (1, 6144), sample_rate=16000)) is None


def test_the_digits_are_classified_with_the_accuracy_in_the_folder():
    sklearn = pytest.importorskip("sklearn.datasets")
    digits = sklearn.load_digits()
    images = torch.from_numpy(digits.images[-360:, None] * (255 / 16)).round() / 127.5 - 1
    network = load_features("digits-features")
    right = network(images)[1].argmax(1).numpy() == digits.target[-360:]
    assert right.mean() >= 0.97
    assert right.mean() == pytest.approx(network.config.provenance["held_out_accuracy"], abs=5e-3)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"format": "fastdpm-model"}, ["format", "fastdpm-features", "version", 1]),
        ({"version": 2}, ["format", "fastdpm-features", "version", 1]),
        ({"classes": ["a", "b"]}, ["3 classes", 2]),
        ({"classes": ["a", "b", "a"]}, ["('a', 'b', 'a')"]),
        ({"network": {"type": "unet"}}, ["image-classifier", "sound-classifier", "unet"]),
        ({"network": {**CONFIG.network, "in_channels": 3}}, ["(1, 8, 8)", "[4, 3, 3, 3]"]),
        (
            {"network": {**CONFIG.network, "widths": []}},
            ["stages.0.conv.weight", "(3, 6)", "(3, 4)"],
        ),
        ({"network": {**CONFIG.network, "widths": [4, 8]}}, ["head.weight", "(3, 6)", "(3, 8)"]),
        ({"weights_sha256": "0" * 64}, ["model.safetensors", "config.json", f"{'0' * 12}..."]),
        ({"name": "../x"}, ["../x"]),
        ({"colour": 1}, ["colour", "classes"]),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused_in_one_line(folder, change, values):
    _edit(folder, **change)
    with pytest.raises(ModelError, match=tells(*values)) as caught:
        load_features(folder)
    assert "\n" not in str(caught.value)


def test_missing_weights_and_damaged_files_are_refused(folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    _edit(folder, weights_sha256="")
    weights.write_bytes(content[:100])
    with pytest.raises(ModelError, match=tells(weights)) as damaged:
        load_features(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=tells(weights)) as missing:
        load_features(folder)
    assert str(missing.value) != str(damaged.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=tells(folder / "config.json")):
        load_features(folder)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        InvalidArgumentError, match=tells("inception", "digits-features", "cifar10-features")
    ):
        load_features("inception")
