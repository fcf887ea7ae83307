"""A download is complete, or leaves nothing and raises an error with the reason."""

import json
import os
import time

import pytest
from huggingface_hub import constants

from fastdpm import InvalidArgumentError, ModelError
from fastdpm.models.formats.diffusers_files import find_unet
from fastdpm.models.hub import fetch
from tests.messages import tells
from tests.models.hub_cases import (
    as_it_is,
    failing,
    files_in,
    nowhere,
    other_token,
    reader,
    snapshots,
    stopped,
)
from tests.models.hub_handler import Failure

WEIGHTS = "diffusion_pytorch_model"


DIFFUSERS = {"config.json": b"{}", "scheduler_config.json": b"{}", "model_index.json": b"{}"}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"config.json", "model.safetensors", "README.md", "conditions.safetensors"}, None),
        ({*DIFFUSERS, f"{WEIGHTS}.safetensors"}, None),
        ({*DIFFUSERS, f"{WEIGHTS}.bin"}, None),
        ({*DIFFUSERS, f"{WEIGHTS}.bin", f"{WEIGHTS}.safetensors"}, f"{WEIGHTS}.safetensors"),
        (
            {
                "model_index.json",
                "scheduler/scheduler_config.json",
                "unet/config.json",
                f"unet/{WEIGHTS}.bin",
            },
            None,
        ),
        (
            {
                "unet/config.json",
                f"unet/{WEIGHTS}.safetensors.index.json",
                f"unet/{WEIGHTS}-00001-of-00002.safetensors",
                f"unet/{WEIGHTS}-00002-of-00002.safetensors",
            },
            None,
        ),
    ],
)
def test_only_what_a_model_needs_is_fetched(hub, files, wanted):
    surplus = {
        "model.fp16.safetensors",
        f"{WEIGHTS}.fp16.safetensors",
        f"unet/{WEIGHTS}.fp16.bin",
        "unet/model.onnx",
        "flax_model.msgpack",
        "model.ckpt",
        "grid.png",
        "checkpoint-500/unet/config.json",
        f"checkpoint-500/unet/{WEIGHTS}.safetensors",
    }
    hub.add("a/b", {name: name.encode() for name in files | surplus})
    folder = fetch("hf:a/b")
    expected = {name for name in files if wanted is None or wanted == name or ".json" in name}
    assert files_in(folder) == expected
    assert all((folder / name).read_bytes() == name.encode() for name in expected)


def test_a_variant_is_fetched_if_there_is_nothing_else(hub):
    files = {*DIFFUSERS, f"{WEIGHTS}.fp16.safetensors"}
    hub.add("a/b", dict.fromkeys(files | {"grid.png"}, b"x"))
    assert files_in(fetch("hf:a/b")) == files
    hub.stop()
    assert files_in(fetch("hf:a/b")) == files


