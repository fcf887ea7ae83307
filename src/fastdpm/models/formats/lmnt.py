"""Checkpoints of DiffWave from LMNT.

Source: https://github.com/lmnt-com/diffwave, version 0.1.2 and later.
"""

from __future__ import annotations

from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.models.formats.format import Format, Shapes, count

_MARK = "diffusion_embedding.projection1.weight"


def infer(shapes: Shapes, _height: int | None = None) -> dict[str, Any]:
    """Infer the arguments of :class:`fastdpm.networks.lmnt_diffwave.LMNTDiffWave` from shapes.

    ``dilation_cycle_length`` and ``num_train_steps`` cannot be inferred: the step table is not
    stored.

    Args:
        shapes: Shape of every parameter, by its published name.

    Raises:
        ModelError: If tensors are missing, or the checkpoint was written by diffwave 0.1.0 or
            0.1.1, whose network has the same names but computes something else.
    """
    missing = [name for name in ("input_projection.weight", _MARK) if name not in shapes]
    layers = count(shapes, r"residual_layers\.(\d+)\.")
    if missing or not layers:
        raise ModelError(f"{', '.join(missing) or 'residual_layers'} is missing")
    if len(shapes[_MARK]) != 2:
        raise ModelError(
            "the checkpoint was written by diffwave 0.1.0 or 0.1.1, whose network is different:"
            " use weights of version 0.1.2 or later"
        )
    projection = shapes.get("residual_layers.0.conditioner_projection.weight")
    return {
        "residual_channels": shapes["input_projection.weight"][0],
        "residual_layers": layers,
        "mel_bands": None if projection is None else projection[1],
    }


FORMAT = Format("DiffWave, LMNT's", "lmnt-diffwave", _MARK, infer)
