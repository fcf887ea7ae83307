"""Networks on patches: a square of pixels becomes the channels of one position, and back.

Source: Luhman & Luhman 2022, arXiv:2207.04316.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, whole_number


def patches_across(image_size: int, patch_size: int) -> int:
    """Number of patches in a row of an image.

    Args:
        image_size: Height and width of the image, in pixels.
        patch_size: Height and width of a patch, in pixels.

    Raises:
        InvalidArgumentError: If patches do not fill the image.
    """
    patch_size = whole_number("patch_size", patch_size)
    if patch_size < 1 or image_size % patch_size:
        raise InvalidArgumentError(
            f"`patch_size` must divide `image_size`, got {patch_size} and {image_size}"
        )
    return image_size // patch_size


def to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Map (batch, C, H, W) to (batch, C * patch_size^2, H / patch_size, W / patch_size)."""
    return x if patch_size == 1 else F.pixel_unshuffle(x, patch_size)


def from_patches(x: Tensor, patch_size: int) -> Tensor:
    """The inverse of :func:`to_patches`."""
    return x if patch_size == 1 else F.pixel_shuffle(x, patch_size)
