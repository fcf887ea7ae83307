"""Check that tensors are the weights of a network, and load them into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastdpm.core.errors import ModelError
from fastdpm.data.tensors import TYPES, stored_type


def put_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Load weights into a network as float32, set evaluation mode and disable gradients.

    The weights are copied, because they may be memory-mapped from a file that changes later.

    Args:
        network: May be on PyTorch's meta device.
        tensors: Weights by parameter name; see :func:`check_same`.

    Returns:
        The same network.
    """
    weights = {n: t.to(stored_type(t, torch.float32), copy=True) for n, t in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def check_same(
    path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor], network: str
) -> None:
    """Check that the tensors of a file are those of a network, by name, shape and kind.

    Args:
        path: The file, for the message.
        expected: The state of the network; values are not read.
        found: The tensors of the file.
        network: The network, for the message.

    Raises:
        ModelError: If tensors are missing, unexpected, of another shape or type, or not finite.
            The message lists them.
    """
    problems = {
        "missing": list(expected.keys() - found.keys()),
        "unexpected": list(found.keys() - expected.keys()),
        "of the wrong shape": [
            f"{n} {tuple(found[n].shape)} instead of {tuple(expected[n].shape)}"
            for n in expected.keys() & found.keys()
            if expected[n].shape != found[n].shape
        ],
        "of an unsupported type": [
            f"{n}, {_kind(t)}" for n, t in found.items() if not _usable(t, expected.get(n))
        ],
        "with NaN or infinity": [n for n, t in found.items() if not _finite(t)],
    }
    faults = [_list_names(what, sorted(names)) for what, names in problems.items() if names]
    if faults:
        raise ModelError(f"{path} does not fit {network}: {'; '.join(faults)}")


def _usable(tensor: Tensor, expected: Tensor | None) -> bool:
    """Whether a tensor can be stored in a file and loaded into the network's tensor."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and tensor.dtype in TYPES
    return plain and (
        expected is None or expected.is_floating_point() == tensor.is_floating_point()
    )


def _finite(tensor: Tensor) -> bool:
    """Whether all values are finite; True for a tensor without values that can be read."""
    readable = tensor.is_floating_point() and _usable(tensor, None)
    return not readable or bool(torch.isfinite(tensor).all())


def _kind(tensor: Tensor) -> str:
    """Device, layout and dtype of a tensor in words, such as "sparse float32"."""
    place = "meta " if tensor.is_meta else ""
    sparse = "" if tensor.layout == torch.strided else "sparse "
    return f"{place}{sparse}{str(tensor.dtype).removeprefix('torch.')}"


def _list_names(what: str, names: list[str], limit: int = 4) -> str:
    """How many names there are, and the first ``limit`` of them."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{len(names)} {what} ({', '.join(names[:limit])}{rest})"
