"""More ways to choose noise levels: training steps as in diffusers, and noise scales.

The noise scale is sigma = sqrt(1 - r^2) / r, as in Karras et al. 2022 and in diffusers. Every
chain ends at clean data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.history import scales
from fastdpm.core.levels import NoiseLevels, check_num_steps, levels_of_steps, single_level
from fastdpm.core.schedule import Array, VarianceSchedule


def _leading(total: int, count: int) -> Array:
    return np.arange(count, dtype=np.float64) * (total // count)


def _leading_open(total: int, count: int) -> Array:
    return np.arange(1, count + 1, dtype=np.float64) * (total // (count + 1))


def _linspace(total: int, count: int) -> Array:
    return np.linspace(0, total - 1, count).round()


def _linspace_open(total: int, count: int) -> Array:
    return np.linspace(0, total - 1, count + 1).round()[1:]


def _trailing(total: int, count: int) -> Array:
    return np.round(np.arange(total, 0, -total / count))[:count][::-1] - 1


def _uniform(total: int, count: int) -> Array:
    return np.linspace(0, total - 1, count)


STEP_SPACINGS: Mapping[str, Callable[[int, int], Array]] = MappingProxyType(
    {
        "leading": _leading,
        "leading-open": _leading_open,
        "linspace": _linspace,
        "linspace-open": _linspace_open,
        "trailing": _trailing,
        "uniform": _uniform,
    }
)
"""Spacings of training steps by name: ``function(T, S) -> steps``, zero-based and rising."""

# The noise scales that were optimized for ten steps of Stable Diffusion 1.5; the last one, that of
# the first training step, is where its chain ends.
_ALIGNED = np.array([14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029])


@checked
def levels_spaced(schedule: VarianceSchedule, num_steps: int, spacing: str) -> NoiseLevels:
    """Choose training steps as diffusers' schedulers do, and their levels.

    Args:
        schedule: The schedule the network was trained with.
        num_steps: S, from 1 to T. S = 1 takes step T - 1.
        spacing: "leading", "linspace" or "trailing" of Lin et al. 2023, table 2, as in
            ``DDIMScheduler``; "leading-open" or "linspace-open", which are spread over S + 1 steps
            without the cleanest one, as "leading" and "linspace" are in diffusers' multistep
            schedulers; or "uniform": from T - 1 to 0, not rounded.

    Raises:
        InvalidArgumentError: If ``num_steps`` or ``spacing`` is out of range.

    Source: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    check_one_of("spacing", spacing, STEP_SPACINGS)
    check_num_steps(schedule, num_steps)
    label = f"STEP {spacing}, S = {num_steps}"
    if num_steps == 1:
        return single_level(schedule, label)
    total = schedule.num_train_steps
    t = np.clip(STEP_SPACINGS[spacing](total, num_steps), 0, total - 1)
    if t.max() == 0:
        raise InvalidArgumentError(f"{label} needs S below T, {total}: choose another spacing")
    return levels_of_steps(schedule, np.unique(t)[::-1], num_steps, label)


@checked
def levels_sigma(
    schedule: VarianceSchedule, num_steps: int, spacing: str = "karras", *, rho: float = 7.0
) -> NoiseLevels:
    """Choose noise scales between those of the first and of the last training step.

    Args:
        schedule: The schedule the network was trained with.
        num_steps: S, from 1 to T. S = 1 takes step T - 1.
        spacing: "karras" spaces the scales evenly in sigma^(1 / rho), "log-snr" in log sigma.
            "ays" interpolates the scales that Align Your Steps found for Stable Diffusion 1.5, on
            a logarithmic axis, and stretches them to the range of the schedule.
        rho: Exponent of "karras", at least 1.

    Raises:
        InvalidArgumentError: If an argument is out of range.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5; Lu et al. 2022, arXiv:2206.00927, section
    3.4 ("logSNR"); Sabour et al. 2024, arXiv:2404.14507, and their published table.
    """
    check_one_of("spacing", spacing, SIGMA_SPACINGS)
    check_num_steps(schedule, num_steps)
    if not rho >= 1:
        raise InvalidArgumentError(f"`rho` must be at least 1, got {rho:g}")
    label = f"SIGMA {spacing}, S = {num_steps}"
    if num_steps == 1:
        return single_level(schedule, label)
    ends = schedule.levels[[-1, 1]]
    low, high = np.log(scales(ends))[::-1]
    place = np.linspace(0, 1, num_steps)
    if spacing == "karras":
        first, last = np.exp(high / rho), np.exp(low / rho)
        log_sigma = rho * np.log(first + place * (last - first))
    elif spacing == "log-snr":
        log_sigma = high + place * (low - high)
    else:
        table = np.log(_ALIGNED)
        share = (table - table[-1]) / (table[0] - table[-1])
        place = np.linspace(0, 1, num_steps + 1)[:-1]
        log_sigma = low + (high - low) * np.interp(place, np.linspace(0, 1, len(share)), share)
    level = 1 / np.sqrt(1 + np.exp(2 * log_sigma))
    level[0] = ends[0]
    if spacing != "ays":
        level[-1] = ends[1]
    return NoiseLevels(np.append(level, 1.0), schedule.T(level) - 1, label)


SIGMA_SPACINGS = ("karras", "log-snr", "ays")
