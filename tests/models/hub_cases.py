"""Failures of a hub, and helpers to inspect the result."""

from pathlib import Path

import torch
from huggingface_hub import constants

from fastdpm import load_model
from tests.models.hub_handler import Failure


def files_in(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in files}


def snapshots(tmp_path: Path) -> list[Path]:
    """Files that a reader of the cache would find."""
    return [path for path in tmp_path.glob("home/hub/*/snapshots/**/*") if path.is_file()]


def samples_of(name: str | Path) -> torch.Tensor:
    return load_model(name).sample(2, seed=5)


def other_token(_, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")


def reader(_, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader")


def stopped(hub, _):
    hub.stop()


def failing(*arguments):
    return lambda hub, _: hub.failures.append(Failure(*arguments))


def nowhere(_, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def as_it_is(*_):
    pass


def copy_folder(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
