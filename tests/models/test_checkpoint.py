"""Every published layout gives the same network, and code in a file is never executed."""

import argparse
import datetime
import os
import pickle
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fastdpm import ModelError
from fastdpm.models.find import find_model
from fastdpm.models.formats.checkpoint import read_checkpoint
from fastdpm.models.formats.states import choose_weights
from fastdpm.networks.build import build_network
from fastdpm.networks.weights import put_weights
from tests.conftest import IMAGE, SOUND
from tests.messages import tells


def _network(config, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    network = build_network(config.network).eval()
    for weight in network.parameters():  # the last layer starts at zero and would hide the others
        weight.data += 0.05 * torch.randn_like(weight)
    return network


def _read(path: Path, expected: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    found = choose_weights(path, read_checkpoint(path), next(iter(expected)))
    assert found is not None
    return found[0].tensors


def _output(network: nn.Module, shape: tuple[int, ...]) -> Tensor:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out: Tensor = network(x, torch.tensor([3.0, 17.5]))
    return out


def _training_state(network: nn.Module) -> dict[str, Any]:
    """The state of an optimizer after a step, which holds tensors too."""
    optimizer = torch.optim.Adam(network.parameters())
    for weight in network.parameters():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return optimizer.state_dict()


def _ddim(network: nn.Module) -> list[Any]:
    other = _network(IMAGE, seed=2)
    parallel = {f"module.{name}": w for name, w in other.state_dict().items()}
    return [parallel, _training_state(other), 7, 1234, dict(network.state_dict())]


def _diffwave(network: nn.Module) -> dict[str, Any]:
    return {
        "iter": 10,
        "model_state_dict": network.state_dict(),
        "optimizer_state_dict": _training_state(_network(SOUND, seed=2)),
        "training_time_seconds": 5,
    }


def _named(network: nn.Module) -> dict[str, Any]:
    """The averaged state is chosen by its key, not by its position."""
    return {"ema": network.state_dict(), "model": _network(IMAGE, seed=2).state_dict()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    ("config", "layout"),
    [
        (IMAGE, lambda network: network.state_dict()),
        (IMAGE, _ddim),
        (IMAGE, _named),
        (SOUND, _diffwave),
    ],
    ids=["plain", "ddim", "named", "diffwave"],
)
def test_every_layout_gives_the_published_network(tmp_path, config, layout, zipped):
    published = _network(config, seed=1)
    path = tmp_path / "model.ckpt"
    torch.save(layout(published), path, _use_new_zipfile_serialization=zipped)
    with torch.device("meta"):
        network = build_network(config.network).eval()
    put_weights(network, _read(path, network.state_dict()))
    shape = config.data.shape
    assert torch.equal(_output(network, shape), _output(published, shape))


def test_safetensors_and_half_precision_come_back_as_float32(tmp_path):
    half = {n: w.half() for n, w in _network(IMAGE, seed=1).state_dict().items()}
    save_file(half, tmp_path / "model.bin")
    network = put_weights(_network(IMAGE, seed=2), _read(tmp_path / "model.bin", half))
    found = network.state_dict()
    assert all(torch.equal(found[name], w.float()) for name, w in half.items())


def test_weights_outlive_their_file(tmp_path):
    path, state = tmp_path / "model.ckpt", _network(IMAGE, seed=1).state_dict()
    torch.save(state, path)
    network = put_weights(_network(IMAGE, seed=2), _read(path, state))
    path.write_bytes(b"\0" * path.stat().st_size)
    found = network.state_dict()
    assert all(torch.equal(found[name], w) for name, w in state.items())


def test_numbers_of_numpy_beside_the_weights_are_read(tmp_path):
    saved = {"model": {"w": torch.ones(2)}, "loss": np.float64(0.25), "step": np.int64(7)}
    torch.save(saved, tmp_path / "model.pt")
    content = read_checkpoint(tmp_path / "model.pt")
    assert (content["loss"], content["step"]) == (0.25, 7)


def test_a_value_that_is_not_read_is_named_and_the_file_is_not_called_damaged(tmp_path):
    torch.save({"w": torch.ones(2), "a": np.array([{}], dtype=object)}, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=tells("numpy.dtypes.ObjectDType")) as caught:
        read_checkpoint(tmp_path / "model.pt")
    assert "download" not in str(caught.value)


BESIDE = {
    "number": np.float16(0.5),
    "text": np.str_("run"),
    "array": np.arange(6.0).reshape(2, 3),
    "texts": np.array(["a", "bb"]),
    "default": defaultdict(list, {"a": [1]}),
    "queue": deque([1, 2], maxlen=3),
    "arguments": argparse.Namespace(lr=0.1),
    "path": Path("/a/b"),
    "windows": PureWindowsPath("c:/a"),
    "time": datetime.datetime(2021, 6, 1, tzinfo=datetime.UTC),
    "range": range(3),
    "version": torch.__version__,
    "random": np.random.get_state(),  # noqa: NPY002
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("name", BESIDE)
def test_plain_values_beside_the_weights_are_read(tmp_path, name, zipped):
    saved = {"model": {"w": torch.ones(2)}, "beside": BESIDE[name]}
    torch.save(saved, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "m.pt")
    assert torch.equal(found["model"]["w"], torch.ones(2))
    stand_in = {"queue": [1, 2], "range": (0, 3, 1), "windows": PurePosixPath("c:\\/a")}
    stand_in["version"] = str(torch.__version__)
    if name != "random":
        np.testing.assert_equal(found["beside"], stand_in.get(name, BESIDE[name]))


def test_an_entry_that_does_not_match_its_checksum_is_named(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"w": torch.arange(100.0)}, path)
    whole = path.read_bytes()
    at = whole.index(torch.arange(100.0).numpy().tobytes())
    path.write_bytes(whole[: at + 7] + b"\1" + whole[at + 8 :])
    with pytest.raises(ModelError, match=tells("model.pt", "model/data/0")):
        read_checkpoint(path)


def test_an_archive_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert torch.equal(read_checkpoint(tmp_path / "model.pt")["w"], torch.ones(2))


class _Trap:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("as_pickle", [True, False])
def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path, as_pickle):
    path, marker = tmp_path / "model.ckpt", tmp_path / "marker"
    trap = {"model_state_dict": {"w": torch.zeros(2)}, "args": _Trap(marker)}
    if as_pickle:
        path.write_bytes(pickle.dumps(trap["args"], protocol=2))
    else:
        torch.save(trap, path)
    with pytest.raises(ModelError, match=tells(path.name, f"{os.name}.mkdir")) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_what_makes_tensors_and_numbers_is_not_what_a_checkpoint_asks_for(tmp_path, zipped):
    path = tmp_path / "model.ckpt"
    saved = {"w": torch.zeros(2), "loss": np.float64(0.25), "a": _Trap(tmp_path / "marker")}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match=tells(path.name, f"{os.name}.mkdir")):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_a_pickle_that_torch_did_not_write_is_refused_unread(tmp_path):
    path, marker = tmp_path / "model.pkl", tmp_path / "marker"
    path.write_bytes(pickle.dumps(_Trap(marker), protocol=4))
    with pytest.raises(ModelError, match=tells(path.name, f"{os.name}.mkdir")) as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value)  # torch advises to switch the protection off
    assert not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path, zipped):
    path, state = tmp_path / "model.ckpt", _network(IMAGE, seed=1).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in (20, len(whole) // 2, len(whole) - 50):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match=tells("model.ckpt")) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"", []),
        (b"<!DOCTYPE html><html>", ["b'<!DOCTYPE html><'"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["b'version https://'"]),
    ],
)
def test_the_remains_of_a_failed_download_are_refused(tmp_path, content, values):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(ModelError, match=tells("model.ckpt", *values)):
        _read(tmp_path / "model.ckpt", {})


def test_a_missing_checkpoint_and_one_without_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match=tells(tmp_path)):
        read_checkpoint(tmp_path)
    torch.save({"iter": 3}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match=tells("model.ckpt", "no named tensors")):
        find_model(tmp_path / "model.ckpt")
