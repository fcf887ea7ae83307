"""The sinusoidal embedding of real-valued steps."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn


def step_embedding(t: Tensor, dim: int, *, cosines_first: bool = False) -> Tensor:
    """Sines and cosines of ``t`` at ``dim // 2`` frequencies from 1 down to 1/10000.

    Args:
        t: Real-valued zero-based steps, scaled as in training, shape (batch,), float32 or float64.
        dim: Embedding size, even, at least 4.
        cosines_first: If False, sines come first, as in DDPM. If True, cosines come first, as in
            improved-diffusion, and the last frequency lies slightly above 1/10000.

    Returns:
        Shape (batch, dim), with the dtype of ``t``.

    Sources: Ho et al. 2020, arXiv:2006.11239, appendix B; Nichol & Dhariwal 2021,
    https://github.com/openai/improved-diffusion.
    """
    half = dim // 2
    # Always float32: the networks were trained with these rounding errors.
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    if cosines_first:
        angle = t[:, None] * torch.exp(-math.log(10000) * index / half)
        return torch.cat([torch.cos(angle), torch.sin(angle)], dim=1)
    angle = t[:, None] * torch.exp(index * -(math.log(10000) / (half - 1)))
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def activated(layers: Mapping[str, nn.Module], activation: nn.Module) -> nn.Sequential:
    """Named layers in sequence, each followed by ``activation``."""
    pairs = (((name, layer), (f"{name}_activation", activation)) for name, layer in layers.items())
    return nn.Sequential(OrderedDict(chain.from_iterable(pairs)))
