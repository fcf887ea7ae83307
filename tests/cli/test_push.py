"""``fastdpm push``: what is published has been found whole."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fastdpm.cli.app import run as fastdpm
from fastdpm.data.tensors import sha256
from fastdpm.models import builtin_models
from tests.messages import tells
from tests.models.hub_server import serving


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "home") as hub:
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield hub


def test_a_model_is_published_and_its_address_is_printed(hub, folders, capsys):
    options = ["--private", "--revision", "v2", "--message", "better"]
    assert fastdpm(["push", str(folders["vocoder"]), "someone/tiny", *options]) == 0
    printed = capsys.readouterr()
    command, address = printed.out.splitlines()
    assert command.endswith("fastdpm sample hf:someone/tiny@v2")
    assert address == f"{hub.address}/someone/tiny/tree/v2"
    assert printed.err == ""
    published = hub.files("someone/tiny", "v2")
    assert published.keys() - {".gitattributes"} == {p.name for p in folders["vocoder"].iterdir()}
    assert hub.repositories["someone/tiny"].private
    assert hub.repositories["someone/tiny"].messages[-1] == "better"


def test_a_built_in_model_is_published_by_its_name(hub):
    name = builtin_models()[0]
    assert fastdpm(["push", name, "someone/mine"]) == 0
    assert json.loads(hub.files("someone/mine")["config.json"])["name"] == name
    assert hub.repositories["someone/mine"].messages[-1] == f"Upload {name}"


def _change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")


def _other_network(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)
    _change_config(folder, weights_sha256=sha256(path))


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (_other_weights, ["model.safetensors", "24fa30ad3254", "cbf5bb4e52dc"]),
        (_other_network, ["model.safetensors", 1, "final_conv.0.conv.bias"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["model/model.safetensors"]),
        (lambda folder: (folder / "README.md").unlink(), ["README.md"]),
        (lambda folder: (folder / "config.json").unlink(), ["config.json", *builtin_models()]),
        (
            lambda folder: _change_config(folder, prediction="noise"),
            ["prediction", "epsilon", "v_prediction", "sample", "noise"],
        ),
        (
            lambda folder: _change_config(folder, weights_sha256=""),
            ["weights_sha256", "fastdpm convert"],
        ),
        (
            lambda folder: (folder / "conditions.safetensors").write_bytes(b"no"),
            ["conditions.safetensors"],
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_before_the_hub_is_called(
    hub, folders, tmp_path, capsys, change, values
):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in folders["vocoder"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)
    assert fastdpm(["push", str(folder), "someone/tiny"]) in (1, 2)
    err = capsys.readouterr().err
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    assert not hub.requests


def test_offline_and_without_a_name_it_is_one_line(hub, folders, capsys):
    address = f"http://127.0.0.1:{hub.port}"
    hub.stop()
    for name, values in (("someone/tiny", [address]), ("tiny", ["owner/name", "tiny"])):
        assert fastdpm(["push", str(folders["image"]), name]) in (1, 2)
        err = capsys.readouterr().err
        assert re.search(tells(*values), err)
        assert err.count("\n") == 1


def test_a_token_is_never_typed(capsys):
    assert fastdpm(["push", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--token" not in out
    assert "HF_TOKEN" in out
