"""A published model can be opened by others, also from the cache without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, snapshot_download

from fastdpm import MissingExtraError
from fastdpm.models.hub import fetch, push
from tests.messages import tells
from tests.models.hub_cases import files_in, samples_of
from tests.models.hub_handler import Failure


@pytest.mark.parametrize("kind", ["image", "sound", "vocoder"])
def test_a_published_folder_is_a_model_as_snapshot_download_leaves_it(hub, writer, folders, kind):
    address = push(folders[kind], "someone/tiny")
    assert address == f"{hub.address}/someone/tiny"
    folder = Path(snapshot_download("someone/tiny"))
    torch.testing.assert_close(samples_of(folder), samples_of(folders[kind]), rtol=0, atol=0)
    for name in files_in(folders[kind]):
        assert (folder / name).read_bytes() == (folders[kind] / name).read_bytes()


def test_a_name_is_a_model_and_stays_one_without_a_network(
    hub, writer, folders, monkeypatch, capsys
):
    push(folders["vocoder"], "someone/tiny")
    expected = samples_of(folders["vocoder"])
    torch.testing.assert_close(samples_of("hf:someone/tiny"), expected, rtol=0, atol=0)
    hub.stop()
    torch.testing.assert_close(samples_of("hf:someone/tiny"), expected, rtol=0, atol=0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    torch.testing.assert_close(samples_of("hf:someone/tiny"), expected, rtol=0, atol=0)
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


def test_without_huggingface_hub_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: fetch("hf:a/b"), lambda: push(folders["image"], "a/b")):
        with pytest.raises(MissingExtraError, match=tells("huggingface_hub", "fastdpm[hub]")):
            call()
