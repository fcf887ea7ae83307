"""Masks of what is painted: read from a file, made from a time span, and checked against data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import read_bytes
from fastdpm.data.arrays import read_array
from fastdpm.data.images import read_rgba


def check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Convert a mask to booleans that broadcast to the data, with the same number of axes.

    Args:
        mask: 1 or True where to paint.
        x: The data, shape (n, *data shape).

    Raises:
        InvalidArgumentError: If the mask is not a real tensor, has the wrong size, has values
            other than 0 and 1, or selects nothing or everything.
    """
    if not isinstance(mask, Tensor) or mask.is_complex():
        found = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise InvalidArgumentError(f"`mask` must be a tensor of 0 and 1, got {found}")
    image = x.ndim == 4
    axes = 2 if image else 1
    fits = axes <= mask.ndim <= x.ndim and mask.shape[-axes:] == x.shape[-axes:]
    pairs = zip(reversed(mask.shape), reversed(x.shape), strict=False)
    if not fits or any(size not in (1, of) for size, of in pairs):
        kind = "pixels (height, width)" if image else "values"
        raise InvalidArgumentError(
            f"`mask` has shape {tuple(mask.shape)}, but the data has {tuple(x.shape[-axes:])}"
            f" {kind}: use a mask of the same size"
        )
    if mask.dtype != torch.bool:
        other = mask[(mask != 0) & (mask != 1)]
        if len(other):
            raise InvalidArgumentError(
                f"`mask` must contain only 0 (keep) and 1 (paint), got {float(other[0]):g}"
            )
    unknown = mask.bool()
    if bool(unknown.all()) or not bool(unknown.any()):
        extent = "everything" if bool(unknown.any()) else "nothing"
        raise InvalidArgumentError(
            f"`mask` selects {extent}: use 1 (white) where to paint and 0 (black) where to keep"
            " the data"
        )
    return unknown.reshape((1,) * (x.ndim - mask.ndim) + tuple(mask.shape))


def read_mask(path: Path) -> Tensor:
    """Read a mask from a black and white image, or from a .npy file of 0 and 1.

    Returns:
        Booleans of shape (height, width) for an image; the array itself for a .npy file.

    Raises:
        InvalidArgumentError: If the file does not exist or is not a mask.
    """
    if not path.is_file():
        raise InvalidArgumentError(
            f"there is no mask at {str(path)!r}: pass an image or a .npy file"
        )
    try:
        if path.suffix.lower() == ".npy":
            return torch.from_numpy(np.ascontiguousarray(read_array(path)))
        pixels = read_rgba(str(path), read_bytes(path))
    except DataError as error:  # which names the file
        raise InvalidArgumentError(str(error)) from None
    except (OSError, ValueError, TypeError) as error:
        raise InvalidArgumentError(f"{path} cannot be read as a mask: {error}") from None
    other = pixels[(pixels != 0) & (pixels != 255)]
    if other.size or (pixels[..., 3] != 255).any() or np.ptp(pixels[..., :3], axis=-1).any():
        found = f"value {other[0]}" if other.size else "colors or transparent pixels"
        raise InvalidArgumentError(
            f"{path} contains {found}: a mask must be white (255) where to paint and black (0)"
            " elsewhere, in a lossless format"
        )
    return torch.from_numpy(pixels[..., 0] == 255)


def span_mask(span: tuple[float, float], samples: int, sample_rate: int) -> Tensor:
    """Create a mask that selects a time span of a sound, shape (samples,).

    Args:
        span: Begin and end in seconds.
        samples: Number of samples of the sound.
        sample_rate: Sample rate in Hz.

    Raises:
        InvalidArgumentError: If the span is empty or not within the sound.
    """
    positions = [second * sample_rate for second in span]
    # Check the range first: infinity and NaN cannot be rounded.
    inside = all(0 <= position < samples + 1 for position in positions)
    first, last = (round(position) for position in positions) if inside else (0, 0)
    if not first < last <= samples:
        raise InvalidArgumentError(
            f"a span must be within the {samples / sample_rate:g} seconds of the sound and end"
            f" after it begins, got {span[0]:g}:{span[1]:g}"
        )
    mask = torch.zeros(samples, dtype=torch.bool, device="cpu")
    mask[first:last] = True
    return mask
