"""Sinusoidal embedding of a real-valued step, shared by the networks."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn


def step_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines then cosines of ``t`` at ``dim // 2`` frequencies from 1 down to 1/10000.

    Args:
        t: Zero-based real-valued steps, shape (batch,), float32 or float64.
        dim: Embedding size, even, at least 4.

    Returns:
        Shape (batch, dim), in the type of ``t``.

    Source: Ho et al. 2020, arXiv:2006.11239, appendix B.
    """
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(index * -(math.log(10000) / (half - 1)))
    angle = t[:, None] * frequency[None, :]
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def activated(layers: Mapping[str, nn.Module], activation: nn.Module) -> nn.Sequential:
    """Layers by the names that checkpoints have, in a row, the activation after each."""
    pairs = (((name, layer), (f"{name}_activation", activation)) for name, layer in layers.items())
    return nn.Sequential(OrderedDict(chain.from_iterable(pairs)))
