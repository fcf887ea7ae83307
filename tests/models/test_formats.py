"""A checkpoint format is one entry of one table, used by everything that reads files."""

from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.models.conversion import convert
from fastdpm.models.find import find_model
from fastdpm.models.formats import table
from fastdpm.models.formats.format import Format, Shapes
from fastdpm.networks.build import NETWORKS
from tests.messages import tells
from tests.models.test_find import _write_preset, tiny  # noqa: F401


class Toy(nn.Module):
    """Predicts a bias for every value."""

    def __init__(self, size: int, offset: float) -> None:
        super().__init__()
        self.toy_bias = nn.Parameter(torch.zeros(size))
        self.offset = offset

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the shape of ``x``."""
        return (self.toy_bias + self.offset).expand(x.shape)


def _infer(shapes: Shapes, _height: int) -> dict[str, Any]:
    return {"size": shapes["toy_bias"][0]}


def _unstated(network: Any) -> str:
    return "" if "offset" in network else "offset"


@pytest.fixture
def toy(tiny, monkeypatch):  # noqa: F811
    """A table with a toy format, and a preset and a checkpoint of it."""
    known = {"toy": Format("a toy's", "toy", "toy_bias", _infer, _unstated)}
    monkeypatch.setattr(table, "FORMATS", MappingProxyType({**table.FORMATS, **known}))
    monkeypatch.setitem(NETWORKS, "toy", Toy)
    network = {"type": "toy", "size": 6, "offset": 0.5}
    data = {"modality": "series", "shape": [1, 6]}
    _write_preset(tiny / "tiny-toy.toml", network=network, data=data)
    torch.save({"model": {"toy_bias": torch.arange(6.0)}}, tiny / "toy.pt")
    return tiny


def test_a_format_that_is_added_to_the_table_is_recognized_and_sampled(toy):
    found = find_model(toy / "toy.pt")
    assert found.config.name == "tiny-toy"
    assert find_model(toy / "toy.pt", layout="toy").config == found.config
    x = torch.zeros(1, 1, 6)
    predicted = load_model(toy / "toy.pt").noise_predictor()(x, torch.zeros(1))  # type: ignore[call-arg]
    assert torch.equal(predicted, torch.arange(6.0)[None, None] + 0.5)


def test_a_format_that_is_added_to_the_table_is_converted(toy):
    config, _ = convert(toy / "toy.pt", toy / "out", layout="toy")
    assert config.network == {"type": "toy", "size": 6, "offset": 0.5}
    drawn = load_model(toy / "out").sample(2, num_steps=3)
    assert torch.equal(drawn, load_model(toy / "toy.pt").sample(2, num_steps=3))


def test_a_format_completes_a_preset_of_ones_own(toy):
    data = {"modality": "series", "shape": [1, 6]}
    own = _write_preset(toy / "own.toml", network={"type": "toy", "offset": 2.0}, data=data)
    assert find_model(own, toy / "toy.pt").config.network["size"] == 6
    own = _write_preset(toy / "own.toml", network={"type": "toy"}, data=data)
    with pytest.raises(InvalidArgumentError, match=tells("own", "offset", "[network]")):
        find_model(own, toy / "toy.pt")


def test_every_format_of_the_table_is_named_to_whoever_gives_an_unknown_one(toy):
    torch.save({"layer.weight": torch.ones(2)}, toy / "other.pt")
    with pytest.raises(ModelError) as caught:
        find_model(toy / "other.pt")
    assert all(f"{n} ({form.title})" in str(caught.value) for n, form in table.FORMATS.items())
    with pytest.raises(InvalidArgumentError, match=tells("`layout`", *table.FORMATS, "onnx")):
        find_model(toy / "toy.pt", layout="onnx")
    assert list(table.FORMATS) == ["ddpm", "diffwave", "lmnt", "adm", "toy"]


def test_a_format_that_is_taken_from_the_table_is_no_longer_recognized(tiny, monkeypatch):  # noqa: F811
    assert find_model(tiny / "tiny-adm.pt").config.name == "tiny-adm"
    rest = {name: form for name, form in table.FORMATS.items() if name != "adm"}
    monkeypatch.setattr(table, "FORMATS", MappingProxyType(rest))
    with pytest.raises(ModelError, match=tells("tiny-adm.pt", *rest, "input_blocks.0.0.bias")):
        find_model(tiny / "tiny-adm.pt")


def test_the_table_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        table.FORMATS["toy"] = Format("", "", "", _infer)  # type: ignore[index]
