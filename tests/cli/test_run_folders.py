"""Commands that write folders keep finished parts, and SIGTERM ends them as Ctrl-C does."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdpm.cli.app import run as fastdpm
from fastdpm.data.run_folder import RunFolder
from fastdpm.evaluation import reconstruction
from fastdpm.sampling import loop
from tests.messages import tells

EDIT = ["edit", "{image}", "in", "-S", "4", "--batch-size", "1", "--out", "x"]
WAY = ["in/a.png", "in/b.png", "-n", "4"]
INTERPOLATE = ["interpolate", "{image}", *WAY, "-S", "4", "--batch-size", "1", "--out", "x"]
DECODE = ["decode", "{image}", "z.safetensors", "--batch-size", "1", "--out", "x"]
RECONSTRUCT = ["reconstruct", "{image}", "in", "-S", "2,3", "--by", "first", "--out", "x"]
SAMPLE = ["sample", "{image}", "-n", "3", "-S", "4", "--batch-size", "1"]


@pytest.fixture
def call(folders, tmp_path, capsys, monkeypatch):
    """Run a command on small models and three images; returns its exit code and all output."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    for name, image in zip("abc", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "in" / f"{name}.png")

    def call(*arguments: str) -> tuple[int, str]:
        code = fastdpm([argument.format(**folders) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def _files(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*.*")}


def _stop_at(monkeypatch, call: int, number: int = signal.SIGINT) -> list[int]:
    """Let the signal arrive at a call of ``run`` or of ``reconstruct``; returns all calls."""
    calls: list[int] = []

    def stopped(original):
        def wrapped(*args, **kwargs):
            calls.append(1)
            if len(calls) == call:
                os.kill(os.getpid(), number)
            return original(*args, **kwargs)

        return wrapped

    for place in ("inverse.editing", "inverse.encoding", "models.model"):
        monkeypatch.setattr(f"fastdpm.{place}.run", stopped(loop.run))
    return calls


@pytest.mark.parametrize(
    ("arguments", "stop", "kept", "resumed"),
    # An interpolation encodes and decodes its ends again.
    [(EDIT, 3, 2, 1), (DECODE, 3, 2, 1), (INTERPOLATE, 6, 3, 5)],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_an_interrupted_command_keeps_the_finished_batches(
    call, monkeypatch, arguments, stop, kept, resumed
):
    if arguments is DECODE:
        assert call("encode", "{image}", "in", "-S", "4", "--out", "z.safetensors")[0] == 0
    assert call(*arguments[:-1], "whole")[0] == 0
    with monkeypatch.context() as patch:
        _stop_at(patch, stop)
        code, printed = call(*arguments)
    assert code == 130
    assert re.search(tells(kept, "x", "--resume"), printed)
    code, printed = call(*arguments)
    assert code == 2
    assert re.search(tells("x", "--resume"), printed)
    assert "--overwrite" not in printed
    with monkeypatch.context() as patch:
        calls = _stop_at(patch, 99)
        code, printed = call(*arguments, "--resume")
    assert code == 0, printed
    assert len(calls) == resumed
    assert _files("x") == _files("whole")


def test_reconstructions_are_kept_one_by_one(call, monkeypatch):
    assert call(*RECONSTRUCT[:-1], "whole")[0] == 0
    with monkeypatch.context() as patch:
        _stop_at(patch, 3)
        assert call(*RECONSTRUCT)[0] == 130
    assert [p.name for p in Path("x/parts").iterdir()] == ["0000.safetensors"]
    made: list[int] = []
    measure = reconstruction.reconstruct

    def counted(*args, **kwargs):
        made.append(1)
        return measure(*args, **kwargs)

    monkeypatch.setattr(reconstruction, "reconstruct", counted)
    code, printed = call(*RECONSTRUCT, "--resume")
    assert code == 0, printed
    assert made == [1]
    assert _files("x") == _files("whole")


def test_a_termination_is_one_line_with_its_own_exit_code(call, monkeypatch):
    with monkeypatch.context() as patch:
        _stop_at(patch, 2, signal.SIGTERM)
        code, printed = call(*SAMPLE, "--out", "x")
    assert code == 143
    assert re.search(tells(1, "x", "--resume"), printed)
    assert printed.count("\n") == 1
    assert call(*SAMPLE, "--out", "x", "--resume")[0] == 0


def test_a_folder_in_use_is_refused_and_a_new_name_is_found(call):
    with RunFolder.open(Path("samples/tiny-image"), "sample", {}):
        code, printed = call(*SAMPLE, "--out", "samples/tiny-image")
        assert code == 2
        assert re.search(tells("samples/tiny-image", "in use"), printed)
        assert call(*SAMPLE)[0] == 0
        assert len(list(Path("samples/tiny-image-2").glob("0*.png"))) == 3


def test_an_output_is_never_an_input(call, folders):
    before = _files("in")
    code, printed = call("edit", "{image}", "in", "--out", "in", "--overwrite")
    assert code == 2
    assert re.search(tells("in"), printed)
    assert call(*SAMPLE, "--out", "drawn")[0] == 0
    for how in ("--overwrite", "--resume"):
        code, printed = call("edit", "{image}", "drawn", "--out", "drawn", how)
        assert code == 2
        assert re.search(tells("drawn", "input"), printed)
    weights = str(folders["image"] / "model.safetensors")
    code, printed = call("encode", "{image}", "in", "--out", weights, "--overwrite")
    assert code in (1, 2)
    assert re.search(tells("model.safetensors"), printed)
    assert _files("in") == before


def test_one_file_never_replaces_what_is_no_regular_file_or_an_input(call, tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "in" / "a.png")
    for name in ("pipe.json", "link.json", "keep.toml", "{image}/config.json"):
        code, printed = call("plan", "{image}", "-S", "3", "--save", name)
        assert (code, printed.count("\n")) == (2, 1), (name, printed)
    assert not (tmp_path / "pipe.json").is_file()
    assert (tmp_path / "link.json").is_symlink()
    assert call("plan", "{image}", "-S", "3", "--save", "p.json")[0] == 0
