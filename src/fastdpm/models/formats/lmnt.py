"""Checkpoints of DiffWave from LMNT.

Source: https://github.com/lmnt-com/diffwave, version 0.1.2 and later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, ModelError, whole_number
from fastdpm.models.formats.betas import schedule_of_betas
from fastdpm.models.formats.format import Format, Shapes, count

_MARK = "diffusion_embedding.projection1.weight"
_MEL = {"n_mels": "bands", "n_fft": "n_fft", "hop_samples": "hop_length"}


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


def stated(content: Any) -> dict[str, Any]:
    """What the ``params`` of a checkpoint state: schedules, sample rate, mel and sizes.

    As in LMNT's code, the highest mel frequency is half the sample rate.

    Args:
        content: The content of the file.

    Raises:
        InvalidArgumentError: If a value is not a number, or the betas are not in (0, 1).
    """
    params = content.get("params") if isinstance(content, Mapping) else None
    if not isinstance(params, Mapping):
        return {}
    sizes = {
        name: whole_number(f"params.{name}", value)
        for name, value in params.items()
        if name in ("sample_rate", "dilation_cycle_length", "crop_mel_frames", "audio_len", *_MEL)
        and value is not None
    }
    values: dict[str, Any] = {"network": {}, "data": {}}
    if "dilation_cycle_length" in sizes:
        values["network"]["dilation_cycle_length"] = sizes["dilation_cycle_length"]
    if params.get("noise_schedule") is not None:
        values["schedule"] = schedule_of_betas(params["noise_schedule"])
        values["network"]["num_train_steps"] = len(params["noise_schedule"])
    if params.get("inference_noise_schedule") is not None:
        values["recipe"] = {"variances": _numbers(params["inference_noise_schedule"])}
    values["data"] = _data(sizes, unconditional=bool(params.get("unconditional")))
    return values


def _data(sizes: Mapping[str, int], *, unconditional: bool) -> dict[str, Any]:
    """What is stated about the data."""
    data: dict[str, Any] = {}
    mel: dict[str, float] = {key: sizes[name] for name, key in _MEL.items() if name in sizes}
    if "sample_rate" in sizes:
        data["sample_rate"] = mel["sample_rate"] = sizes["sample_rate"]
        mel["f_max"] = sizes["sample_rate"] / 2
    if unconditional:
        length = sizes.get("audio_len")
        return data | {"mel": None} | ({} if length is None else {"shape": [1, length]})
    if {"crop_mel_frames", "hop_samples"} <= sizes.keys():
        data["shape"] = [1, sizes["crop_mel_frames"] * sizes["hop_samples"]]
    return data | ({"mel": mel} if mel else {})


def _numbers(values: Any) -> list[float]:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"`params.inference_noise_schedule` must be numbers, got {values!r}"
        ) from None


FORMAT = Format(
    "DiffWave, LMNT's",
    "lmnt-diffwave",
    _MARK,
    infer,
    hidden=("dilation_cycle_length",),
    stated=stated,
)
