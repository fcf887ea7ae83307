"""The decoder of a latent model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fastdpm.core.arguments import checked_class


@checked_class
@dataclass(frozen=True)
class Decoder:
    """Decoder of a latent model: maps latent states to data.

    Attributes:
        shape: Shape of one latent state.
        decode: Maps latent states (batch, *shape) to data in [-1, 1], (batch, *data shape).
        name: Identifies the decoder in cached results. Use different names for different decoders,
            unless the network's weights include the decoder.
    """

    shape: tuple[int, ...]
    decode: Callable[[Tensor], Tensor]
    name: str = ""
