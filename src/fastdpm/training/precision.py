"""The precision of training."""

from __future__ import annotations

import torch

from fastdpm.sampling.processor import has_fast_bf16


def precision_on(device: torch.device, precision: str) -> str:
    """The precision that "auto" stands for: bf16 where it is faster, else float32."""
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "float32"
    return precision


def autocast_on(device: torch.device, precision: str) -> torch.autocast:
    """A context in which networks compute in a precision; see :func:`precision_on`."""
    half = precision_on(device, precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=half)
