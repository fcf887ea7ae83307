"""Checkpoints of DiffWave from its authors.

Source: https://github.com/FengNiMa/FastDPM_pytorch.
"""

from __future__ import annotations

import re
from typing import Any

from fastdpm.models.formats.format import Format, Shapes, count

_EMBEDDING = "residual_layer.fc_t1.weight"
_BLOCKS = "residual_layer.residual_blocks"


def infer(shapes: Shapes, _height: int) -> dict[str, Any]:
    """Infer the arguments of :class:`fastdpm.networks.diffwave.DiffWave` from names and shapes.

    ``dilation_cycle`` and ``step_in_residual`` cannot be inferred.

    Args:
        shapes: Shape of every parameter, by its published name.

    Raises:
        LookupError: If a tensor is missing.
    """
    first = f"{_BLOCKS}.0"
    arguments: dict[str, Any] = {
        "res_channels": shapes["init_conv.0.conv.weight_v"][0],
        "skip_channels": shapes[f"{first}.skip_conv.weight_v"][0],
        "num_res_layers": count(shapes, rf"{re.escape(_BLOCKS)}\.(\d+)\."),
        "embed_channels": [*shapes[_EMBEDDING][::-1], shapes["residual_layer.fc_t2.weight"][0]],
    }
    bands = shapes.get(f"{first}.mel_conv.conv.weight_v")
    if bands is not None:
        upsampled = range(count(shapes, rf"{re.escape(first)}\.upsample_conv2d\.(\d+)\."))
        kernels = [shapes[f"{first}.upsample_conv2d.{i}.weight_v"][-1] for i in upsampled]
        arguments |= {"mel_bands": bands[1], "mel_upsample": [k // 2 for k in kernels]}
    return arguments


FORMAT = Format(
    "DiffWave, its authors'",
    "diffwave",
    _EMBEDDING,
    infer,
    hidden=("dilation_cycle", "step_in_residual"),
)
