"""Files of tensors, and whether they are the weights of a network.

A safetensors file is eight bytes of length, a JSON header and the tensors one after another, so
that it can be written piece by piece: weights that are mapped from another file are never all in
memory at once.
Source: the format's description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fastdpm.core.errors import ModelError
from fastdpm.files import write_chunks

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelError: If it is no such file or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> str:
    """Write a safetensors file tensor by tensor.

    Args:
        path: The file.
        tensors: By name; of floating point, whole numbers or truth values.
        dtype: Of the floating-point tensors in the file; their own if None.

    Returns:
        The file's SHA-256, in hexadecimal.
    """
    stored = {name: _stored_type(tensor, dtype) for name, tensor in tensors.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * stored[name].itemsize
        header[name] = {
            "dtype": _TYPES[stored[name]],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes | memoryview]:
        yield len(head).to_bytes(8, "little")
        yield head
        for name, tensor in tensors.items():
            flat = tensor.detach().to("cpu", stored[name]).contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data

    def hashed() -> Iterator[bytes | memoryview]:
        for chunk in chunks():
            digest.update(chunk)
            yield chunk

    write_chunks(path, hashed())
    return digest.hexdigest()


def _stored_type(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def put_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Put weights into a network, which may be on the meta device, as float32; evaluation mode.

    They are copied, for a file that they are mapped from may change. Names and shapes must be
    those of the network: see :func:`check_same`.
    """
    weights = {n: t.to(_stored_type(t, torch.float32), copy=True) for n, t in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def check_same(
    path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], network: str
) -> None:
    """Check that a file's tensors are those of a network, by name and shape.

    Raises:
        ModelError: If some are missing, surplus or of another shape; it lists them.
    """
    problems = [
        _listed("missing", wanted.keys() - found.keys()),
        _listed("surplus", found.keys() - wanted.keys()),
        _listed(
            "of another shape",
            (
                f"{n} {tuple(found[n].shape)} in place of {tuple(wanted[n].shape)}"
                for n in wanted.keys() & found.keys()
                if wanted[n].shape != found[n].shape
            ),
        ),
    ]
    problems.append(
        _listed(
            "that are no plain tensors of numbers",
            (f"{n}, {_kind(t)}" for n, t in found.items() if not _usable(t, wanted.get(n))),
        )
    )
    told = "; ".join(problem for problem in problems if problem)
    if told:
        raise ModelError(f"{path} does not fit {network}: {told}")


def _usable(tensor: Tensor, wanted: Tensor | None) -> bool:
    """Whether a tensor can be written, and read as what a network holds."""
    plain = tensor.layout == torch.strided and not tensor.is_meta and tensor.dtype in _TYPES
    alike = wanted is None or wanted.is_floating_point() == tensor.is_floating_point()
    return plain and alike


def _kind(tensor: Tensor) -> str:
    place = "meta " if tensor.is_meta else ""
    sparse = "" if tensor.layout == torch.strided else "sparse "
    return f"{place}{sparse}{str(tensor.dtype).removeprefix('torch.')}"


def _listed(what: str, names: Iterable[str], most: int = 4) -> str:
    ordered = sorted(names)
    if not ordered:
        return ""
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{len(ordered)} {what} ({', '.join(ordered[:most])}{rest})"
