"""What a processor computes quickly."""

from __future__ import annotations

import torch


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device multiplies matrices in bf16 faster than in float32.

    GPUs do, and processors with AMX or AVX-512 BF16.
    """
    if device.type != "cpu":
        return device.type == "cuda"
    read = getattr(torch.cpu, "get_capabilities", None)  # missing in older versions
    capabilities = read() if read is not None else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
