"""A model that one person publishes is the model that another opens, with a network or without."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download

from fastdpm import FastDPMError, InvalidArgumentError, MissingExtraError, ModelError, load_model
from fastdpm.models.hub import fetch, push
from tests.models.hub_server import Failure, serving

WEIGHTS = "diffusion_pytorch_model"
DIFFUSERS = {"config.json": b"{}", "scheduler_config.json": b"{}", "model_index.json": b"{}"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serving(monkeypatch, tmp_path / "home") as hub:
        yield hub


@pytest.fixture
def writer(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writer")


def _fetched(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


def _snapshots(tmp_path: Path) -> list[Path]:
    """Files that a reader of the cache would find."""
    return [path for path in tmp_path.glob("home/hub/*/snapshots/**/*") if path.is_file()]


def _samples(name: str | Path) -> torch.Tensor:
    return load_model(name).sample(2, seed=5)


@pytest.mark.parametrize("kind", ["image", "sound", "vocoder"])
def test_a_published_folder_is_a_model_as_snapshot_download_leaves_it(hub, writer, folders, kind):
    address = push(folders[kind], "someone/tiny")
    assert address == f"{hub.address}/someone/tiny"
    folder = Path(snapshot_download("someone/tiny"))
    torch.testing.assert_close(_samples(folder), _samples(folders[kind]), rtol=0, atol=0)
    for name in _fetched(folders[kind]):
        assert (folder / name).read_bytes() == (folders[kind] / name).read_bytes()


def test_a_name_is_a_model_and_stays_one_without_a_network(
    hub, writer, folders, monkeypatch, capsys
):
    push(folders["vocoder"], "someone/tiny")
    wanted = _samples(folders["vocoder"])
    torch.testing.assert_close(_samples("hf:someone/tiny"), wanted, rtol=0, atol=0)
    hub.stop()
    torch.testing.assert_close(_samples("hf:someone/tiny"), wanted, rtol=0, atol=0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.testing.assert_close(_samples("hf:someone/tiny"), wanted, rtol=0, atol=0)
    assert capsys.readouterr().err == ""


def test_the_environment_says_where_the_hub_and_its_cache_are(hub, tmp_path):
    hub.add("someone/tiny", {"config.json": b"{}", "model.safetensors": b"w"}, private=True)
    hub.failures = [Failure("GET /cdn", cut=True, times=1)]  # which huggingface_hub would tell
    home = tmp_path / "elsewhere"
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": "hf_writer"}
    code = "from fastdpm.models.hub import fetch; print(fetch('hf:someone/tiny'))"
    for extra in ({}, {"HF_HUB_OFFLINE": "1", "HF_TOKEN": ""}):
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | environment | extra,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert run.stdout.startswith(str(home / "hub"))
        assert run.stderr == ""
        hub.stop()


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
    assert _fetched(folder) == expected
    assert all((folder / name).read_bytes() == name.encode() for name in expected)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"unet/config.json", "vae/config.json", f"unet/{WEIGHTS}.bin"}, "a pipeline with vae"),
        ({*DIFFUSERS, f"{WEIGHTS}.fp16.safetensors"}, f"but only {WEIGHTS}.fp16.safetensors"),
        ({"README.md", "model.ckpt"}, "`hf download a/b FILE`"),
        ({"README.md"}, "no weights at all"),
    ],
)
def test_what_cannot_be_read_is_not_fetched(hub, files, told):
    hub.add("a/b", dict.fromkeys(files, b"x"))
    with pytest.raises((InvalidArgumentError, ModelError), match=re.escape(told)):
        fetch("hf:a/b")
    assert hub.requests == ["GET /api/models/a/b"]


@pytest.mark.parametrize(
    "name",
    ["b", "/b", "a/", "a/b/c", "a b/c", "a/b@", "a/b@ c", "a/../b", "a/b@../../x", "a/b--c"],
)
def test_a_malformed_name_is_told_and_nothing_asked(hub, name):
    with pytest.raises(InvalidArgumentError, match=r"owner/name|a revision is"):
        fetch(f"hf:{name}")
    assert not hub.requests


def _other_token(_, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")


def _reader(_, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")


def _stopped(hub, _):
    hub.stop()


def _failing(*arguments):
    return lambda hub, _: hub.failures.append(Failure(*arguments))


def _nowhere(_, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def _as_it_is(*_):
    pass


@pytest.mark.parametrize(
    ("name", "change", "error", "told"),
    [
        ("a/none", _as_it_is, InvalidArgumentError, "has no model a/none, or it is private"),
        ("a/private", _as_it_is, InvalidArgumentError, "log in by `hf auth login`, or set HF_TOK"),
        ("a/open@no", _as_it_is, InvalidArgumentError, "a/open has no revision 'no'"),
        ("a/gated", _as_it_is, ModelError, "gated: ask for access at http"),
        ("a/gated", _reader, ModelError, "gated: ask for access at http"),
        ("a/open", _other_token, ModelError, "does not take this token"),
        (
            "a/open",
            _failing("", 500),
            ModelError,
            "does not work now (HTTP 500), so hf:a/open was",
        ),
        (
            "a/open",
            _failing("/tree/", 503),
            ModelError,
            "does not work now (HTTP 503), so hf:a/open was",
        ),
        (
            "a/open",
            _failing("HEAD .*model", 500),
            ModelError,
            "does not work now (HTTP 500), so hf:a/open was",
        ),
        ("a/open", _failing("HEAD .*model", 403), ModelError, "this token may not read a/open"),
        ("a/open", _failing("GET /cdn", 403), ModelError, "this token may not read a/open"),
        (
            "a/open",
            _failing("", 418),
            ModelError,
            "refused a/open, so hf:a/open was not fetched: HTTP 418",
        ),
        ("a/open", _failing("", 200), ModelError, "does not answer like a hub"),
        ("a/open", _stopped, ModelError, "cannot be reached, so hf:a/open was not fetched"),
        ("a/open", _nowhere, ModelError, "HF_HUB_OFFLINE is set, so hf:a/open was not fetched"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(
    hub, tmp_path, monkeypatch, capsys, name, change, error, told
):
    model = {"config.json": b"{}", "model.safetensors": b"w"}
    hub.add("a/open", model)
    hub.add("a/private", model, private=True)
    hub.add("a/gated", model, gated=True)
    change(hub, monkeypatch)
    with pytest.raises(error, match=re.escape(told)) as caught:
        fetch(f"hf:{name}")
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
    assert not [path for path in _snapshots(tmp_path) if path.name == "model.safetensors"]


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
    with pytest.raises(ModelError, match=r"HTTP 500\), so hf:a/b was not fetched"):
        fetch("hf:a/b")
    assert {path.name for path in _snapshots(tmp_path)} == {"config.json"}
    assert not list(tmp_path.rglob("*.incomplete"))
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set, so hf:a/b was not fetched"):
            fetch("hf:a/b")
    hub.failures = []
    assert (fetch("hf:a/b") / "model.safetensors").read_bytes() == content


def test_a_body_shorter_than_it_says_is_no_model(hub, tmp_path):
    hub.add("a/b", {"config.json": b"{}", "model.safetensors": b"weights"})
    hub.failures = [Failure("GET /cdn", status=200)]
    with pytest.raises(
        ModelError, match=r"broke off \(Consistency check.*so hf:a/b was not fetched"
    ):
        fetch("hf:a/b")
    assert {path.name for path in _snapshots(tmp_path)} == {"config.json"}


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
    monkeypatch.setattr("fastdpm.models.hub._SECONDS", 0.2)
    began = time.perf_counter()
    assert fetch("hf:a/b") == folder
    assert time.perf_counter() - began < 5


def test_only_a_models_files_are_sent_in_one_commit(hub, writer, folders, tmp_path, capsys):
    folder = _copy(folders["image"], tmp_path / "model")
    for stray in ("checkpoint.pt", ".env", "notes/README.md", "model.safetensors.part"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_bytes(b"not for others")
    push(folder, "someone/tiny", message="the first model")
    model = {"config.json", "model.safetensors", "README.md"}
    assert hub.files("someone/tiny").keys() == model | {".gitattributes"}
    assert hub.repositories["someone/tiny"].messages == ["first", "the first model"]
    assert b"not for others" not in hub.blobs.values()
    assert capsys.readouterr().err == ""


def test_the_conditions_of_an_earlier_model_do_not_stay(hub, writer, folders):
    push(folders["vocoder"], "someone/tiny")
    assert "conditions.safetensors" in hub.files("someone/tiny")
    push(folders["sound"], "someone/tiny")
    assert "conditions.safetensors" not in hub.files("someone/tiny")
    assert len(hub.repositories["someone/tiny"].messages) == 3


def test_a_private_model_is_created_so_and_a_public_one_is_not_mistaken_for_it(
    hub, writer, folders
):
    push(folders["image"], "someone/mine", private=True)
    push(folders["sound"], "someone/mine", private=True)
    assert hub.repositories["someone/mine"].private
    push(folders["image"], "someone/public")
    before = hub.files("someone/public")
    with pytest.raises(InvalidArgumentError, match="someone/public is already published for all"):
        push(folders["sound"], "someone/public", private=True)
    assert hub.files("someone/public") == before


def test_a_branch_is_published_beside_the_main_one(hub, writer, folders):
    push(folders["image"], "someone/tiny")
    main = hub.files("someone/tiny")
    for _ in range(2):
        address = push(folders["sound"], "someone/tiny", revision="v2")
    assert address == f"{hub.address}/someone/tiny/tree/v2"
    assert hub.files("someone/tiny") == main
    assert load_model("hf:someone/tiny@v2").config.name == "tiny-sound"
    assert load_model("hf:someone/tiny").config.name == "tiny-image"


def _no_token(_, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")


@pytest.mark.parametrize(
    ("repo", "change", "told"),
    [
        ("someone/tiny", _no_token, "there is no token, so nothing was published: log in by `hf"),
        ("someone/tiny", _nowhere, "HF_HUB_OFFLINE is set, so nothing was published"),
        ("someone/tiny", _other_token, "does not take this token, so nothing was published"),
        ("someone/tiny", _reader, "this token has no right to write someone/tiny"),
        ("someone/new", _reader, "this token has no right to write someone/new"),
        ("other/new", _as_it_is, "this token has no right to write other/new"),
        ("other/tiny", _as_it_is, "this token has no right to write other/tiny"),
        ("someone/tiny", _stopped, "cannot be reached, so nothing was published"),
        ("someone/tiny", _failing("/models/", 500), "does not work now (HTTP 500), so nothing"),
        ("someone/new", _failing("create", 503), "does not work now (HTTP 503), so nothing"),
        ("someone/tiny", _failing("PUT", 500), "does not work now (HTTP 500), so nothing"),
        (
            "someone/tiny",
            _failing("/preupload/", 413),
            "refused someone/tiny, so nothing was published: HTTP 413",
        ),
        ("someone/tiny", _failing("", 200), "does not answer like a hub"),
    ],
)
def test_what_cannot_be_published_is_one_line_and_leaves_the_hub_as_it_was(
    hub, writer, folders, monkeypatch, capsys, repo, change, told
):
    hub.add("someone/tiny", {"README.md": b"before"})
    hub.add("other/tiny", {"README.md": b"theirs"})
    change(hub, monkeypatch)
    with pytest.raises(FastDPMError, match=re.escape(told)) as caught:
        push(folders["image"], repo)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
    assert hub.repositories.keys() == {"someone/tiny", "other/tiny"}
    assert hub.files("someone/tiny") == {"README.md": b"before"}
    assert hub.files("other/tiny") == {"README.md": b"theirs"}
    assert not hub.blobs


def test_without_its_commit_what_was_sent_is_not_published(hub, writer, folders):
    hub.add("someone/tiny", {"README.md": b"before"})
    hub.failures = [Failure("/commit/", 412)]
    with pytest.raises(
        FastDPMError, match="refused someone/tiny, so nothing was published: HTTP 412"
    ):
        push(folders["image"], "someone/tiny")
    assert hub.files("someone/tiny") == {"README.md": b"before"}


def test_a_model_card_that_the_hub_refuses_is_told_before_the_weights_are_sent(
    hub, writer, folders, tmp_path
):
    folder = _copy(folders["image"], tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(FastDPMError, match=r'README\.md\. - "license" must be a string'):
        push(folder, "someone/tiny")
    assert not hub.blobs


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "README.md"])
def test_half_a_folder_is_refused_before_the_hub_is_asked(hub, writer, folders, tmp_path, lacking):
    folder = _copy(folders["image"], tmp_path / "model")
    (folder / lacking).unlink()
    with pytest.raises(ModelError, match=f"{lacking} is missing"):
        push(folder, "someone/tiny")
    assert not hub.requests


def test_without_huggingface_hub_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: fetch("hf:a/b"), lambda: push(folders["image"], "a/b")):
        with pytest.raises(MissingExtraError, match=r"fastdpm\[hub\]"):
            call()


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
