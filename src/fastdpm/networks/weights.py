"""Whether tensors are the weights of a network, and putting them into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastdpm.core.errors import ModelError
from fastdpm.data.tensors import TYPES, stored_type


def put_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Put weights into a network, which may be on the meta device, as float32; evaluation mode.

    They are copied, for a file that they are mapped from may change. Names and shapes must be
    those of the network: see :func:`check_same`.
    """
    weights = {n: t.to(stored_type(t, torch.float32), copy=True) for n, t in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def check_same(
    path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], network: str
) -> None:
    """Check that a file's tensors are those of a network, by name and shape.

    Raises:
        ModelError: If some are missing, surplus or of another shape; it lists them.
    """
    problems = {
        "missing": list(wanted.keys() - found.keys()),
        "surplus": list(found.keys() - wanted.keys()),
        "of another shape": [
            f"{n} {tuple(found[n].shape)} in place of {tuple(wanted[n].shape)}"
            for n in wanted.keys() & found.keys()
            if wanted[n].shape != found[n].shape
        ],
        "that are no plain tensors of numbers": [
            f"{n}, {_kind(t)}" for n, t in found.items() if not _usable(t, wanted.get(n))
        ],
    }
    told = [_listed(what, sorted(names)) for what, names in problems.items() if names]
    if told:
        raise ModelError(f"{path} does not fit {network}: {'; '.join(told)}")


def _usable(tensor: Tensor, wanted: Tensor | None) -> bool:
    """Whether a tensor can be written, and read as what a network holds."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and tensor.dtype in TYPES
    alike = wanted is None or wanted.is_floating_point() == tensor.is_floating_point()
    return plain and alike


def _kind(tensor: Tensor) -> str:
    place = "meta " if tensor.is_meta else ""
    sparse = "" if tensor.layout == torch.strided else "sparse "
    return f"{place}{sparse}{str(tensor.dtype).removeprefix('torch.')}"


def _listed(what: str, names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {what} ({', '.join(names[:most])}{rest})"
