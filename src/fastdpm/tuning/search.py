"""The search for levels: a small family first, then one level after the other.

Each level has a step of its own, which grows while it leads to something better.

Every candidate has its coefficients in closed form, and rows before the level that changes are not
run again. Few noises choose among the family, and more of them decide from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from fastdpm.core.errors import SamplingError
from fastdpm.core.schedule import Array
from fastdpm.tuning.closed_form import fit
from fastdpm.tuning.noises import Noises
from fastdpm.tuning.rollout import Learned, Rollout, gap, lowest

_FIRST_STEP, _LAST_STEP = 0.5, 0.03  # in lambda
_LONGER, _SHORTER = 1.5, 0.4  # after a move that is better, and after two that are not
# The first and last lambda of the family, as shares of the teacher's range, and its powers.
_STARTS, _ENDS, _POWERS = (0.0, 0.15, 0.3), (0.55, 0.7, 0.85), (0.75, 1.0, 1.3)
_KEPT = 3  # of the family


@dataclass(frozen=True, eq=False)
class Candidate:
    """Levels with their coefficients, their run, and its distance to the teacher's samples."""

    learned: Learned
    rollout: Rollout
    loss: float


def search_levels(
    few: Noises, noises: Noises, num_steps: int, stop: Callable[[float], bool]
) -> Candidate:
    """Find levels whose samples are near the teacher's.

    Args:
        few: Noises that choose among the family.
        noises: Noises that decide.
        num_steps: S.
        stop: Called with the best loss after each candidate; ends the search if it returns True.

    Raises:
        SamplingError: If the network returns unusable values for every family of levels.
    """
    low, high = lowest(noises.predict.schedule), noises.paths.end
    smallest = gap(noises.predict.schedule, num_steps)
    family = _ranked(few, _family(num_steps, low, high, smallest))
    best = next(iter(_ranked(noises, [one.learned.log_snr for one in family[:_KEPT]])), None)
    if best is None:
        raise SamplingError(
            "the network returns values that are not finite, or grow without bound, from"
            f" {num_steps} steps: check its weights and precision"
        )
    if stop(best.loss):
        return best
    steps = np.full(num_steps, _FIRST_STEP)
    while np.any(np.abs(steps) >= _LAST_STEP):
        for s in np.flatnonzero(np.abs(steps) >= _LAST_STEP):
            better = _nearer(noises, best, int(s), float(steps[s]), low, high)
            steps[s] *= _SHORTER if better is None else _LONGER
            if better is not None:
                steps[s] *= better[1]
                best = better[0]
            if stop(best.loss):
                return best
    return best


def _nearer(
    noises: Noises, best: Candidate, s: int, step: float, low: float, high: float
) -> tuple[Candidate, int] | None:
    """The better one of two moves of a level, the first that is, and its sign."""
    for sign in (1, -1):
        moved = best.learned.log_snr.copy()
        moved[s] = max(moved[s] + sign * step, low)
        near = np.any(np.diff(moved) < gap(noises.predict.schedule, len(moved)))
        if near or moved[-1] > high:
            continue
        found = _candidate(noises, moved, (best.learned, best.rollout, s))
        if found is not None and found.loss < best.loss:
            return found, sign
    return None


def _ranked(noises: Noises, family: Iterable[Array]) -> list[Candidate]:
    """The candidates whose values are finite, the best first."""
    found = (_candidate(noises, log_snr) for log_snr in family)
    return sorted((one for one in found if one is not None), key=lambda one: one.loss)


def _candidate(
    noises: Noises,
    log_snr: Array,
    before: tuple[Learned, Rollout, int] | None = None,
) -> Candidate | None:
    """The fit for some levels; None if the network returns unusable values."""
    try:
        learned, rollout = fit(noises.predict, noises.paths, log_snr, before=before)
    except SamplingError:
        return None
    loss = noises.distance(rollout.final)
    return Candidate(learned, rollout, loss) if math.isfinite(loss) else None


def _family(num_steps: int, low: float, high: float, smallest: float) -> Iterator[Array]:
    """Levels between some first and last ones, spaced by some powers, that are apart enough."""
    place = np.linspace(0, 1, num_steps)
    for start in _STARTS:
        for end in _ENDS if num_steps > 1 else _ENDS[:1]:
            for power in _POWERS if num_steps > 2 else (1.0,):
                found = low + (high - low) * (start + (end - start) * place**power)
                if np.all(np.diff(found) >= smallest):
                    yield found
