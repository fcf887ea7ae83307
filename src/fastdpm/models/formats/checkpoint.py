"""Reading published weights files without executing code.

A file is in the safetensors format or was written by ``torch.save``. It holds a state, by itself
or in a container: {"model_state_dict": state, ...} (DiffWave authors), {"model": state, ...}
(LMNT), or [state, optimizer, epoch, step, averaged state] (DDIM).
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
_NUM_PICKLES = 4  # pickles in a file of torch before 1.6, up to and including the weights
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_SAFE_PREFIXES = ("torch.", "collections.", "_codecs.", "numpy.dtype", *_SCALARS)
_PARALLEL = "module."  # the prefix that DataParallel adds to every name
_MAX_DEPTH = 3
_NUMBER_TYPES = ("bool", "int32", "int64", "float32", "float64")


def choose_state(path: Path, states: list[tuple[str, State]]) -> State:
    """Choose the state with the most tensors.

    Among states of equal size, one whose key contains "ema" is preferred. In a list, the last
    state is chosen, which is the averaged one in files of the DDIM code.

    Args:
        path: The file, for messages.
        states: States with their keys, from :func:`read_states`.

    Raises:
        ModelError: If there is no state, or several of equal size under different keys.
    """
    largest = max((len(state) for _, state in states), default=0)
    candidates = [(key, state) for key, state in states if len(state) == largest]
    if not candidates:
        raise ModelError(f"{path} holds no weights: pass the weights file of a trained network")
    averaged = [state for key, state in candidates if "ema" in key.lower()]
    keys = list(dict.fromkeys(key for key, _ in candidates))
    if not averaged and len(keys) > 1:
        raise ModelError(
            f"{path} holds several sets of weights, {', '.join(map(repr, keys))}: save one of"
            " them to a file of its own"
        )
    return (averaged or [state for _, state in candidates])[-1]


def read_states(path: Path) -> list[tuple[str, State]]:
    """Read every state (mapping of names to tensors) in a file, with its key in the container.

    Raises:
        ModelError: If the file is missing or damaged, or would execute code when read.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}: pass the path of a file")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ModelError(f"{path} is empty: download it again")
    if head[8:9] == b"{":
        return list(_states(read_tensors(path)))
    if not head.startswith((_ZIP, *_PICKLES)):
        raise ModelError(
            f"{path} is not a checkpoint: it starts with {head!r}, so it may be a web page or a"
            " Git LFS pointer; download the file itself"
        )
    return list(_states(_unpickled(path, head)))


def _unpickled(path: Path, head: bytes) -> Any:
    """The content of a file that ``torch.save`` wrote."""
    try:
        # torch warns about the pickle protocol, which readers cannot change.
        with warnings.catch_warnings(), safe_globals(_numbers()):
            warnings.simplefilter("ignore")
            # Only the zip layout can be memory-mapped; states that are not used are never read.
            # torch would misread a file named ".safetensors".
            if head.startswith(_ZIP) and path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails in many ways on unknown or truncated bytes
        code = _unsafe_code(path, head)
        if code:
            raise ModelError(
                f"{path} would run {code} when it is read, which is refused: save only the"
                " weights, with torch.save(network.state_dict(), FILE), where the file was made"
            ) from None
        raise ModelError(
            f"{path} is not a complete checkpoint: {_reason(error)}; download it again"
        ) from None


def _unsafe_code(path: Path, head: bytes) -> str:
    """Names of the functions that reading a file would run; empty if none. Runs nothing."""
    # The file may be damaged as well, or not be a pickle at all.
    with suppress(Exception), path.open("rb") as file, safe_globals(_numbers()):
        if head.startswith(_ZIP):
            return ", ".join(sorted(get_unsafe_globals_in_checkpoint(file)))
        return next(chain.from_iterable(_globals(file) for _ in range(_NUM_PICKLES)), "")
    return ""


def _globals(file: BinaryIO) -> Iterator[str]:
    """The names that a pickle imports, except those that build tensors and numbers."""
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            texts.append(argument.replace(" ", "."))
        if code.name in ("GLOBAL", "STACK_GLOBAL"):
            name = ".".join(texts[-1 if code.name == "GLOBAL" else -2 :])
            if not name.startswith(_SAFE_PREFIXES):
                yield name


def _numbers() -> list[Any]:
    """Types that build NumPy numbers, which trainers save with the weights; none runs code."""
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in _NUMBER_TYPES]
    return [*((scalar, name) for name in _SCALARS), np.dtype, *kinds]


def _reason(error: Exception) -> str:
    """The reason in torch's message, without its advice to execute the file."""
    _, _, reason = str(error).partition("WeightsUnpickler error: ")
    lines = reason.strip().splitlines() or [first_line(error)]
    return lines[0].partition(". ")[0].rstrip(".")


def _states(value: Any, key: str = "", depth: int = _MAX_DEPTH) -> Iterator[tuple[str, State]]:
    """Every mapping that holds tensors, with its key in the container around it."""
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
