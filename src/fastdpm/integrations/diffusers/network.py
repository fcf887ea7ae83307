"""The network of a pipeline as a torch module with one condition tensor, and decoding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError

LABELS, HIDDEN, POOLED, SIZES = "class_labels", "hidden_states", "text_embeds", "time_ids"
"""Parts of a condition: labels, token embeddings, pooled text embeddings and sizes in pixels."""


Conditions = dict[str, tuple[Tensor, Tensor | None]]
"""By part: m conditions, shape (m, ...), and the unconditional input for guidance, (1, ...)."""


def check_conditions(conditions: Conditions) -> None:
    """Raise InvalidArgumentError unless all parts have the same number m and matching shapes."""
    counts = {name: len(part) for name, (part, _) in conditions.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise InvalidArgumentError(f"all conditions must have the same number, got {found}")
    for name, (part, empty) in conditions.items():
        if empty is not None and empty.shape[1:] != part.shape[1:]:
            raise InvalidArgumentError(
                f"the empty {name} must have the shape of one condition,"
                f" {tuple(part.shape[1:])}, got {tuple(empty.shape[1:])}"
            )


def pack(parts: Iterable[Tensor | None]) -> Tensor | None:
    """Join the parts of a condition, each (m, ...), into one tensor (m, ...); None without parts.

    A single part keeps its shape and dtype. Several are flattened to float32, which represents
    labels below 2**24 exactly.
    """
    on_cpu = [part.detach().cpu() for part in parts if part is not None]
    if len(on_cpu) < 2:
        return on_cpu[0] if on_cpu else None
    return torch.cat([part.float().reshape(len(part), -1) for part in on_cpu], dim=1)


class PipelineNetwork(nn.Module):
    """The network of a pipeline, evaluated at real-valued steps in its own precision.

    Neither ``unet`` nor ``vae`` is changed. A network in training mode is evaluated in evaluation
    mode and set back after each call.

    Args:
        unet: The network.
        vae: The decoder of its states, or None. It is held here only so that its weights are part
            of the model's identity.
        conditions: The conditions of the network.
    """

    def __init__(self, unet: nn.Module, vae: nn.Module | None, conditions: Conditions) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.shapes = {name: tuple(part.shape[1:]) for name, (part, _) in conditions.items()}
        self.training = False  # only this module; the mode of ``unet`` and ``vae`` stays

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: States, shape (batch, ...).
            t: Real-valued zero-based steps, shape (batch,).
            condition: Packed conditions, shape (batch, ...); see :func:`pack`.

        Returns:
            The prediction, in the dtype of ``x``.
        """
        unet: Any = self.unet
        parts = {} if condition is None else self._unpacked(condition)
        kwargs: dict[str, Any] = {}
        if LABELS in parts:
            kwargs["class_labels"] = parts[LABELS].long()
        if HIDDEN in parts:
            kwargs["encoder_hidden_states"] = parts[HIDDEN].to(unet.dtype)
        if POOLED in parts:
            added = {POOLED: parts[POOLED].to(unet.dtype), SIZES: parts[SIZES]}
            kwargs["added_cond_kwargs"] = added
        with eval_mode(unet):
            out: Tensor = unet(x.to(unet.dtype), t, return_dict=False, **kwargs)[0]
        return out.to(x)

    def _unpacked(self, condition: Tensor) -> dict[str, Tensor]:
        """The parts of packed conditions, each of shape (batch, ...)."""
        if len(self.shapes) == 1:
            return dict.fromkeys(self.shapes, condition)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split_with_sizes(condition, sizes, dim=1)
        return {
            name: part.reshape(len(part), *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }


def decode(vae: Any, latents: Tensor, batch_size: int = 1) -> Tensor:
    """Decode latent states to data in [-1, 1].

    Args:
        vae: A VAE of diffusers. Its configuration states how latents are scaled.
        latents: Shape (batch, channels, H, W).
        batch_size: Number of states decoded at a time, which limits memory.

    Returns:
        Shape (batch, channels, height, width), with the dtype of ``latents``.
    """
    config = vae.config
    z = latents / config.scaling_factor
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shape = (1, -1, 1, 1)
        mean, std = (z.new_tensor(config[f"latents_{k}"]).reshape(shape) for k in ("mean", "std"))
        z = z * std + mean
    z = z + (config.get("shift_factor") or 0.0)
    parts = z.to(vae.device, vae.dtype).split(batch_size)
    with eval_mode(vae):
        decoded = [vae.decode(part, return_dict=False)[0].to(latents) for part in parts]
    return torch.cat(decoded)


def check_halves(kind: str, config: Mapping[str, Any], sides: Sequence[int]) -> None:
    """Raise InvalidArgumentError unless every stage of a U-Net halves the state evenly."""
    stages = len(config.get("block_out_channels", ()))
    factor = 2 ** max(stages - 1, 0)
    if kind.startswith("UNet2D") and any(side % factor for side in sides):
        raise InvalidArgumentError(
            f"`sample_size` must be a multiple of {factor}, because {kind} halves it"
            f" {stages - 1} times, got {' x '.join(map(str, sides))}"
        )


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode inside the block, then restore the mode of each part."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
