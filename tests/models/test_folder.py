"""Model folders survive a round trip, and damaged or unrelated ones are refused in one line."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.core.structure import build
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import sha256
from fastdpm.models.config import ModelConfig
from fastdpm.models.folder import write_folder
from fastdpm.networks.build import build_network
from tests.conftest import IMAGE, VOCODER
from tests.messages import tells


@pytest.fixture
def folder(folders, tmp_path) -> Path:
    return Path(shutil.copytree(folders["image"], tmp_path / "model"))


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_come_back_as_written(folder):
    stored = load_file(folder / "model.safetensors")
    assert {t.dtype for t in stored.values()} == {torch.float16}
    loaded = load_model(folder).network.state_dict()
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor.float())


@pytest.mark.parametrize("config", [IMAGE, VOCODER])
def test_a_config_survives_json(config):
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    assert again.recipe == config.recipe
    assert again.data == config.data


def test_weights_of_another_memory_layout_are_written(tmp_path):
    """As training on a GPU leaves them."""
    weights = {
        name: w.contiguous(memory_format=torch.channels_last) if w.ndim == 4 else w
        for name, w in build_network(IMAGE.network).state_dict().items()
    }
    write_folder(tmp_path, IMAGE, weights)
    again = load_model(tmp_path).network.state_dict()
    for name, weight in weights.items():
        torch.testing.assert_close(again[name], weight.half().float(), rtol=0, atol=0)


def test_an_unknown_model_names_the_known_ones(tmp_path):
    with pytest.raises(
        InvalidArgumentError, match=tells("digitz", "digits", "spoken-digits", "config.json")
    ):
        load_model("digitz")
    with pytest.raises(InvalidArgumentError, match=tells(tmp_path, "config.json")):
        load_model(tmp_path)


def test_truncated_weights_are_refused(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(
        ModelError, match=tells(weights, f"{sha256(weights)[:12]}...", "config.json")
    ):
        load_model(folder)
    _change_config(folder, weights_sha256="")
    with pytest.raises(ModelError, match=tells(weights)):
        load_model(folder)


def test_unexpected_weights_are_listed(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["other.weight"] = tensors.pop("conv_in.weight")
    tensors["conv_out.bias"] = torch.zeros(7)
    save_file(tensors, folder / "model.safetensors")
    _change_config(folder, weights_sha256="")
    values = ["conv_in.weight", "other.weight", "conv_out.bias", "(7,)", "(1,)"]
    with pytest.raises(ModelError, match=tells(folder / "model.safetensors", *values)):
        load_model(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=tells(folder / "model.safetensors")):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"format": "other"}, ["format", "fastdpm-model", "version", 1]),
        ({"colour": 1}, ["colour", "recipe"]),
        ({"prediction": "score"}, ["prediction", "epsilon", "v_prediction", "sample", "score"]),
        ({"schedule": {"type": "linear", "beta_end": 3}}, ["beta_start", "beta_end", 0.0001, 3]),
        ({"recipe": {"kappa": 2}}, ["recipe", "kappa", "[0, 1]", "2.0"]),
        ({"name": "../../evil"}, ["../../evil"]),
        ({"schedule": {"type": "betas", "betas": ["a"]}}, ["betas", "['a']"]),
        ({"schedule": {"type": ["x"]}}, ["linear", "cosine", "['x']"]),
        ({"data": {"modality": "image", "shape": [3, 8, 8]}}, ["(3, 8, 8)"]),
        ({"data": {"modality": "image", "shape": [1, 7, 7]}}, ["(1, 7, 7)"]),
        ({"recipe": {"num_steps": "ten"}}, ["recipe.num_steps", "int", "ten"]),
        ({"data": {"modality": "image", "shape": [8, 8]}}, ["data", "3 sizes", "[8, 8]"]),
        (
            {"data": {"modality": "smell", "shape": [8]}},
            ["modality", "image", "audio", "series", "smell"],
        ),
        ({"data": {"modality": "audio", "shape": [1, 8]}}, ["sample_rate", "Hz"]),
    ],
)
def test_a_broken_config_is_refused(folder, changes, values):
    _change_config(folder, **changes)
    with pytest.raises(ModelError, match=tells(folder / "config.json", *values)):
        load_model(folder)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000])
def test_a_config_that_is_no_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=tells(folder / "config.json")):
        load_model(folder)


@pytest.mark.parametrize(
    "network",
    [
        {"type": "transformer"},
        {**IMAGE.network, "depth": 3},
        {**IMAGE.network, "num_res_blocks": 10**9},
    ],
)
def test_an_unknown_network_is_refused(folder, network):
    _change_config(folder, network=network)
    with pytest.raises(ModelError, match=tells(folder / "config.json", network["type"])):
        load_model(folder)


def test_a_missing_entry_is_named():
    with pytest.raises(
        InvalidArgumentError, match=tells("network", "data.modality", "data.shape")
    ):
        build(ModelConfig, {"name": "x", "schedule": {}, "data": {}}, "config")


def test_a_configuration_takes_from_another_only_what_both_are_meant_to_share():
    @dataclass
    class Source:
        name: str = "made"
        network: dict[str, Any] = field(default_factory=lambda: IMAGE.network)
        data: DataSpec = IMAGE.data
        schedule: dict[str, Any] = field(default_factory=lambda: IMAGE.schedule)
        time_scale: float = 0.5
        weights_sha256: str = "of other weights"
        provenance: str = "of another kind"

        @property
        def license(self) -> str:
            """No field, so not meant."""
            return "another"

    config = ModelConfig.of(Source(), attribution="somebody")
    assert (config.name, config.time_scale, config.attribution) == ("made", 0.5, "somebody")
    assert (config.weights_sha256, config.provenance, config.license) == ("", {}, "unknown")
