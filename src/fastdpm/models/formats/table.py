"""The published layouts that are recognised, each by a tensor that only it has.

The networks of this package carry the published names, so that no tensor is renamed; what the
shapes of a checkpoint tell of its network is read off them here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.models.formats import adm as adm_infer
from fastdpm.networks import lmnt_diffwave

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Format:
    """A published layout.

    Attributes:
        title: Whose it is, in words.
        network: The type of network that it holds.
        mark: A tensor that no other layout has.
        infer: The arguments of the network that names and shapes tell, for data of a height.
    """

    title: str
    network: str
    mark: str
    infer: Callable[[Shapes, int], dict[str, Any]]


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern's group takes among the names."""
    found = [int(m[1]) for name in shapes if (m := re.match(pattern, name))]
    return max(found, default=-1) + 1


def _ddpm(shapes: Shapes, height: int) -> dict[str, Any]:
    base = shapes["conv_in.weight"][0]
    stages = range(_count(shapes, r"down\.(\d+)\.block\."))
    widths = [shapes[f"down.{i}.block.0.conv1.weight"][0] for i in stages]
    attending = [i for i in stages if f"down.{i}.attn.0.norm.weight" in shapes]
    return {
        "image_size": height,
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "base_channels": base,
        "channel_multipliers": [width // base for width in widths],
        "num_res_blocks": _count(shapes, r"down\.0\.block\.(\d+)\."),
        "attention_resolutions": [height >> i for i in attending],
        "resample_with_conv": "down.0.downsample.conv.weight" in shapes or len(widths) == 1,
    }


def _diffwave(shapes: Shapes, _height: int) -> dict[str, Any]:
    block = "residual_layer.residual_blocks"
    embedding = "residual_layer.fc_t1.weight"
    bands = shapes.get(f"{block}.0.mel_conv.conv.weight_v")
    upsampled = range(_count(shapes, rf"{re.escape(block)}\.0\.upsample_conv2d\.(\d+)\."))
    kernels = [shapes[f"{block}.0.upsample_conv2d.{i}.weight_v"][-1] for i in upsampled]
    arguments: dict[str, Any] = {
        "res_channels": shapes["init_conv.0.conv.weight_v"][0],
        "skip_channels": shapes[f"{block}.0.skip_conv.weight_v"][0],
        "num_res_layers": _count(shapes, rf"{re.escape(block)}\.(\d+)\."),
        "embed_channels": [
            *reversed(shapes[embedding]),
            shapes["residual_layer.fc_t2.weight"][0],
        ],
    }
    if bands is not None:
        arguments |= {"mel_bands": bands[1], "mel_upsample": [k // 2 for k in kernels]}
    return arguments


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "ddpm": Format("DDPM and DDIM", "unet", "temb.dense.0.weight", _ddpm),
        "diffwave": Format(
            "DiffWave, its authors'", "diffwave", "residual_layer.fc_t1.weight", _diffwave
        ),
        "lmnt": Format(
            "DiffWave, LMNT's",
            "lmnt-diffwave",
            "diffusion_embedding.projection1.weight",
            lambda shapes, _: lmnt_diffwave.infer_arguments(shapes),
        ),
        "adm": Format(
            "improved-diffusion and guided-diffusion",
            "adm-unet",
            "time_embed.0.weight",
            adm_infer.infer_arguments,
        ),
    }
)


def infer(layout: Format, shapes: Shapes, height: int) -> dict[str, Any]:
    """What a checkpoint's shapes tell of its network.

    Raises:
        ModelError: If tensors are missing that say so.
    """
    try:
        return layout.infer(shapes, height)
    except (ModelError, LookupError, ArithmeticError, ValueError) as error:
        raise ModelError(f"its tensors are not those of {layout.title} ({error})") from None
