"""Checkpoints of the DDPM U-Net: its PyTorch port, and DDIM.

Source: https://github.com/pesser/pytorch_diffusion; https://github.com/ermongroup/ddim.
"""

from __future__ import annotations

from typing import Any

from fastdpm.models.formats.format import Format, Shapes, count


def infer(shapes: Shapes, height: int) -> dict[str, Any]:
    """Infer the arguments of :class:`fastdpm.networks.unet.UNet` from names and shapes.

    ``dropout`` and ``num_groups`` cannot be inferred.

    Args:
        shapes: Shape of every parameter, by its published name.
        height: Height of the images, in pixels.

    Raises:
        LookupError: If a tensor is missing.
    """
    base = shapes["conv_in.weight"][0]
    stages = range(count(shapes, r"down\.(\d+)\.block\."))
    widths = [shapes[f"down.{i}.block.0.conv1.weight"][0] for i in stages]
    attending = [i for i in stages if f"down.{i}.attn.0.norm.weight" in shapes]
    return {
        "image_size": height,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "base_channels": base,
        "channel_multipliers": [width // base for width in widths],
        "num_res_blocks": count(shapes, r"down\.0\.block\.(\d+)\."),
        "attention_resolutions": [height >> i for i in attending],
        "resample_with_conv": "down.0.downsample.conv.weight" in shapes or len(widths) == 1,
    }


FORMAT = Format("DDPM and DDIM", "unet", "temb.dense.0.weight", infer, hidden=("num_groups",))
