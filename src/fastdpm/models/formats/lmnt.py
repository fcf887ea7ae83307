"""DiffWave as LMNT published it.

Source: https://github.com/lmnt-com/diffwave, version 0.1.2 and later.
"""

from __future__ import annotations

from typing import Any

from fastdpm.core.errors import ModelError
from fastdpm.models.formats.format import Format, Shapes, count

_MARK = "diffusion_embedding.projection1.weight"


def infer(shapes: Shapes, _height: int | None = None) -> dict[str, Any]:
    """The arguments of :class:`fastdpm.networks.lmnt_diffwave.LMNTDiffWave` that shapes tell.

    They tell nothing of ``dilation_cycle_length`` and ``num_train_steps``: the table of steps is
    not stored.

    Raises:
        ModelError: If tensors are missing that say so, or the state was written by diffwave 0.1.0
            or 0.1.1, whose network had the same names and computed something else.
    """
    missing = [name for name in ("input_projection.weight", _MARK) if name not in shapes]
    layers = count(shapes, r"residual_layers\.(\d+)\.")
    if missing or not layers:
        raise ModelError(f"it lacks {', '.join(missing) or 'residual_layers'}")
    if len(shapes[_MARK]) != 2:
        raise ModelError(
            "it was written by diffwave 0.1.0 or 0.1.1, whose network computes something else:"
            " take weights of version 0.1.2 or later"
        )
    projection = shapes.get("residual_layers.0.conditioner_projection.weight")
    return {
        "residual_channels": shapes["input_projection.weight"][0],
        "residual_layers": layers,
        "mel_bands": None if projection is None else projection[1],
    }


FORMAT = Format("DiffWave, LMNT's", "lmnt-diffwave", _MARK, infer)
