"""Pixels of 0 ... 255 and values of [-1, 1]."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import write_bytes

Pixels = NDArray[np.uint8]


def to_pixels(images: Tensor) -> Pixels:
    """Map (n, C, H, W) in [-1, 1] to (n, H, W, C) in 0 ... 255, C being 1 or 3."""
    if images.shape[1] not in (1, 3):
        raise InvalidArgumentError(
            f"pictures need 1 or 3 channels, got {images.shape[1]} in {tuple(images.shape)}"
        )
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return np.asarray(scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy())


def from_pixels(pixels: Pixels | Tensor) -> Tensor:
    """Map 0 ... 255 to [-1, 1], float32; any shape, and the axes as they are."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels.astype(np.float32))
    return pixels.float() / 127.5 - 1


def write_png(path: Path, pixels: Pixels) -> None:
    """Write one image, shape (H, W, C)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    write_bytes(path, buffer.getbuffer())
