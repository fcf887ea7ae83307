"""Conversion between 8-bit pixels in 0 ... 255 and values in [-1, 1]."""

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
    """Map images (n, C, H, W) in [-1, 1] to uint8 pixels (n, H, W, C) in 0 ... 255.

    Values outside [-1, 1] are clipped; others are rounded to the nearest pixel value.

    Raises:
        InvalidArgumentError: If C is neither 1 nor 3.
    """
    if images.shape[1] not in (1, 3):
        raise InvalidArgumentError(
            f"an image file needs 1 or 3 channels, got {images.shape[1]} in shape"
            f" {tuple(images.shape)}"
        )
    scaled = (images.detach().float().clamp(-1, 1) + 1) * 127.5
    return np.asarray(scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy())


def from_pixels(pixels: Pixels | Tensor) -> Tensor:
    """Map pixels in 0 ... 255 to [-1, 1], float32. Any shape; axes are not moved."""
    if isinstance(pixels, np.ndarray):
        pixels = torch.from_numpy(pixels.astype(np.float32))
    return pixels.float() / 127.5 - 1


def write_png(path: Path, pixels: Pixels) -> None:
    """Write one image, uint8, shape (H, W, C) with C 1 or 3, as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    write_bytes(path, buffer.getbuffer())
