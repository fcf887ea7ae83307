"""Networks of diffusers as networks here: built from a folder, or in the memory of a pipeline."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, check_installed, check_one_of

CLASSES = ("UNet2DModel", "UNet1DModel")

_BY_HAND = "wrap it in a module of your own and open that by fastdpm.Model.wrap"
_FOREIGN = (
    ("class_embed_type", (None,), "it is not told labels of classes but something else"),
    ("time_cond_proj_dim", (None,), "it was distilled and is told its guidance"),
    ("addition_embed_type", (None, "text", "text_time"), "it is told more than text"),
    ("encoder_hid_dim_type", (None, "text_proj"), "it is told more than text"),
)


def check_unet(class_name: str, config: Mapping[str, Any]) -> None:
    """Check that a network of diffusers can be asked at real-valued steps, by what is known here.

    Args:
        class_name: Of diffusers.
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If it cannot.
    """
    embedding = config.get("time_embedding_type")
    if embedding == "learned":
        raise InvalidArgumentError(
            f"this {class_name} looks its steps up in a learned table (time_embedding_type"
            " 'learned'), which has no real-valued ones: it cannot be sampled by FastDPM"
        )
    if embedding == "fourier" and class_name != "UNet1DModel":
        raise InvalidArgumentError(
            f"this {class_name} is told noise scales, not steps (time_embedding_type 'fourier'):"
            " it cannot be sampled by FastDPM"
        )
    for key, known, why in _FOREIGN:
        if config.get(key) not in known:
            raise InvalidArgumentError(
                f"this {class_name} cannot be opened as it is, {why} ({key} {config[key]!r}):"
                f" {_BY_HAND}"
            )
    taken, given = config.get("in_channels"), config.get("out_channels")
    if taken and given and given not in (taken, 2 * taken):
        raise InvalidArgumentError(
            f"this {class_name} takes {taken} channels and returns {given}: it is told images"
            f" beside the state (inpainting, upscaling ...), {_BY_HAND}"
        )


class DiffusersNetwork(nn.Module):
    """A U-Net of diffusers, its weights under "unet.".

    It may be built on PyTorch's meta device: what it holds besides weights is computed once they
    are loaded.

    Args:
        class_name: "UNet2DModel" or "UNet1DModel".
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If it is another class, does not know an argument, or cannot be
            asked at real-valued steps.
        MissingExtraError: If diffusers is not installed.
    """

    def __init__(self, class_name: str, config: dict[str, Any]) -> None:
        super().__init__()
        check_one_of("class of a diffusers network", class_name, CLASSES)
        check_unet(class_name, config)
        check_installed("diffusers", "diffusers", "diffusers")
        self.num_classes = config.get("num_class_embeds")
        kind = getattr(importlib.import_module("diffusers"), class_name)
        unknown = sorted(config.keys() - inspect.signature(kind).parameters.keys())
        if unknown:
            raise InvalidArgumentError(
                f"{class_name} of the installed diffusers does not know {', '.join(unknown)}:"
                " install a newer one, or drop from its configuration what has no effect"
            )
        self.make: Callable[[], nn.Module] = partial(kind, **config)
        self.unet = self.make()
        self.register_load_state_dict_post_hook(_fill_buffers)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Ask the U-Net.

        Args:
            x: Shape (batch, channels, H, W), or (batch, channels, length).
            t: Zero-based real-valued steps, shape (batch,).
            labels: Of classes, shape (batch,), where it takes them.

        Returns:
            The prediction, shaped like ``x``.
        """
        given = {} if labels is None else {"class_labels": labels}
        out: Tensor = self.unet(x, t, return_dict=False, **given)[0]
        return out


def _fill_buffers(network: DiffusersNetwork, _keys: object) -> None:
    """Compute the buffers that no weights file holds (the kernels of K-blocks)."""
    lacking = {name for name, buffer in network.unet.named_buffers() if buffer.is_meta}
    if not lacking:
        return
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        fresh = network.make()
    for name, buffer in fresh.named_buffers():
        if name in lacking:
            owner, _, leaf = name.rpartition(".")
            setattr(network.unet.get_submodule(owner), leaf, buffer)
