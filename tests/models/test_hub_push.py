"""A complete model is published, and nothing else; after an error the hub is unchanged."""

import pytest
from huggingface_hub import HfApi

from fastdpm import FastDPMError, InvalidArgumentError, ModelError, load_model
from fastdpm.models.hub import push
from tests.messages import tells
from tests.models.hub_cases import (
    as_it_is,
    copy_folder,
    failing,
    nowhere,
    other_token,
    reader,
    stopped,
)
from tests.models.hub_handler import Failure


def test_only_a_models_files_are_sent_in_one_commit(hub, writer, folders, tmp_path, capsys):
    folder = copy_folder(folders["image"], tmp_path / "model")
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
    with pytest.raises(
        InvalidArgumentError, match=tells("someone/public", "/someone/public/settings")
    ):
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
    ("repo", "change", "values"),
    [
        ("someone/tiny", _no_token, ["hf auth login", "HF_TOKEN"]),
        ("someone/tiny", nowhere, ["HF_HUB_OFFLINE"]),
        ("someone/tiny", other_token, ["http://127.0.0.1", "HF_TOKEN"]),
        ("someone/tiny", reader, ["someone/tiny", "http://127.0.0.1"]),
        ("someone/new", reader, ["someone/new", "http://127.0.0.1"]),
        ("other/new", as_it_is, ["other/new", "http://127.0.0.1"]),
        ("other/tiny", as_it_is, ["other/tiny", "http://127.0.0.1"]),
        ("someone/tiny", stopped, ["http://127.0.0.1"]),
        ("someone/tiny", failing("/models/", 500), ["HTTP 500"]),
        ("someone/new", failing("create", 503), ["HTTP 503"]),
        ("someone/tiny", failing("PUT", 500), ["HTTP 500"]),
        (
            "someone/tiny",
            failing("/preupload/", 413),
            ["someone/tiny", "HTTP 413"],
        ),
        ("someone/tiny", failing("", 200), ["HF_ENDPOINT"]),
    ],
)
def test_what_cannot_be_published_is_one_line_and_leaves_the_hub_as_it_was(
    hub, writer, folders, monkeypatch, capsys, repo, change, values
):
    hub.add("someone/tiny", {"README.md": b"before"})
    hub.add("other/tiny", {"README.md": b"theirs"})
    change(hub, monkeypatch)
    with pytest.raises(FastDPMError, match=tells(*values)) as caught:
        push(folders["image"], repo)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
    assert hub.repositories.keys() == {"someone/tiny", "other/tiny"}
    assert hub.files("someone/tiny") == {"README.md": b"before"}
    assert hub.files("other/tiny") == {"README.md": b"theirs"}
    assert not hub.blobs


def test_a_branch_that_cannot_be_found_is_no_wrong_argument_of_a_push(
    hub, writer, folders, monkeypatch
):
    monkeypatch.setattr(HfApi, "create_branch", lambda *_, **__: None)
    hub.add("someone/tiny", {"README.md": b"before"})
    with pytest.raises(FastDPMError, match=tells("someone/tiny", "v9")) as caught:
        push(folders["image"], "someone/tiny", revision="v9")
    assert caught.value.exit_code == 1


def test_without_its_commit_what_was_sent_is_not_published(hub, writer, folders):
    hub.add("someone/tiny", {"README.md": b"before"})
    hub.failures = [Failure("/commit/", 412)]
    with pytest.raises(FastDPMError, match=tells("someone/tiny", "HTTP 412")):
        push(folders["image"], "someone/tiny")
    assert hub.files("someone/tiny") == {"README.md": b"before"}


def test_a_model_card_that_the_hub_refuses_fails_before_the_upload_of_weights(
    hub, writer, folders, tmp_path
):
    folder = copy_folder(folders["image"], tmp_path / "model")
    (folder / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(
        FastDPMError, match=tells("someone/tiny", "README.md", '"license" must be a string')
    ):
        push(folder, "someone/tiny")
    assert not hub.blobs


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "README.md"])
def test_an_incomplete_folder_is_refused_without_a_request(
    hub, writer, folders, tmp_path, lacking
):
    folder = copy_folder(folders["image"], tmp_path / "model")
    (folder / lacking).unlink()
    with pytest.raises(ModelError, match=tells(folder, lacking)):
        push(folder, "someone/tiny")
    assert not hub.requests