SHARDS = [f"{WEIGHTS}.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]


@pytest.mark.parametrize(
    ("variant", "wanted"),
    [
        (None, {f"{WEIGHTS}.bin"}),
        ("bf16", {f"{WEIGHTS}.bf16.safetensors"}),
        ("fp16", {f"{WEIGHTS}.safetensors.index.fp16.json", *SHARDS}),
    ],
)
def test_the_variant_that_was_chosen_is_fetched(hub, variant, wanted):
    others = {f"{WEIGHTS}-00001-of-00002.safetensors", "model_index.json", "unet/config.json"}
    weights = {f"{WEIGHTS}.bin", f"{WEIGHTS}.bf16.safetensors", *SHARDS}
    index = f"unet/{WEIGHTS}.safetensors.index.fp16.json"
    parts = json.dumps({"weight_map": dict(enumerate(SHARDS))}).encode()
    files = {f"unet/{name}": name.encode() for name in weights}
    hub.add("a/b", files | dict.fromkeys(others, b"{}") | {index: parts})
    expected = {f"unet/{name}" for name in wanted} | {"model_index.json", "unet/config.json"}
    assert files_in(fetch("hf:a/b", variant)) == expected
    with pytest.raises(InvalidArgumentError, match=tells("hf:a/b", "'other'", "bf16", "fp16")):
        fetch("hf:a/b", "other")
    hub.stop()
    assert files_in(fetch("hf:a/b", variant)) == expected


def test_averaged_weights_are_fetched_as_the_reader_of_folders_takes_them(hub):
    small = {"model_index.json", "unet/config.json", "unet_ema/config.json"}
    weights = {f"{part}/{WEIGHTS}.safetensors" for part in ("unet", "unet_ema")}
    hub.add("a/b", dict.fromkeys(small | weights, b"{}"))
    folder = fetch("hf:a/b")
    assert files_in(folder) == {*small, f"unet_ema/{WEIGHTS}.safetensors"}
    assert find_unet(folder)[0].name == "unet_ema"


@pytest.mark.parametrize(
    ("files", "values"),
    [
        ({"unet/config.json", "vae/config.json", f"unet/{WEIGHTS}.bin"}, ["hf:a/b", "vae"]),
        (
            {*DIFFUSERS, f"{WEIGHTS}.fp16.safetensors", f"{WEIGHTS}.bf16.safetensors"},
            ["hf:a/b", "fp16", "bf16", "`variant`"],
        ),
        ({"README.md", "model.ckpt"}, ["model.ckpt", "hf download a/b FILE"]),
        ({"README.md"}, ["hf:a/b", "model.safetensors"]),
    ],
)
def test_what_cannot_be_read_is_not_fetched(hub, files, values):
    hub.add("a/b", dict.fromkeys(files, b"x"))
    with pytest.raises((InvalidArgumentError, ModelError), match=tells(*values)):
        fetch("hf:a/b")
    assert hub.requests == ["GET /api/models/a/b"]


@pytest.mark.parametrize(
    "name",
    ["b", "/b", "a/", "a/b/c", "a b/c", "a/b@", "a/b@ c", "a/../b", "a/b@../../x", "a/b--c"],
)
def test_a_malformed_name_is_refused_without_a_request(hub, name):
    revision = name.partition("@")[2]
    values = [repr(revision)] if "@" in name else ["owner/name", repr(name)]
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        fetch(f"hf:{name}")
    assert not hub.requests


@pytest.mark.parametrize(
    ("name", "change", "error", "values"),
    [
        ("a/none", as_it_is, InvalidArgumentError, ["a/none", "hf auth login", "HF_TOKEN"]),
        ("a/private", as_it_is, InvalidArgumentError, ["a/private", "hf auth login", "HF_TOKEN"]),
        ("a/open@no", as_it_is, InvalidArgumentError, ["a/open", "no"]),
        ("a/gated", as_it_is, ModelError, ["a/gated", "/a/gated", "hf auth login"]),
        ("a/gated", reader, ModelError, ["a/gated", "/a/gated", "hf auth login"]),
        ("a/open", other_token, ModelError, ["a/open", "HF_TOKEN"]),
        ("a/open", failing("", 500), ModelError, ["hf:a/open", "HTTP 500"]),
        ("a/open", failing("/tree/", 503), ModelError, ["hf:a/open", "HTTP 503"]),
        ("a/open", failing("HEAD .*model", 500), ModelError, ["hf:a/open", "HTTP 500"]),
        ("a/open", failing("HEAD .*model", 403), ModelError, ["a/open", "HF_TOKEN"]),
        ("a/open", failing("GET /cdn", 403), ModelError, ["a/open", "HF_TOKEN"]),
        ("a/open", failing("", 418), ModelError, ["hf:a/open", "HTTP 418"]),
        ("a/open", failing("", 200), ModelError, ["HF_ENDPOINT"]),
        ("a/open", stopped, ModelError, ["hf:a/open", "http://127.0.0.1"]),
        ("a/open", nowhere, ModelError, ["hf:a/open", "HF_HUB_OFFLINE"]),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    hub, tmp_path, monkeypatch, capsys, name, change, error, values
):
    model = {"config.json": b"{}", "model.safetensors": b"w"}
    hub.add("a/open", model)
    hub.add("a/private", model, private=True)
    hub.add("a/gated", model, gated=True)
    change(hub, monkeypatch)
    with pytest.raises(error, match=tells(*values)) as caught:
        fetch(f"hf:{name}")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
    assert not [path for path in snapshots(tmp_path) if path.name == "model.safetensors"]


def test_a_connection_that_is_cut_once_is_taken_up_again(hub):
    content = os.urandom(4000)
    hub.add("a/b", {"config.json": b"{}", "model.safetensors": content})
    hub.failures = [Failure("GET /cdn", cut=True, times=1)]
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == content
    assert sum("GET /cdn" in request for request in hub.requests) == 2


def test_a_download_that_broke_off_leaves_nothing_that_looks_like_a_model(
    hub, tmp_path, monkeypatch
):
    content = os.urandom(4000)
    hub.add("a/b", {"config.json": b"{}", "model.safetensors": content})
    hub.failures = [Failure("GET /cdn", cut=True, times=1), Failure("GET /cdn", status=500)]
    with pytest.raises(ModelError, match=tells("hf:a/b", "HTTP 500")):
        fetch("hf:a/b")
    assert {path.name for path in snapshots(tmp_path)} == {"config.json"}
    assert not list(tmp_path.rglob("*.incomplete"))
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=tells("hf:a/b", "HF_HUB_OFFLINE")):
            fetch("hf:a/b")
    hub.failures = []
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == content


def test_a_body_shorter_than_it_says_is_no_model(hub, tmp_path):
    hub.add("a/b", {"config.json": b"{}", "model.safetensors": b"weights"})
    hub.failures = [Failure("GET /cdn", status=200)]
    with pytest.raises(ModelError, match=tells("hf:a/b", "Consistency check", "size 7", "size 0")):
        fetch("hf:a/b")
    assert {path.name for path in snapshots(tmp_path)} == {"config.json"}


def test_an_update_that_broke_off_leaves_the_model_before_it(hub):
    repository = hub.add("a/b", {"config.json": b"{}", "model.safetensors": b"old"})
    fetch("hf:a/b")
    repository.commit("main", {"config.json": b"{}", "model.safetensors": b"new"}, "second")
    hub.failures = [Failure("GET /cdn", status=500)]
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == b"old"
    hub.failures = [Failure("")]
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == b"old"
    hub.failures = []
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == b"new"


def test_a_commit_in_the_cache_needs_no_network(hub):
    repository = hub.add("a/b", {"config.json": b"{}", "model.safetensors": b"old"})
    name = f"hf:a/b@{repository.branches['main']}"
    folder = fetch(name)
    hub.requests.clear()
    assert fetch(name) == folder
    assert not hub.requests


def test_a_hub_that_does_not_answer_does_not_hold_up_a_model_in_the_cache(hub, monkeypatch):
    hub.add("a/b", {"config.json": b"{}", "model.safetensors": b"old"})
    folder = fetch("hf:a/b")
    hub.failures = [Failure("", seconds=20)]
    monkeypatch.setattr("fastdpm.models.hub._CACHED_TIMEOUT", 0.2)
    began = time.perf_counter()
    assert fetch("hf:a/b") == folder
    assert time.perf_counter() - began < 5
