"""Networks of diffusers that take an image or a series and a step, as networks here."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn

from fastdpm.core.errors import check_installed, check_one_of

CLASSES = ("UNet2DModel", "UNet1DModel")


class DiffusersNetwork(nn.Module):
    """A U-Net of diffusers, its weights under "unet.".

    Args:
        class_name: "UNet2DModel" or "UNet1DModel".
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If it is another class.
        MissingExtraError: If diffusers is not installed.
    """

    def __init__(self, class_name: str, config: dict[str, Any]) -> None:
        super().__init__()
        check_one_of("class of a diffusers network", class_name, CLASSES)
        check_installed("diffusers", "diffusers", "diffusers")
        self.unet = getattr(importlib.import_module("diffusers"), class_name)(**config)

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
