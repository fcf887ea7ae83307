"""What an evaluation of a network costs, and how many threads it is worth."""

from __future__ import annotations

from fastdpm.models.config import ModelConfig
from fastdpm.networks.build import PROBE_BATCH, check_fits

# Below this, threads spend more time waiting for each other than they save; far more on a busy
# machine.
_FLOPS_A_THREAD = 1e9


def evaluation_flops(config: ModelConfig) -> float:
    """Floating-point operations of one evaluation for one sample; nothing is computed for it.

    Raises:
        InvalidArgumentError: If the network cannot be built, or does not fit its data.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        check_fits(config.network, config.data)
    return float(counter.get_total_flops()) / PROBE_BATCH


def fitting_threads(flops: float, most: int) -> int:
    """Threads for calls of so many operations: one for each 10^9, from 1 to ``most``."""
    return max(1, min(most, int(flops / _FLOPS_A_THREAD)))
