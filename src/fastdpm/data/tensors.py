"""Reading and writing safetensors files, and checksums of tensors and files.

A safetensors file consists of an 8-byte header length, a JSON header and the tensors one after
another. It is written tensor by tensor, so that weights that are memory-mapped from another file
are never all in memory at once.
Source: the format's description, https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastdpm.core.errors import FastDPMError, InvalidArgumentError, ModelError
from fastdpm.core.limits import MAX_TENSORS, check_regular
from fastdpm.data.files import sha256 as sha256
from fastdpm.data.files import write_chunks

_WITHOUT_FLOAT64 = ("mps",)
TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def float64_device(device: torch.device) -> torch.device:
    """The device of float64 states of a network on ``device``, which may have no float64."""
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def device_of(name: str | torch.device) -> torch.device:
    """The device with a name.

    Raises:
        InvalidArgumentError: If PyTorch knows no such device.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise InvalidArgumentError(
            f"`device` must be a device of PyTorch, such as cpu or cuda, got {name!r}"
        ) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises:
        ModelError: If the file is damaged or of another format.
    """
    return read_with_head(path)[1]


def read_with_head(
    path: Path, kind: type[FastDPMError] = ModelError
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and the tensors of a safetensors file.

    Args:
        path: The file.
        kind: The error to raise if the file is damaged or of another format.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if len(names) > MAX_TENSORS:
                raise kind(
                    f"{path} holds {len(names):,} tensors: at most {MAX_TENSORS:,} are read"
                )
            tensors = {name: file.get_tensor(name) for name in names}
            return dict(file.metadata() or {}), tensors
    except (SafetensorError, OSError) as error:
        raise kind(f"{path} is not a complete safetensors file: {error}") from None


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> str:
    """Write a safetensors file tensor by tensor.

    Args:
        path: The file.
        tensors: Tensors by name, of the types in :data:`TYPES`.
        dtype: Type of the floating-point tensors in the file; None keeps their type.

    Returns:
        The SHA-256 of the file, in hexadecimal.

    Raises:
        ModelError: If a finite value is out of the range of ``dtype``.
    """
    stored = {name: stored_type(tensor, dtype) for name, tensor in tensors.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * stored[name].itemsize
        header[name] = {
            "dtype": TYPES[stored[name]],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()

    def hashed() -> Iterator[bytes | memoryview]:
        values = (tensor_bytes(_stored(n, t, stored[n])) for n, t in tensors.items())
        for chunk in chain[bytes | memoryview]([len(head).to_bytes(8, "little"), head], values):
            digest.update(chunk)
            yield chunk

    write_chunks(path, hashed())
    return digest.hexdigest()


def stored_type(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The type to store a tensor as: ``dtype`` for a floating-point one, otherwise its own."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor as it is stored; raises ModelError if that makes a finite value infinite."""
    converted = tensor.to("cpu", dtype)
    if dtype != tensor.dtype and dtype.is_floating_point:
        lost = torch.isinf(converted) & torch.isfinite(tensor.to("cpu"))
        if lost.any():
            largest = float(tensor.abs().max())
            raise ModelError(
                f"the weight {name} has values up to {largest:.4g}, but {dtype} ends at"
                f" {torch.finfo(dtype).max:.4g}: store the weights in their own type"
            )
    return converted


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor in C order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 of the type, shape and values of a tensor, in hexadecimal."""
    header = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return bytes_digest(header, tensor_bytes(tensor))


def values_digest(tensor: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a tensor's values."""
    return bytes_digest(tensor_bytes(tensor))[:16]


def bytes_digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of concatenated bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
