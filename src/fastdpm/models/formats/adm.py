"""What the names and shapes of a checkpoint tell of improved- and guided-diffusion's U-Net."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.models.formats.format import Format, Shapes, count

_MARK = "time_embed.0.weight"
_FOREIGN = "the weights are not those of an improved-diffusion or guided-diffusion U-Net:"


def infer(shapes: Shapes, image_size: int | None = None) -> dict[str, Any]:
    """Read from the names and shapes of a state what they decide of its network.

    They do not tell num_heads, num_head_channels, num_heads_upsample, new_attention_order, dropout
    and image_size, which come from a preset. Left out as well are conv_resample where
    resblock_updown is true, and both where there is one stage: nothing depends on them there.

    Args:
        shapes: Shape of every parameter, by its published name.
        image_size: Height and width, if known.

    Returns:
        Arguments by name, as JSON would have them; whole multipliers are int. Where attention
        stands is told as "attention_stages", counted from 0; given ``image_size``, as
        "attention_resolutions" from the largest down, beside "image_size", so that
        ``ADMUNet(**infer(shapes, size), num_heads=4)`` has these shapes.

    Raises:
        ModelError: If it is no state of such a U-Net.
    """
    width = _shape(shapes, _MARK, 2)[1]
    blocks = count(shapes, r"input_blocks\.(\d+)\..+") or 1
    changes = _changes(shapes, blocks)
    per_stage = changes.pop("per_stage")
    if per_stage < 2 or blocks % per_stage:
        raise ModelError(f"{_FOREIGN} {blocks} input blocks do not divide into stages")
    stages = range(0, blocks, per_stage)
    wide = [_shape(shapes, f"input_blocks.{i + 1}.0.in_layers.2.weight", 4)[0] for i in stages]
    attention = _found(shapes, r"input_blocks\.(\d+)\.1\.qkv\.weight")
    attends = sorted({(n - 1) // per_stage for n in attention})
    told = _shape(shapes, "input_blocks.1.0.emb_layers.1.weight", 2)[0]
    labels = "label_emb.weight"
    arguments = {
        "in_channels": _shape(shapes, "input_blocks.0.0.weight", 4)[1],
        "out_channels": _shape(shapes, "out.2.weight", 4)[0],
        "model_channels": width,
        "channel_mult": [_multiplier(w, width) for w in wide],
        "num_res_blocks": per_stage - 1,
        "use_scale_shift_norm": told == 2 * wide[0],
        "num_classes": _shape(shapes, labels, 2)[0] if labels in shapes else None,
        **changes,
    }
    if image_size is None:
        return arguments | {"attention_stages": attends}
    heights = [image_size >> stage for stage in attends]
    return arguments | {"image_size": image_size, "attention_resolutions": heights}


def _multiplier(channels: int, unit: int) -> float:
    """What gives ``channels`` when it multiplies ``unit`` and fractions are rounded down."""
    if channels % unit == 0:
        return channels // unit
    ratio = channels / unit
    return ratio if int(unit * ratio) == channels else math.nextafter(ratio, math.inf)


def _changes(shapes: Shapes, total: int) -> dict[str, Any]:
    """How the resolution changes, and the number of input blocks from one change to the next."""
    # A block that halves has the names of any other; one that doubles follows another block.
    blocks = _found(shapes, r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight")
    if blocks:
        return {"per_stage": min(blocks) + 1, "resblock_updown": True}
    convolutions = _found(shapes, r"input_blocks\.(\d+)\.0\.op\.weight")
    pooled = set(range(total)) - _found(shapes, r"input_blocks\.(\d+)\..+")
    if not convolutions | pooled:
        return {"per_stage": total}
    return {
        "per_stage": min(convolutions | pooled),
        "resblock_updown": False,
        "conv_resample": bool(convolutions),
    }


def _found(shapes: Shapes, pattern: str) -> set[int]:
    """The number in every name that has the pattern."""
    return {int(match[1]) for name in shapes if (match := re.fullmatch(pattern, name))}


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) != axes or 0 in shape:
        raise ModelError(f"{_FOREIGN} {name} is missing or has another shape")
    return shape


def _unstated(network: Mapping[str, Any]) -> str:
    heads = network.keys() & {"num_heads", "num_head_channels"}
    if heads or not network["attention_resolutions"]:
        return ""
    return "num_heads or num_head_channels"


FORMAT = Format(
    "improved-diffusion and guided-diffusion", "adm-unet", _MARK, infer, unstated=_unstated
)
