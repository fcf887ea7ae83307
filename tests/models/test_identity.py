"""Digests do not change: they identify models in latents, caches and records of samples."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, Model, VarianceSchedule
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import sha256, tensor_bytes, tensor_digest, values_digest, write_tensors
from fastdpm.evaluation.cache import digest
from fastdpm.models.config import ModelConfig
from fastdpm.models.identity import config_digest, model_digest, weights_digest
from tests.messages import tells

VALUES = torch.tensor([[0.5, -1.25], [2.0, 0.0]])
CONFIG = ModelConfig(
    name="x",
    network={"type": "unet", "image_size": 8},
    schedule={"type": "linear", "num_train_steps": 100},
    data=DataSpec("audio", (1, 512), 8000, description="words"),
)


class Scaled(nn.Module):
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(VALUES.clone())
        self.register_buffer("steps", torch.tensor([1, 2, 3]))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.weight[0, 0] * x


@pytest.fixture
def model() -> Model:
    return Model.wrap(Scaled().eval(), VarianceSchedule.linear(10, 1e-4, 0.1), (1, 4, 4))


def test_the_digest_of_a_tensor_is_that_of_its_type_shape_and_values():
    found = {
        name: tensor_digest(tensor)[:16]
        for name, tensor in {
            "float32": VALUES,
            "turned": VALUES.t(),
            "bfloat16": VALUES.bfloat16(),
            "int64": torch.tensor([3, 5]),
        }.items()
    }
    assert found == {
        "float32": "5989b11f4059cf63",
        "turned": "69e6260f912c8f24",
        "bfloat16": "849828777cb6b554",
        "int64": "fc44637414e4a5c8",
    }
    assert len(tensor_digest(VALUES)) == 64


def test_the_digest_of_values_leaves_their_shape_out():
    assert values_digest(VALUES) == values_digest(VALUES.flatten()) == "84343c3cdef2daaf"
    assert values_digest(VALUES.t()) == "91949ae8066fefc6"
    assert bytes(tensor_bytes(VALUES.t())) == VALUES.numpy().T.tobytes()


def test_the_digest_of_a_file_is_its_sha_256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    path, tensors = tmp_path / "w.safetensors", {"weight": VALUES, "n": torch.tensor([1, 2])}
    assert write_tensors(path, tensors) == sha256(path)
    assert sha256(path).startswith("f0c416b7b0c6f3fa0040a544d0f04b2b")
    turned = {"weight": VALUES.t(), "n": torch.tensor([1, 2])}
    half = write_tensors(path, turned, torch.float16)
    assert half.startswith("05f802e577055689cf9d62999c9393ea")


def test_the_digest_of_parts_is_that_of_their_json():
    assert digest("a", 1, {"b": 2.5}) == "c992cab01a2fb99244056d849601933d"


def test_a_configuration_is_known_by_what_decides_its_samples(model):
    assert config_digest(CONFIG) == "4eac2396cc4985a5"
    assert config_digest(model.config) == "5503010fe5d36781"
    values = CONFIG.to_dict()
    for change, same in (
        ({"name": "y", "license": "MIT", "weights_sha256": "0"}, True),
        ({"recipe": {"num_steps": 7}, "data": {**values["data"], "description": "other"}}, True),
        ({"network": {"type": "unet", "image_size": 16}}, False),
        ({"schedule": {"type": "linear", "num_train_steps": 99}}, False),
        ({"data": {**values["data"], "sample_rate": 16000}}, False),
        ({"prediction": "v"}, False),
        ({"time_scale": 2.0}, False),
    ):
        other = ModelConfig.from_dict(json.loads(json.dumps(values)) | change)
        assert (config_digest(other) == config_digest(CONFIG)) == same, change


@pytest.mark.parametrize(
    ("old", "new", "digest"),
    [
        ("v", "v_prediction", "9c84bce8f2f2a0d3"),
        ("x0", "sample", "dc53a106753e5032"),
    ],
)
def test_keys_of_earlier_versions_are_read_and_keep_their_digests(old, new, digest):
    values = CONFIG.to_dict()
    del values["license"]
    read = ModelConfig.from_dict(values | {"prediction": old, "licence": "MIT"})
    assert (read.prediction, read.license) == (new, "MIT")
    assert {"license", "prediction"} <= read.to_dict().keys()
    assert config_digest(read) == config_digest(replace(read, prediction=new)) == digest


def test_a_model_is_known_by_its_weights_and_what_it_does_with_them(model):
    assert model_digest(model) == "ded9e9835c63e7a3"
    weights = "09477bc78d8b4189f45ca8983aeddd78276b6c045a8f09b8245ec518539344e8"
    assert weights_digest(model) == weights


@pytest.mark.parametrize("name", ["weight", "steps"])
def test_weights_that_change_in_memory_are_another_model(model, name):
    before = model_digest(model), weights_digest(model)
    getattr(model.network, name).data[-1] += 1
    assert model_digest(model) != before[0]
    assert weights_digest(model) != before[1]


def test_a_network_without_weights_is_not_known():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Parameter(torch.ones(1))]

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.hidden[0] * x

    bare = Model.wrap(Bare().eval(), VarianceSchedule.linear(10, 1e-4, 0.1), (1, 4, 4), name="b")
    with pytest.raises(InvalidArgumentError, match=tells("b")):
        weights_digest(bare)
