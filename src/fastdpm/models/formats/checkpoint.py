"""Published weights files, read without executing anything.

A file is safetensors or what ``torch.save`` writes: a state, {"model_state_dict": state, ...} as
the DiffWave authors write, {"model": state, ...} as LMNT's trainer does, or [state, optimizer,
epoch, step, averaged state] as DDIM's does.
"""

from __future__ import annotations

import pickletools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fastdpm.core.errors import ModelError, first_line
from fastdpm.data.tensors import read_tensors

State = Mapping[str, Tensor]
_ZIP, _PICKLES = b"PK\x03\x04", (b"\x80", b"\x0a")
_PARTS = 4  # pickles of a file of torch before 1.6, up to that of the weights
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_VALUES = ("torch.", "collections.", "_codecs.", "numpy.dtype", *_SCALARS)
_PARALLEL = "module."  # what DataParallel puts before every name
_DEPTH = 3
_NUMBERS = ("bool", "int32", "int64", "float32", "float64")


def choose_state(path: Path, states: list[tuple[str, State]]) -> State:
    """The largest state of a network.

    Of several that are as large, one called after "ema" is taken, or the last of a list, which is
    the averaged one where DDIM's code wrote the file.

    Raises:
        ModelError: If there is none, or several and nothing tells which is meant.
    """
    most = max((len(state) for _, state in states), default=0)
    fitting = [(key, state) for key, state in states if len(state) == most]
    if not fitting:
        raise ModelError(f"{path} holds no weights: give the file of a trained network")
    averaged = [state for key, state in fitting if "ema" in key.lower()]
    keys = list(dict.fromkeys(key for key, _ in fitting))
    if not averaged and len(keys) > 1:
        raise ModelError(
            f"{path} holds several sets of weights, {', '.join(map(repr, keys))}: save the one"
            " that is meant by itself"
        )
    return (averaged or [state for _, state in fitting])[-1]


def read_states(path: Path) -> list[tuple[str, State]]:
    """Every set of named tensors in a file, with the key that it stands under.

    Raises:
        ModelError: If the file is missing, damaged or would execute code.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}: give the file itself")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ModelError(f"{path} is empty: download it again")
    if head[8:9] == b"{":
        return list(_states(read_tensors(path)))
    if not head.startswith((_ZIP, *_PICKLES)):
        raise ModelError(
            f"{path} is no checkpoint, it starts with {head!r}: a web page or a Git LFS pointer"
            " may have been saved in its place, download the file itself"
        )
    return list(_states(_unpickled(path, head)))


def _unpickled(path: Path, head: bytes) -> Any:
    try:
        # torch tells of the pickle protocol, which readers cannot change.
        with warnings.catch_warnings(), safe_globals(_numbers()):
            warnings.simplefilter("ignore")
            # Only the zip layout can be mapped: states that are not wanted are then never read.
            # By the name ".safetensors" torch would take the file for what it is not.
            if head.startswith(_ZIP) and path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails in many ways on foreign or truncated bytes
        asked = _asked(path, head)
        if asked:
            raise ModelError(
                f"{path} asks for {asked} to be run when it is read, which is refused: save"
                " the weights alone, by torch.save(network.state_dict(), FILE), where the file"
                " comes from"
            ) from None
        raise ModelError(
            f"{path} is not a whole checkpoint: {_reason(error)}; download it again"
        ) from None


def _asked(path: Path, head: bytes) -> str:
    """What reading a file would have run, of a pickle the first; nothing is run to see it."""
    # It may be damaged as well, or no pickle at all.
    with suppress(Exception), path.open("rb") as file, safe_globals(_numbers()):
        if head.startswith(_ZIP):
            return ", ".join(sorted(get_unsafe_globals_in_checkpoint(file)))
        return next(chain.from_iterable(_globals(file) for _ in range(_PARTS)), "")
    return ""


def _globals(file: BinaryIO) -> Iterator[str]:
    """What a plain pickle asks for, beside what makes tensors and numbers."""
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            texts.append(argument.replace(" ", "."))
        if code.name in ("GLOBAL", "STACK_GLOBAL"):
            name = ".".join(texts[-1 if code.name == "GLOBAL" else -2 :])
            if not name.startswith(_VALUES):
                yield name


def _numbers() -> list[Any]:
    """What makes NumPy's numbers, which trainers keep beside the weights; none runs code."""
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in _NUMBERS]
    return [*((scalar, name) for name in _SCALARS), np.dtype, *kinds]


def _reason(error: Exception) -> str:
    """What torch says, without its advice to read the file by executing it."""
    _, _, reason = str(error).partition("WeightsUnpickler error: ")
    told = reason.strip().splitlines() or [first_line(error)]
    return told[0].partition(". ")[0].rstrip(".")


def _states(value: Any, key: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, State]]:
    """Every mapping that holds tensors, with the key it stands under."""
    children: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        children = list(value.items())
        state = {
            str(name).removeprefix(_PARALLEL): tensor
            for name, tensor in children
            if isinstance(tensor, Tensor)
        }
        if state:
            yield key, state
    elif isinstance(value, list | tuple):
        children = [(key, child) for child in value]
    if depth:
        for name, child in children:
            yield from _states(child, str(name), depth - 1)
