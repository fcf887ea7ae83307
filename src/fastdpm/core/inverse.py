"""Plans that encode: kappa = 0 run from data towards noise.

With u = sqrt(1 - r^2) / r and x~ = x / r, DDIM-rev from r (noise side) to r' is
x~' = x~ - (u - u') eps(x, t). Its inverse needs eps at the state that it looks for; the plan of
first order takes eps at the state that it has, and a two-step plan has an inverse by algebra.
Source: Song et al. 2021, arXiv:2010.02502, section 4.3, for the first order; the two-step
(leapfrog) rule with uneven steps follows from the same equation.

``ENCODINGS`` has a row for each way to encode. Look it up when it is needed, by
:func:`find_encoding` or through this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev, variance
from fastdpm.core.schedule import Array


def first_order_inverse(levels: NoiseLevels) -> Plan:
    """Encode over ``levels``, one evaluation a row.

    Each row asks the network at the cleaner state and tells it the step of the noisier level, the
    one that decoding asks at; clean data has no step of its own.

    Args:
        levels: S + 1 levels in sampling order, as :func:`fastdpm.ddim_rev` takes them.

    Returns:
        A plan of S rows whose levels fall.

    Source: Song et al. 2021, arXiv:2010.02502, section 4.3.
    """
    r = levels.level[::-1]
    decode = ddim_rev(levels)
    a = r[1:] / r[:-1]
    b = (-decode.b / decode.a)[::-1]
    label = f"first-order encoding over {levels.label}"
    zeros = np.zeros(levels.num_steps)
    t, network_level = levels.t[::-1], r[1:]
    return Plan(r, t, a[:, None], b, zeros, label, levels.notes, network_level=network_level)


def second_order_inverse(levels: NoiseLevels) -> Plan:
    """Encode over ``levels``, two evaluations a row: predict, then correct.

    The second evaluation asks at the predicted state and its own step, which is where decoding
    will ask; the row is taken again with its answer. Against the first-order plan that decodes,
    the error of a row is of third order.

    Returns:
        A plan of 2 S rows whose levels fall, each but the first given twice.
    """
    first = first_order_inverse(levels)
    rows = levels.num_steps
    a, b = np.zeros((2 * rows, 2)), np.repeat(first.b, 2, axis=0)
    a[::2, 0] = a[1::2, 1] = first.a[:, 0]
    level = np.append(first.level[0], np.repeat(first.level[1:], 2))
    t, network_level = np.repeat(first.t, 2), np.repeat(first.network_level, 2)
    label = f"second-order encoding over {levels.label}"
    return Plan(
        level, t, a, b, np.zeros(2 * rows), label, levels.notes, network_level=network_level
    )


def leapfrog_rest(levels: NoiseLevels) -> Plan:
    """Decode from a pair of states, at levels 0 and 1, by two steps.

    With h+ and h- the distances in u of a row's level to the noisier and the cleaner one,

        x~' = (h-/h+)^2 x~_before + (1 - (h-/h+)^2) x~ - h- (h+ + h-) / h+ eps(x, t).

    Returns:
        A plan of S - 1 rows; its run is given the state of level 1, and that of level 0 as past.

    Raises:
        InvalidArgumentError: If there is one row only, which leaves no pair to start from.
    """
    _check_two_rows(levels)
    a, b = _two_steps(levels.level)
    label = f"two-step plan from a pair over {levels.label}"
    zeros = np.zeros(levels.num_steps - 1)
    level, t = levels.level[1:], levels.t[1:]
    return Plan(level, t, a, b, zeros, label, levels.notes, past=levels.level[:1])


def leapfrog_inverse(levels: NoiseLevels) -> Plan:
    """Encode so that :func:`leapfrog_rest` brings the data back exactly, in exact arithmetic.

    Row 0 is of first order, whatever its error: what decoding undoes are the rows after it, and
    the last two states are the latent.

    Returns:
        A plan of S rows whose levels fall, with two columns of states.

    Raises:
        InvalidArgumentError: If there is one row only.
    """
    _check_two_rows(levels)
    first = first_order_inverse(levels)
    r = levels.level[::-1]
    a, b = _two_steps(r)
    a = np.vstack([[first.a[0, 0], 0.0], a])
    b = np.vstack([first.b[:1], b])
    # Rows after the first ask at the state's own level, which is the one decoding asks at.
    t, network_level = np.append(levels.t[-1], levels.t[:0:-1]), np.append(r[1], r[1:-1])
    label = f"two-step encoding over {levels.label}"
    return Plan(
        r, t, a, b, np.zeros(levels.num_steps), label, levels.notes, network_level=network_level
    )


@dataclass(frozen=True)
class EncodingMethod:
    """A way to encode.

    Attributes:
        name: In calls, files and on the command line.
        plan: ``plan(levels) -> Plan`` that encodes, with one row for each network evaluation; None
            where the rows of ``decoding`` are solved.
        decoding: ``decoding(levels) -> Plan`` that brings the data back.
        summary: One line of documentation.
        num_past: States that a latent holds beside the last one, as ``decoding`` wants them.
    """

    name: str
    plan: Callable[[NoiseLevels], Plan] | None
    decoding: Callable[[NoiseLevels], Plan]
    summary: str
    num_past: int = 0

    @property
    def solved(self) -> bool:
        """Whether rows are solved, row by row towards noise."""
        return self.plan is None


ENCODINGS: Mapping[str, EncodingMethod] = MappingProxyType(
    {
        row.name: row
        for row in (
            EncodingMethod(
                "first", first_order_inverse, ddim_rev, "first order, one evaluation a row"
            ),
            EncodingMethod(
                "second", second_order_inverse, ddim_rev, "second order, two evaluations a row"
            ),
            EncodingMethod("implicit", None, ddim_rev, "solved, some ten evaluations a row"),
            EncodingMethod(
                "invertible",
                leapfrog_inverse,
                leapfrog_rest,
                "exact, one evaluation a row",
                num_past=1,
            ),
        )
    }
)


def find_encoding(name: str) -> EncodingMethod:
    """The way to encode of this name.

    Raises:
        InvalidArgumentError: If there is none.
    """
    check_one_of("`method`", name, ENCODINGS)
    return ENCODINGS[name]


def noise_ratio(level: Array) -> Array:
    """The u of a level, sqrt(1 - r^2) / r."""
    return np.asarray(np.sqrt(variance(level)) / level)


def _steps(r: Array) -> Array:
    """Differences of u along levels, shape (S,)."""
    r_next, u = r[1:], noise_ratio(r)
    r = r[:-1]
    # By u^2 = 1 / r^2 - 1; the difference of two near u would cancel.
    return np.asarray((r - r_next) * (r + r_next) / (r**2 * r_next**2 * (u[:-1] + u[1:])))


def _check_two_rows(levels: NoiseLevels) -> None:
    if levels.num_steps < 2:
        raise InvalidArgumentError(
            f"the two-step plan needs at least 2 rows, these levels make {levels.num_steps}: take"
            " more steps, or encode by first order"
        )


def _two_steps(r: Array) -> tuple[Array, Array]:
    """Columns a and b of the two-step rule along levels r, from the third level on; either way."""
    step = _steps(r)
    before, after = step[:-1], step[1:]
    share = (after / before) ** 2
    a = np.stack([(1 - share) * r[2:] / r[1:-1], share * r[2:] / r[:-2]], axis=1)
    b = after * (before + after) / before * r[2:]
    return a, b[:, None]
