"""A model is found by its name, folder or contents, and every error is one line."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.data.tensors import sha256
from fastdpm.models import presets as module
from fastdpm.models.find import find_model, is_model
from fastdpm.models.presets import read_preset
from fastdpm.networks.build import build_network
from tests.conftest import IMAGE, SOUND, VOCODER
from tests.messages import tells

ADM: dict[str, Any] = {
    "type": "adm-unet",
    "image_size": 8,
    "in_channels": 1,
    "out_channels": 2,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [4],
    "num_heads": 2,
    "use_scale_shift_norm": True,
}
CASES: dict[str, dict[str, Any]] = {
    "tiny-image": {"network": IMAGE.network, "data": {"modality": "image", "shape": [1, 8, 8]}},
    "tiny-adm": {"network": ADM, "data": {"modality": "image", "shape": [1, 8, 8]}},
    "tiny-sound": {
        "network": SOUND.network,
        "data": {"modality": "audio", "shape": [1, 512], "sample_rate": 8000},
    },
    "tiny-vocoder": {
        "network": VOCODER.network,
        "data": {"modality": "audio", "shape": [1, 512], "sample_rate": 8000},
        "data.mel": dict(vars(VOCODER.data.mel)),
    },
}
SCHEDULE = {"type": "linear", "num_train_steps": 50, "beta_start": 1e-4, "beta_end": 0.05}


def _toml(values: Mapping[str, Any]) -> str:
    """Lines of TOML, whose values are written as in JSON."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


