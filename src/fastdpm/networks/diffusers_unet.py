"""U-Nets of diffusers: which ones can be sampled, and building one from its configuration."""

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

_USE_WRAP = "wrap it in your own torch module and pass that to fastdpm.Model.wrap"
_UNSUPPORTED = (  # key, supported values, what any other value means
    ("class_embed_type", (None,), "its class embedding takes an input other than class labels"),
    ("time_cond_proj_dim", (None,), "it is distilled and takes the guidance scale as an input"),
    ("addition_embed_type", (None, "text", "text_time"), "it takes other inputs besides text"),
    ("encoder_hid_dim_type", (None, "text_proj"), "it takes other inputs besides text"),
)


def check_unet(class_name: str, config: Mapping[str, Any]) -> None:
    """Check that a diffusers network can be evaluated at real-valued steps.

    Args:
        class_name: Name of a diffusers model class.
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If the network cannot be evaluated at real-valued steps, or takes
            inputs that are not supported here.
    """
    embedding = config.get("time_embedding_type")
    if embedding == "learned":
        raise InvalidArgumentError(
            f"this {class_name} cannot be sampled by FastDPM: its learned step embedding"
            " (time_embedding_type 'learned') is only defined at integer steps"
        )
    if embedding == "fourier" and class_name != "UNet1DModel":
        raise InvalidArgumentError(
            f"this {class_name} cannot be sampled by FastDPM: it takes noise scales instead of"
            " steps (time_embedding_type 'fourier')"
        )
    for key, supported, reason in _UNSUPPORTED:
        if config.get(key) not in supported:
            raise InvalidArgumentError(
                f"this {class_name} cannot be opened directly because {reason}"
                f" ({key} {config[key]!r}): {_USE_WRAP}"
            )
    inputs, outputs = config.get("in_channels"), config.get("out_channels")
    if inputs and outputs and outputs not in (inputs, 2 * inputs):
        raise InvalidArgumentError(
            f"this {class_name} takes {inputs} channels and returns {outputs}, so it takes images"
            f" besides the state (inpainting, upscaling ...): {_USE_WRAP}"
        )


class DiffusersNetwork(nn.Module):
    """A U-Net of diffusers, whose parameter names start with "unet.".

    It can be built on PyTorch's meta device. Buffers that no weights file holds are computed when
    the weights are loaded.

    Args:
        class_name: "UNet2DModel" or "UNet1DModel".
        config: Arguments of that class.
        null_class: Whether its last label stands for "no class"; it is not counted as a class.

    Raises:
        InvalidArgumentError: If the class is not supported, an argument is unknown, or the
            network cannot be evaluated at real-valued steps.
        MissingExtraError: If diffusers is not installed.
    """

    def __init__(self, class_name: str, config: dict[str, Any], null_class: bool = False) -> None:
        super().__init__()
        check_one_of("class of a diffusers network", class_name, CLASSES)
        check_unet(class_name, config)
        check_installed("diffusers", "diffusers", "diffusers")
        rows = config.get("num_class_embeds")
        if null_class and not rows:
            raise InvalidArgumentError("`null_class` needs a network with classes: drop it")
        self.num_classes = rows - null_class if rows else rows
        kind = getattr(importlib.import_module("diffusers"), class_name)
        unknown = sorted(config.keys() - inspect.signature(kind).parameters.keys())
        if unknown:
            raise InvalidArgumentError(
                f"{class_name} of the installed diffusers has no argument {', '.join(unknown)}:"
                " install a newer diffusers, or remove arguments without effect from the"
                " configuration"
            )
        self.make: Callable[[], nn.Module] = partial(kind, **config)
        self.unet = self.make()
        self.register_load_state_dict_post_hook(_fill_buffers)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Evaluate the U-Net.

        Args:
            x: States, shape (batch, channels, H, W) or (batch, channels, length).
            t: Real-valued zero-based steps, shape (batch,).
            class_labels: Shape (batch,), int64; required if the U-Net has classes.

        Returns:
            The prediction: the shape of ``x``, or twice its channels with a learned variance.
        """
        kwargs = {} if class_labels is None else {"class_labels": class_labels}
        out: Tensor = self.unet(x, t, return_dict=False, **kwargs)[0]
        return out


def _fill_buffers(network: DiffusersNetwork, _keys: object) -> None:
    """Compute the buffers that no weights file holds, such as the kernels of K-blocks."""
    missing = {name for name, buffer in network.unet.named_buffers() if buffer.is_meta}
    if not missing:
        return
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        new = network.make()
    for name, buffer in new.named_buffers():
        if name in missing:
            owner, _, leaf = name.rpartition(".")
            setattr(network.unet.get_submodule(owner), leaf, buffer)
