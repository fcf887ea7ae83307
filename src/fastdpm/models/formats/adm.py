"""Checkpoints of the U-Net of improved-diffusion and guided-diffusion.

Source: https://github.com/openai/improved-diffusion; https://github.com/openai/guided-diffusion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.models.formats.format import Format, Shapes, count

_MARK = "time_embed.0.weight"
_NOT_ADM = "the weights are not those of an improved-diffusion or guided-diffusion U-Net:"


def infer(shapes: Shapes, image_size: int | None = None) -> dict[str, Any]:
    """Infer the arguments of :class:`fastdpm.networks.adm_unet.ADMUNet` from shapes.

    ``num_heads``, ``num_head_channels``, ``num_heads_upsample``, ``new_attention_order``,
    ``dropout`` and ``image_size`` cannot be inferred; they come from a preset. ``conv_resample``
    is omitted if ``resblock_updown`` is True, and both are omitted for a single stage, because
    they have no effect there.

    Args:
        shapes: Shape of every parameter, by its published name.
        image_size: Height and width in pixels, or None if unknown.

    Returns:
        Arguments by name, as JSON values; integral multipliers are int. With ``image_size``, it
        and "attention_resolutions" (from the largest down) are included, so that
        ``ADMUNet(**infer(shapes, size), num_heads=4)`` has these shapes. Without it, the stages
        with attention are returned as "attention_stages", counted from 0.

    Raises:
        ModelError: If the shapes are not those of such a U-Net.
    """
    width = _shape(shapes, _MARK, 2)[1]
    blocks = count(shapes, r"input_blocks\.(\d+)\..+") or 1
    changes = _changes(shapes, blocks)
    per_stage = changes.pop("per_stage")
    if per_stage < 2 or blocks % per_stage:
        raise ModelError(f"{_NOT_ADM} {blocks} input blocks do not divide into stages")
    stages = range(0, blocks, per_stage)
    widths = [_shape(shapes, f"input_blocks.{i + 1}.0.in_layers.2.weight", 4)[0] for i in stages]
    attention = _numbers(shapes, r"input_blocks\.(\d+)\.1\.qkv\.weight")
    attends = sorted({(n - 1) // per_stage for n in attention})
    emb_width = _shape(shapes, "input_blocks.1.0.emb_layers.1.weight", 2)[0]
    labels = "label_emb.weight"
    arguments = {
        "in_channels": _shape(shapes, "input_blocks.0.0.weight", 4)[1],
        "out_channels": _shape(shapes, "out.2.weight", 4)[0],
        "model_channels": width,
        "channel_mult": [_multiplier(w, width) for w in widths],
        "num_res_blocks": per_stage - 1,
        "use_scale_shift_norm": emb_width == 2 * widths[0],
        "num_classes": _shape(shapes, labels, 2)[0] if labels in shapes else None,
        **changes,
    }
    if image_size is None:
        return arguments | {"attention_stages": attends}
    heights = [image_size >> stage for stage in attends]
    return arguments | {"image_size": image_size, "attention_resolutions": heights}


def _multiplier(channels: int, unit: int) -> float:
    """The number m with int(m * unit) == channels; an int if possible."""
    if channels % unit == 0:
        return channels // unit
    ratio = channels / unit
    return ratio if int(unit * ratio) == channels else math.nextafter(ratio, math.inf)


def _changes(shapes: Shapes, total: int) -> dict[str, Any]:
    """How the network resamples, and "per_stage", the number of input blocks per stage."""
    # A downsampling block has the same names as any other, but an upsampling one follows a block.
    blocks = _numbers(shapes, r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight")
    if blocks:
        return {"per_stage": min(blocks) + 1, "resblock_updown": True}
    convolutions = _numbers(shapes, r"input_blocks\.(\d+)\.0\.op\.weight")
    pooled = set(range(total)) - _numbers(shapes, r"input_blocks\.(\d+)\..+")
    if not convolutions | pooled:
        return {"per_stage": total}
    return {
        "per_stage": min(convolutions | pooled),
        "resblock_updown": False,
        "conv_resample": bool(convolutions),
    }


def _numbers(shapes: Shapes, pattern: str) -> set[int]:
    """The number in every name that matches the pattern."""
    return {int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))}


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor; raises ModelError unless it has ``axes`` axes."""
    shape = tuple(shapes.get(name, ()))
    if len(shape) != axes or 0 in shape:
        raise ModelError(f"{_NOT_ADM} {name} is missing or has another shape")
    return shape


def _unstated(network: Mapping[str, Any]) -> str:
    """The arguments of which a preset must set one; see :class:`Format`."""
    heads = network.keys() & {"num_heads", "num_head_channels"}
    if heads or not network["attention_resolutions"]:
        return ""
    return "num_heads or num_head_channels"


FORMAT = Format(
    "improved-diffusion and guided-diffusion",
    "adm-unet",
    _MARK,
    infer,
    unstated=_unstated,
    hidden=("num_heads", "num_head_channels", "num_heads_upsample", "new_attention_order"),
)