def _write_preset(path: Path, **tables: Any) -> Path:
    tables = {"schedule": SCHEDULE} | tables
    text = _toml({"name": path.stem, **{k: v for k, v in tables.items() if not _is_table(v)}})
    for name, body in tables.items():
        if _is_table(body):
            text += f"\n[{name}]\n{_toml(body)}"
    path.write_text(text)
    return path


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _state(network: dict[str, Any], seed: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    fresh = build_network(network).state_dict()
    return {name: weight + 0.05 * torch.randn_like(weight) for name, weight in fresh.items()}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Presets of small networks, and a checkpoint of each."""
    monkeypatch.setattr(module, "PRESETS", tmp_path)
    for name, tables in CASES.items():
        _write_preset(tmp_path / f"{name}.toml", **tables)
        torch.save(_state(tables["network"]), tmp_path / f"{name}.pt")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_is_recognized_from_its_contents(tiny, name):
    found = find_model(tiny / f"{name}.pt")
    assert found.config.name == name
    assert found.config.weights_sha256 == sha256(tiny / f"{name}.pt")
    model = load_model(tiny / f"{name}.pt")
    published = torch.load(tiny / f"{name}.pt", weights_only=True)
    weights = model.network.state_dict()
    assert all(torch.equal(weights[n], weight) for n, weight in published.items())
    condition = torch.rand(1, 8, 32) if model.config.data.mel else None
    assert model.sample(2, num_steps=3, condition=condition).std() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_a_preset_takes_its_checkpoint(tiny, name):
    path = (tiny / f"{name}.pt").rename(tiny / "weights.bin")
    model = load_model(name, checkpoint=path)
    assert model.config.name == name
    assert not model.network.training


@pytest.mark.parametrize("name", CASES)
def test_a_preset_of_ones_own_leaves_out_what_the_shapes_tell(tiny, name, monkeypatch):
    monkeypatch.setattr(module, "PRESETS", tiny / "nothing")
    tables = CASES[name]
    hidden = ("type", "num_groups", "dilation_cycle", "num_heads", "image_size")
    network = {k: v for k, v in tables["network"].items() if k in hidden}
    own = _write_preset(tiny / "own.toml", **(tables | {"network": network}))
    model = load_model(own, checkpoint=tiny / f"{name}.pt")
    built = build_network(model.config.network).state_dict()
    expected = build_network(tables["network"]).state_dict()
    assert {n: w.shape for n, w in built.items()} == {n: w.shape for n, w in expected.items()}
    assert model.config.network["type"] == tables["network"]["type"]


def test_the_averaged_weights_are_taken_from_a_list_of_states(tiny):
    plain, averaged = (_state(IMAGE.network, seed) for seed in (1, 2))
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    wrapped = [{f"module.{n}": w for n, w in state.items()} for state in (plain, averaged)]
    path = tiny / "list.ckpt"
    torch.save([wrapped[0], optimizer, 5, 100, wrapped[1]], path)
    weights = load_model(path).network.state_dict()
    assert all(torch.equal(weights[n], w) for n, w in averaged.items())


def test_a_wrong_suffix_does_not_hide_the_contents(tiny):
    path = (tiny / "tiny-image.pt").rename(tiny / "model.safetensors")
    assert load_model(path).config.name == "tiny-image"


def test_of_several_sets_of_weights_none_is_guessed(tiny):
    state = _state(IMAGE.network)
    part = {"conv_in.weight": state["conv_in.weight"], "temb.dense.0.weight": torch.ones(2)}
    torch.save({"model": state, "ema_part": part}, tiny / "part.pt")
    with pytest.raises(ModelError, match=tells("part.pt", "ema_part")):
        load_model(tiny / "part.pt")
    torch.save({"one": state, "optimizer": {"exp_avg": dict(state)}}, tiny / "two.pt")
    with pytest.raises(ModelError, match=tells("two.pt", "one", "exp_avg")):
        load_model(tiny / "two.pt")


def test_a_preset_says_what_weights_do_not_show(tiny):
    tables = CASES["tiny-adm"]
    network = {k: v for k, v in tables["network"].items() if k != "num_heads"}
    own = _write_preset(tiny / "own.toml", **(tables | {"network": network}))
    with pytest.raises(
        InvalidArgumentError, match=tells("own", "num_heads", "num_head_channels", "[network]")
    ):
        load_model(own, checkpoint=tiny / "tiny-adm.pt")
    for schedule, values in (
        ({"type": "cosine"}, ["own", "num_train_steps"]),
        (SCHEDULE | {"num_train_steps": 50.5}, ["num_train_steps", 50.5]),
    ):
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            find_model(_write_preset(tiny / "own.toml", **tables, schedule=schedule))
    for scale in (0.0, -1.0):
        with pytest.raises(InvalidArgumentError, match=tells("time_scale", 0, scale)):
            find_model(_write_preset(tiny / "own.toml", **tables, time_scale=scale))


def test_classes_of_data_are_those_of_the_network(tiny):
    data = CASES["tiny-adm"]["data"] | {"classes": 9}
    for network, values in (
        (ADM | {"num_classes": 5}, ["own", 5, 9]),
        (ADM, ["own", 9]),
    ):
        own = _write_preset(tiny / "own.toml", network=network, data=data)
        torch.save(_state(network), tiny / "own.pt")
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            load_model(own, checkpoint=tiny / "own.pt")


def test_a_format_that_changes_nothing_is_refused(folders):
    with pytest.raises(InvalidArgumentError, match=tells(folders["image"])):
        find_model(folders["image"], layout="ddpm")


def test_presets_that_fit_a_network_equally_are_all_named(tiny):
    _write_preset(tiny / "tiny-other.toml", **CASES["tiny-image"])
    found = find_model(tiny / "tiny-image.pt")
    _, note = found.notes
    assert re.search(tells("tiny-image.pt", "tiny-image", "tiny-other"), note)
    assert find_model("tiny-other", tiny / "tiny-image.pt").config.name == "tiny-other"


def test_presets_that_differ_in_what_weights_do_not_show_are_not_guessed(tiny):
    other = CASES["tiny-image"] | {"schedule": SCHEDULE | {"num_train_steps": 60}}
    _write_preset(tiny / "tiny-other.toml", **other)
    with pytest.raises(
        InvalidArgumentError, match=tells("tiny-image.pt", "tiny-image", "tiny-other")
    ):
        find_model(tiny / "tiny-image.pt")


def test_missing_and_unexpected_parameters_are_listed(tiny):
    state = _state(IMAGE.network)
    del state["conv_out.bias"], state["norm_out.weight"]
    state["extra.weight"] = torch.ones(2)
    torch.save(state, tiny / "cut.pt")
    with pytest.raises(
        ModelError,
        match=tells(
            "cut.pt", "tiny-image", 2, "conv_out.bias", "norm_out.weight", 1, "extra.weight"
        ),
    ):
        load_model(tiny / "cut.pt")
    with pytest.raises(
        ModelError, match=tells("cut.pt", "tiny-image", 2, "conv_out.bias", "norm_out.weight")
    ):
        load_model("tiny-image", checkpoint=tiny / "cut.pt")


def test_a_shape_that_contradicts_the_preset_is_named(tiny):
    state = _state(IMAGE.network)
    state["conv_in.weight"] = torch.ones(8, 2, 3, 3)
    torch.save(state, tiny / "wide.pt")
    with pytest.raises(
        ModelError, match=tells("wide.pt", "conv_in.weight", "(8, 2, 3, 3)", "(8, 1, 3, 3)")
    ):
        load_model("tiny-image", checkpoint=tiny / "wide.pt")


def test_a_checkpoint_of_another_kind_of_network_says_of_which(tiny):
    with pytest.raises(ModelError, match=tells("tiny-image.pt", "unet", "tiny-sound", "diffwave")):
        load_model("tiny-sound", checkpoint=tiny / "tiny-image.pt")
    with pytest.raises(ModelError, match=tells("tiny-image.pt", "lmnt", "conv_in.bias")):
        find_model(tiny / "tiny-image.pt", layout="lmnt")
    with pytest.raises(
        InvalidArgumentError, match=tells("ddpm", "diffwave", "lmnt", "adm", "onnx")
    ):
        find_model(tiny / "tiny-image.pt", layout="onnx")


def test_a_network_that_no_preset_describes_asks_for_one(tiny):
    torch.save(_state(IMAGE.network | {"base_channels": 16}), tiny / "other.pt")
    with pytest.raises(InvalidArgumentError, match=tells("other.pt", "DDPM", "docs/open.md")):
        load_model(tiny / "other.pt")


def test_a_file_of_other_tensors_says_what_it_holds(tiny):
    torch.save({"layer.weight": torch.ones(2)}, tiny / "other.pt")
    with pytest.raises(ModelError, match=tells("other.pt", "ddpm", "diffwave", "layer.weight")):
        load_model(tiny / "other.pt")
    torch.save({"time_embedding.linear_1.weight": torch.ones(2)}, tiny / "unet.bin")
    with pytest.raises(InvalidArgumentError, match=tells("unet.bin", "diffusers")):
        load_model(tiny / "unet.bin")


def test_a_preset_without_its_checkpoint_says_where_it_is():
    with pytest.raises(
        InvalidArgumentError,
        match=tells("`checkpoint`", "ema_diffusion_lsun_bedroom_model/", "https://"),
    ):
        load_model("lsun-bedroom")
    assert find_model("lsun-bedroom").config.data.shape == (3, 256, 256)


def test_a_checkpoint_beside_a_model_is_refused(folders, tmp_path):
    with pytest.raises(InvalidArgumentError, match=tells("digits", "celeba64-ddim")):
        load_model("digits", checkpoint=tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("digits", True),
        ("lsun-bedroom", True),
        ("hf:someone/something", True),
        ("weights.ckpt", True),
        ("samples", False),
        ("samples.npz", False),
    ],
)
def test_models_are_distinguished_from_samples(name, expected):
    assert is_model(name) == expected


def test_a_preset_that_is_none_says_why(tmp_path):
    path = tmp_path / "own.toml"
    with pytest.raises(InvalidArgumentError, match=tells(path, "No such file")):
        find_model(path)
    path.write_text("name = ")
    with pytest.raises(InvalidArgumentError, match=tells(path, "Invalid value")):
        find_model(path)
    path.write_text('name = "own"\n')
    with pytest.raises(InvalidArgumentError, match=tells(path, "network", "schedule", "data")):
        find_model(path)


def test_a_preset_alone_has_no_checksum_and_says_where_its_weights_are():
    found = find_model("cifar10-ddpm")
    source = read_preset("cifar10-ddpm").source
    for ask in (found.checksum, found.read):
        with pytest.raises(
            InvalidArgumentError, match=tells("cifar10-ddpm", "`checkpoint`", source.checkpoint)
        ):
            ask()


def test_a_layout_with_a_folder_is_refused_by_the_name_of_its_argument(folders):
    with pytest.raises(InvalidArgumentError, match=tells(folders["image"], "`layout`")):
        find_model(folders["image"], layout="adm")
