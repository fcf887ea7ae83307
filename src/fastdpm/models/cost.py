"""The cost of a network evaluation, and how many CPU threads suit it."""

from __future__ import annotations

from fastdpm.models.config import ModelConfig
from fastdpm.networks.build import PROBE_BATCH, check_fits

# With less work per thread, synchronization costs more time than threads save, especially on a
# busy machine.
_FLOPS_PER_THREAD = 1e9


def evaluation_flops(config: ModelConfig) -> float:
    """Floating-point operations of one network evaluation for one sample.

    They are counted from shapes, without evaluating the network.

    Raises:
        InvalidArgumentError: If the network cannot be built, or does not fit its data.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        check_fits(config.network, config.data)
    return float(counter.get_total_flops()) / PROBE_BATCH


def fitting_threads(flops: float, max_threads: int) -> int:
    """Number of threads for a call: one per 10^9 operations, from 1 to ``max_threads``."""
    return max(1, min(max_threads, int(flops / _FLOPS_PER_THREAD)))
