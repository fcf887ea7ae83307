"""Damaged and hostile weights files: one clear line each, and no code is run."""

import io
import json
import os
import pickle
import random
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm.core.errors import FastDPMError
from fastdpm.models.find import find_model
from fastdpm.models.load import open_model
from fastdpm.networks.build import build_network
from tests.conftest import IMAGE
from tests.models.test_find import CASES, _write_preset

State = dict[str, Tensor]


@cache
def _state() -> State:
    torch.manual_seed(0)
    return build_network(IMAGE.network).state_dict()


def _saved(content: Any, *, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _safe(state: State) -> bytes:
    from safetensors.torch import save

    return save(state)


def _with(**changes: Any) -> State:
    names = {name.replace(".", "_"): name for name in _state()}
    return {**_state(), **{names.get(name, name): value for name, value in changes.items()}}


def _without(*names: str) -> State:
    return {name: tensor for name, tensor in _state().items() if name not in names}


class _Runs:
    """Runs a function when a plain unpickler reads it."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def _flipped(data: bytes, seed: int) -> bytes:
    """One bit of the content is changed, but not of the padding between entries."""
    changed = bytearray(data)
    marks = [i for i in range(len(data)) if data[i] not in (0, ord("Z"), ord("F"))]
    at = random.Random(seed).choice(marks)  # noqa: S311
    changed[at] ^= 1 << seed % 8
    return bytes(changed)


def _cut(layout: str, length: int) -> bytes:
    if layout == "safetensors":
        return _safe(_state())[:length]
    return _saved(_state(), zipped=layout == "zip")[:length]


def _archive(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(f"x/{name.replace('_', '.')}", data)
    return file.getvalue()


def _bomb() -> bytes:
    return _archive(data_pkl=pickle.dumps({"a": 1}, protocol=2), big=bytes(2**23))


def _header(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _entry(dtype: str, size: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [size], "data_offsets": [0, end]}


def _process(betas: Tensor) -> bytes:
    """A diffusion process: the network and the buffer of its schedule."""
    return _saved({"betas": betas, **{f"m.{name}": tensor for name, tensor in _state().items()}})


def _script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), file)
    return file.getvalue()


def _nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"a": value}
    return value


CUTS = (1, 3, 7, 20, 64, 200, 1000, 5000, 20_000, -2000, -200, -21, -1)
OPCODES = b"\x80\x02"
CORPUS: dict[str, Callable[[], bytes]] = {
    **{f"zip cut {n}": partial(_cut, "zip", n) for n in CUTS},
    **{f"old cut {n}": partial(_cut, "old", n) for n in CUTS},
    **{f"safetensors cut {n}": partial(_cut, "safetensors", n) for n in CUTS[1:]},
    "empty": lambda: b"",
    "zeros": lambda: bytes(1000),
    "text": lambda: b"hello\n",
    "web page": lambda: b"<!DOCTYPE html><html></html>",
    "lfs": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "noise": lambda: random.Random(0).randbytes(5000),  # noqa: S311
    "pickle and noise": lambda: OPCODES + random.Random(1).randbytes(500),  # noqa: S311
    "zip and noise": lambda: b"PK\x03\x04" + random.Random(2).randbytes(500),  # noqa: S311
    "empty dict": lambda: _saved({}),
    "empty list": lambda: _saved([]),
    "none": lambda: _saved(None),
    "number": lambda: _saved(3),
    "string": lambda: _saved("x"),
    "tensor": lambda: _saved(torch.ones(3)),
    "list of tensors": lambda: _saved([torch.ones(3)] * 3),
    "list of numbers": lambda: _saved(list(range(50))),
    "numbers as keys": lambda: _saved({1: torch.ones(2), None: torch.ones(1)}),
    "arrays": lambda: _saved({name: t.numpy() for name, t in _state().items()}),
    "lists as weights": lambda: _saved({name: [1.0] * 5 for name in _state()}),
    "other names": lambda: _saved({f"x{n}x": t for n, t in _state().items()}),
    "deep": lambda: _saved(_nested(200)),
    "optimizer": lambda: _saved({"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}),
    "two sets": lambda: _saved({"a": _state(), "b": _with(conv_in_bias=torch.ones(8))}),
    "missing": lambda: _saved(_without("conv_in.bias")),
    "surplus": lambda: _saved(_with(extra=torch.ones(2))),
    "transposed": lambda: _saved(_with(conv_in_weight=_state()["conv_in.weight"].mT[:, :, :2])),
    "scalar": lambda: _saved(_with(conv_in_weight=torch.ones(()))),
    "no values": lambda: _saved(_with(conv_in_weight=torch.ones(0))),
    "nan": lambda: _saved(_with(conv_in_bias=torch.full((8,), torch.nan))),
    "infinity": lambda: _saved(_with(conv_out_bias=torch.full((1,), torch.inf))),
    "nan safetensors": lambda: _safe(_with(conv_in_bias=torch.full((8,), torch.nan))),
    "integers": lambda: _saved(_with(conv_in_bias=torch.ones(8, dtype=torch.int64))),
    "complex": lambda: _saved(_with(conv_in_bias=torch.ones(8, dtype=torch.complex64))),
    "sparse": lambda: _saved(_with(conv_in_bias=torch.ones(8).to_sparse())),
    "meta": lambda: _saved(_with(conv_in_bias=torch.ones(8, device="meta"))),
    "averaged list": lambda: _saved({"model": _state(), "ema": [torch.ones(1)] * 300}),
    "betas above one": lambda: _process(torch.full((9,), 2.0)),
    "betas of nan": lambda: _process(torch.full((9,), torch.nan)),
    "betas of a square": lambda: _process(torch.ones(2, 2)),
    "code": lambda: _saved({"model": _state(), "x": _Runs(os.mkdir, "ran")}),
    "code of builtins": lambda: _saved({"model": _state(), "x": _Runs(eval, "1")}),
    "code before 1.6": lambda: _saved({"x": _Runs(os.mkdir, "ran")}, zipped=False),
    "code alone": lambda: pickle.dumps(_Runs(os.mkdir, "ran")),
    "code in protocol 0": lambda: b"\x80\x02cos\nmkdir\nX\x03\x00\x00\x00ran\x85R.",
    "object array": lambda: _saved({"model": _state(), "x": np.array([{}], dtype=object)}),
    "own class": lambda: _saved({"model": _state(), "x": pytest.param(1)}),
    "whole module": lambda: _saved(torch.nn.Linear(1, 1)),
    "huge array": lambda: pickle.dumps({"x": _Runs(np.ndarray, (2**62,))}, protocol=2),
    "huge range": lambda: pickle.dumps({"x": _Runs(list, range(2**62))}, protocol=2),
    "script": _script,
    "other zip": lambda: _archive(notes_txt=b"hello"),
    "zip bomb": _bomb,
    "header too long": lambda: struct.pack("<Q", 2**60) + b"{}",
    "header no json": lambda: _header(b"{nonsense"),
    "header a list": lambda: _header(b"{}[]"),
    "header without tensors": lambda: _header({}),
    "header of a huge tensor": lambda: _header({"a": _entry("F32", 2**40, 2**42)}),
    "header of no dtype": lambda: _header({"a": _entry("X", 1, 4)}, bytes(4)),
    "header that overlaps": lambda: _header(dict.fromkeys("ab", _entry("F32", 1, 4)), bytes(4)),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    from fastdpm.models import presets

    place: Path = tmp_path_factory.mktemp("hostile")
    _write_preset(place / "tiny-image.toml", **CASES["tiny-image"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "PRESETS", place)
        yield place


def test_the_file_that_is_damaged_here_opens(place):
    for data in (_saved(_state()), _saved(_state(), zipped=False), _safe(_state())):
        (place / "whole.pt").write_bytes(data)
        assert open_model(find_model(place / "whole.pt")).config.name == "tiny-image"
    assert len(CORPUS) >= 90


@pytest.mark.parametrize("seed", range(16))
def test_a_bit_that_flips_is_noticed_or_changes_nothing(place, seed):
    path, failure = place / "flip.pt", ""
    path.write_bytes(_flipped(_saved(_state()), seed))
    try:
        weights = open_model(find_model(path)).network.state_dict()
    except FastDPMError as error:
        weights, failure = {}, str(error)
    unchanged = all(torch.equal(weights.get(n, t * torch.nan), t) for n, t in _state().items())
    assert unchanged or re.fullmatch(r".*flip\.pt.*", failure)


@pytest.mark.parametrize("case", CORPUS)
def test_a_bad_file_is_one_line(place, monkeypatch, case):
    monkeypatch.chdir(place)
    path = place / "bad.pt"
    path.write_bytes(CORPUS[case]())
    with pytest.raises(FastDPMError, match=r"bad\.pt") as caught:
        open_model(find_model(path))
    assert "\n" not in str(caught.value)
    assert not (place / "ran").exists()
