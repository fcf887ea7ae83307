"""The cost of a network evaluation, and how many samples and CPU threads suit it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.models.config import ModelConfig
from fastdpm.networks.build import PROBE_BATCH, check_fits

# With less work per thread, synchronization costs more time than threads save, especially on a
# busy machine.
_FLOPS_PER_THREAD = 1e9
_BATCH_VALUES = 2**18
_MAX_BATCH = 256


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


def fitting_batch(shape: Sequence[int]) -> int:
    """Choose a batch size for states of this shape."""
    return max(1, min(_MAX_BATCH, _BATCH_VALUES // math.prod(shape)))


def checked_batch(size: int | None, shape: Sequence[int]) -> int:
    """A batch size, or one chosen for states of this shape if it is None.

    Raises:
        InvalidArgumentError: If it is below 1.
    """
    if size is None:
        return fitting_batch(shape)
    if size < 1:
        raise InvalidArgumentError(f"`batch_size` must be at least 1, got {size}")
    return min(size, 2**31)  # more than any number of samples
