"""Results do not depend on PyTorch's default device, and float64 stays on the CPU."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fastdpm import (
    Model,
    SampleNoise,
    VarianceSchedule,
    bits_per_dimension,
    decode,
    edit,
    encode,
    interpolate,
    levels_step,
)
from fastdpm.core import GreyLevels
from fastdpm.inverse import read_latents, write_latents
from fastdpm.models.load import load_model
from tests.stand_in import DEVICE, OnDevice, StandIn

SCHEDULE = VarianceSchedule.linear(num_train_steps=50, beta_start=1e-4, beta_end=0.1)
LEVELS = levels_step(SCHEDULE, 4)


class _Net(nn.Module):
    """A small network of labels, in the type and on the device of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((10,), 0.3, device="cpu"))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        scale = self.weight.index_select(0, label) + 1e-3 * t
        return torch.tanh(x) * scale.reshape(-1, 1, 1, 1)


def _model() -> Model:
    return Model.wrap(_Net().eval(), SCHEDULE, (1, 4, 4), classes=10)


def _data() -> Tensor:
    return torch.linspace(-1, 1, 32, device="cpu").reshape(2, 1, 4, 4)


def _latents(path):
    write_latents(path, encode(_model(), _data(), LEVELS, class_labels=3))
    return read_latents(path).latents.x


CALLS = {
    "sample": lambda m, x: m.sample(3, num_steps=3, kappa=1.0, class_labels=[1, 2]),
    "clip": lambda m, x: m.sample(3, num_steps=3, clip="dynamic"),
    "dpmpp": lambda m, x: m.sample(3, num_steps=4, method="dpmpp-3m"),
    "first": lambda m, x: encode(m, x, LEVELS, "first", class_labels=1).x,
    "second": lambda m, x: encode(m, x, LEVELS, "second", class_labels=1).x,
    "implicit": lambda m, x: encode(m, x, LEVELS, "implicit", class_labels=1).x,
    "invertible": lambda m, x: encode(m, x, LEVELS, class_labels=1).x,
    "decode": lambda m, x: decode(m, encode(m, x, LEVELS, class_labels=[1, 2])),
    "interpolate": lambda m, x: interpolate(
        m, x[0], x[1], n=3, levels=levels_step(SCHEDULE, 50), class_labels=1
    ),
    "edit": lambda m, x: edit(m, x, class_labels=1, seed=2),
    "inpaint": lambda m, x: edit(m, x, mask=torch.eye(4, device="cpu"), class_labels=1),
    "bits": lambda m, x: (
        bits_per_dimension(
            m, (x * 8).round() / 8, LEVELS, GreyLevels.spanning(17), class_labels=1
        ).terms
    ),
    "noise": lambda m, x: SampleNoise(0, [0, 1]).start((3,), device="cpu"),
}


@pytest.fixture
def meta_by_default() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_default_device_changes_nothing(call, request):
    wanted = call(_model(), _data())
    request.getfixturevalue("meta_by_default")
    found = call(_model(), _data())
    assert found.device.type == "cpu"
    assert torch.equal(found, wanted)


def test_files_are_read_to_the_cpu_whatever_the_default_device_is(tmp_path, request):
    wanted = _latents(tmp_path / "a.safetensors"), load_model("digits").sample(2)
    request.getfixturevalue("meta_by_default")
    found = _latents(tmp_path / "b.safetensors"), load_model("digits").sample(2)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("call", [call for name, call in CALLS.items() if name != "noise"])
def test_a_device_without_float64_gives_the_same_results(call):
    wanted = call(_model(), _data())
    with StandIn():
        model = _model()
        weight = nn.Parameter(OnDevice(torch.full((10,), 0.3)), requires_grad=False)
        model.network.weight = weight
        model.device = DEVICE
        found = call(model, _data()).to("cpu")
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


def test_the_stand_in_refuses_what_the_device_refuses():
    with StandIn():
        x = torch.ones(2, device="cpu").to(DEVICE)
        with pytest.raises(TypeError, match="float64"):
            x.double()
        with pytest.raises(TypeError, match="float64"):
            torch.ones(2, dtype=torch.float64, device="cpu").to(DEVICE)
        with pytest.raises(RuntimeError, match="one device"):
            x + torch.ones(2, device="cpu")
        assert (x + 1).device == DEVICE
