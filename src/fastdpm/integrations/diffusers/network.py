"""The network of a pipeline in memory, as one here: conditions, guidance, its own precision."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.sampling.network import call_network
from fastdpm.sampling.prediction import Guidance

LABELS, HIDDEN, POOLED, SIZES = "class_labels", "hidden_states", "text_embeds", "time_ids"
"""Parts of a condition: labels of classes, texts token by token, whole texts, sizes in pixels."""


Given = dict[str, tuple[Tensor, Tensor | None]]
"""By part, one for each of m conditions, shape (m, ...), and what to guide away from, (1, ...)."""


def check_given(given: Given) -> None:
    """Raise InvalidArgumentError unless the parts of a condition fit together."""
    counts = {name: len(part) for name, (part, _) in given.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise InvalidArgumentError(f"each sample needs one of each condition, got {told}")
    for name, (part, empty) in given.items():
        if empty is not None and empty.shape[1:] != part.shape[1:]:
            raise InvalidArgumentError(
                f"empty {name} must have the shape of one condition, {tuple(part.shape[1:])},"
                f" got {tuple(empty.shape[1:])}"
            )


def pack(parts: Iterable[Tensor | None]) -> Tensor | None:
    """All parts in one tensor of shape (m, ...), as a model keeps them; None for none.

    A single one stays as it is; several are float32, which holds labels below 2**24.
    """
    on_cpu = [part.detach().cpu() for part in parts if part is not None]
    if len(on_cpu) < 2:
        return on_cpu[0] if on_cpu else None
    return torch.cat([part.float().reshape(len(part), -1) for part in on_cpu], dim=1)


class PipelineNetwork(nn.Module):
    """A network that a pipeline holds, as one here: real steps, its own precision, guidance.

    Neither network is changed. Of one in training mode the mode is put back after each call.

    Args:
        unet: The network.
        vae: What decodes its states, so that its weights tell results apart; None for none.
        given: What it is told beside state and step.
        scale: Of guidance; None for none.
    """

    empty: Tensor | None

    def __init__(
        self, unet: nn.Module, vae: nn.Module | None, given: Given, scale: float | None
    ) -> None:
        super().__init__()
        self.unet, self.vae = unet, vae
        self.scale = 1.0 if scale is None else scale
        self.shapes = {name: tuple(part.shape[1:]) for name, (part, _) in given.items()}
        empty = None if scale is None else pack(empty for _, empty in given.values())
        self.register_buffer("empty", empty)
        self.training = False  # of this module alone

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Ask the network.

        Args:
            x: States, shape (batch, ...).
            t: Zero-based real-valued steps, shape (batch,); handed over as they are.
            condition: Packed, shape (batch, ...).

        Returns:
            The prediction, guided if there is guidance, in the type of ``x``.
        """
        if self.empty is None or condition is None:
            return call_network(self._ask, x, t, condition)
        empty = self.empty.to(condition).expand_as(condition)
        return Guidance(self._ask, condition, empty, self.scale)(x, t)

    def _ask(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        unet: Any = self.unet
        parts = {} if condition is None else self._unpacked(condition)
        given: dict[str, Any] = {}
        if LABELS in parts:
            given["class_labels"] = parts[LABELS].long()
        if HIDDEN in parts:
            given["encoder_hidden_states"] = parts[HIDDEN].to(unet.dtype)
        if POOLED in parts:
            texts = {POOLED: parts[POOLED].to(unet.dtype), SIZES: parts[SIZES]}
            given["added_cond_kwargs"] = texts
        with evaluating(unet):
            out: Tensor = unet(x.to(unet.dtype), t, return_dict=False, **given)[0]
        return out.to(x)

    def _unpacked(self, condition: Tensor) -> dict[str, Tensor]:
        """The parts of some conditions, shape (batch, ...)."""
        if len(self.shapes) == 1:
            return dict.fromkeys(self.shapes, condition)
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = torch.split_with_sizes(condition, sizes, dim=1)
        return {
            name: part.reshape(len(part), *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }


def decode(vae: Any, latents: Tensor, at_once: int = 1) -> Tensor:
    """The data in [-1, 1] of latent states, some at a time, in the type of ``latents``.

    Args:
        vae: Of diffusers; its configuration says how states are scaled.
        latents: Shape (batch, channels, H, W).
        at_once: How many are decoded at a time, which bounds memory.
    """
    config = vae.config
    z = latents / config.scaling_factor
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shape = (1, -1, 1, 1)
        mean, std = (z.new_tensor(config[f"latents_{k}"]).reshape(shape) for k in ("mean", "std"))
        z = z * std + mean
    z = z + (config.get("shift_factor") or 0.0)
    parts = z.to(vae.device, vae.dtype).split(at_once)
    with evaluating(vae):
        decoded = [vae.decode(part, return_dict=False)[0].to(latents) for part in parts]
    return torch.cat(decoded)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards each part is in the mode that it was in."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
