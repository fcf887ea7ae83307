"""Published weights files, read without executing anything.

A file is safetensors or what ``torch.save`` writes: a state, {"model_state_dict": state, ...} as
the DiffWave authors write, or [state, optimizer, epoch, step, averaged state] as DDIM's do.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdpm.core.errors import ModelError, first_line
from fastdpm.models.folder import check_same, read_tensors

_ZIP, _PICKLES = b"PK\x03\x04", (b"\x80", b"\x0a")
_REFUSED = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)")
_PARALLEL = "module."  # what DataParallel puts before every name
_DEPTH = 3


def read_checkpoint(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Find a network's weights in a published file.

    Of several states in it, the one that shares most names with the network is taken; of several
    that share as many, one called after "ema", else the last, which is the averaged one where
    DDIM's code wrote the file.

    Args:
        path: A file of safetensors or of ``torch.save``.
        wanted: The network's state, for its names and shapes; it may be on the meta device.

    Returns:
        The weights by name, float32, copied from the file.

    Raises:
        ModelError: If the file is missing, damaged, would execute code, or holds the weights of
            another network.
    """
    found: dict[str, Tensor] = {}
    best = (-1, False)
    for key, state in _states(_load(path)):
        fit = (len(wanted.keys() & state.keys()), "ema" in key.lower())
        if fit >= best:
            best, found = fit, state
    if not found:
        raise ModelError(f"{path} holds no weights: give the file of a trained network")
    check_same(path, wanted, found, "the network")
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in found.items()}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}: give the file itself")
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return read_tensors(path)
    if not head.startswith((_ZIP, *_PICKLES)):
        raise ModelError(
            f"{path} is no checkpoint, it starts with {head!r}: a web page or a Git LFS pointer"
            " may have been saved in its place, download the file itself"
        )
    try:
        with warnings.catch_warnings():  # of the pickle protocol, which readers cannot change
            warnings.simplefilter("ignore")
            # Only the zip layout can be mapped: states that are not wanted are then never read.
            mapped = head.startswith(_ZIP) or None
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # an unpickler fails in many ways on foreign or truncated bytes
        refused = _REFUSED.search(str(error))
        if refused:
            raise ModelError(
                f"{path} asks for {refused[1]} to be run when it is read, which is refused: save"
                " the weights alone, by torch.save(network.state_dict(), FILE), where the file"
                " comes from"
            ) from None
        raise ModelError(
            f"{path} is not a whole checkpoint: {_reason(error)}; download it again"
        ) from None


def _reason(error: Exception) -> str:
    """What torch says, without its advice to read the file by executing it."""
    _, _, reason = str(error).partition("WeightsUnpickler error: ")
    told = reason.strip().splitlines() or [first_line(error)]
    return told[0].partition(". ")[0].rstrip(".")


def _states(value: Any, key: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
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
