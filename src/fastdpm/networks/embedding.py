"""The embeddings of real-valued steps and of class labels."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError


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


class LabelEmbedding(nn.Embedding):
    """One row for each class, and one more for "no class" if there is a null class.

    Args:
        num_classes: Number of classes, without the null class.
        null_class: Whether the label ``num_classes`` stands for "no class".
        dim: Size of a row.
    """

    def __init__(self, num_classes: int, null_class: bool, dim: int) -> None:
        super().__init__(num_classes + null_class, dim)


def make_label_embedding(
    num_classes: int | None, null_class: bool, dim: int
) -> LabelEmbedding | None:
    """The embedding of a network's labels; None for a network without classes.

    Raises:
        InvalidArgumentError: If there is a null class, but no other class.
    """
    if num_classes is None:
        if null_class:
            raise InvalidArgumentError(
                "`null_class` needs `num_classes`: set it to the number of classes"
            )
        return None
    return LabelEmbedding(num_classes, null_class, dim)


def add_labels(emb: Tensor, labels: Tensor | None, embedding: nn.Embedding | None) -> Tensor:
    """Add the embedding of labels to that of steps.

    Args:
        emb: Embedding of the steps, shape (batch, dim).
        labels: Class labels, shape (batch,), int64; None for a network without classes.
        embedding: The embedding of the labels; None for a network without classes.

    Raises:
        InvalidArgumentError: If the labels are missing, not expected, or not one per sample.
    """
    if embedding is None:
        if labels is not None:
            raise InvalidArgumentError("this network has no classes: pass no class labels")
        return emb
    if labels is None or labels.shape != emb.shape[:1]:
        got = "none" if labels is None else f"shape {tuple(labels.shape)}"
        raise InvalidArgumentError(
            f"this network needs one class label from 0 to {embedding.num_embeddings - 1} per"
            f" image: expected shape ({emb.shape[0]},), got {got}"
        )
    out: Tensor = emb + embedding(labels)
    return out
