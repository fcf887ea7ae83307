"""Plans that encode: DDIM-rev with kappa = 0, run from data towards noise.

With u = sqrt(1 - r^2) / r and x~ = x / r, a row of DDIM-rev from level r to the cleaner r' is

    x~' = x~ - (u - u') eps(x, t).

Inverting it exactly needs eps at the unknown noisier state x. The first-order plan evaluates the
network at the known state x' instead. The two-step (leapfrog) plan is invertible by algebra.
Source: Song et al. 2021, arXiv:2010.02502, section 4.3, for the first-order plan; the leapfrog
rule with uneven steps follows from the same equation.

:data:`ENCODINGS` is the table of encoding methods. Look rows up there by :func:`find_encoding`
when you need them.
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
    """Compile first-order encoding over ``levels``, one evaluation per row.

    Each row evaluates the network at its cleaner state, but with the step of its noisier level, as
    decoding does; clean data has no step.

    Args:
        levels: S + 1 levels in sampling order, as :func:`fastdpm.ddim_rev` takes them.

    Returns:
        A plan of S rows with falling levels.

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
    """Compile second-order encoding over ``levels``, two evaluations per row.

    The first evaluation predicts the noisier state. The second one is made at that state and its
    step, as decoding does, and the row is repeated with its result. Compared to the first-order
    plan that decodes, the local error is of third order.

    Returns:
        A plan of 2 S rows with falling levels; each level except the first occurs twice.
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
    """Compile two-step (leapfrog) decoding from a pair of states at levels 0 and 1.

    With h+ and h- the distances in u from a row's level to the noisier and to the cleaner one,

        x~' = (h-/h+)^2 x~_before + (1 - (h-/h+)^2) x~ - h- (h+ + h-) / h+ eps(x, t).

    Returns:
        A plan of S - 1 rows, which starts from the state at level 1 with the state at level 0 as
        ``past``.

    Raises:
        InvalidArgumentError: If S = 1.
    """
    _check_two_rows(levels)
    a, b = _two_steps(levels.level)
    label = f"two-step plan from a pair over {levels.label}"
    zeros = np.zeros(levels.num_steps - 1)
    level, t = levels.level[1:], levels.t[1:]
    return Plan(level, t, a, b, zeros, label, levels.notes, past=levels.level[:1])


def leapfrog_inverse(levels: NoiseLevels) -> Plan:
    """Compile two-step (leapfrog) encoding, which :func:`leapfrog_rest` inverts exactly.

    Row 0 is of first order. Its error does not matter: decoding only has to undo the other rows,
    from the last two states, which are the latent. Exactly means up to rounding.

    Returns:
        A plan of S rows with falling levels and two columns of states.

    Raises:
        InvalidArgumentError: If S = 1.
    """
    _check_two_rows(levels)
    first = first_order_inverse(levels)
    r = levels.level[::-1]
    a, b = _two_steps(r)
    a = np.vstack([[first.a[0, 0], 0.0], a])
    b = np.vstack([first.b[:1], b])
    # Rows after the first evaluate the network at the state's own level, as decoding does.
    t, network_level = np.append(levels.t[-1], levels.t[:0:-1]), np.append(r[1], r[1:-1])
    label = f"two-step encoding over {levels.label}"
    return Plan(
        r, t, a, b, np.zeros(levels.num_steps), label, levels.notes, network_level=network_level
    )


@dataclass(frozen=True)
class EncodingMethod:
    """A way to encode data.

    Attributes:
        name: Name in calls, in files and on the command line.
        plan: ``plan(levels) -> Plan`` that encodes; None if the rows of ``decoding`` are inverted
            numerically.
        decoding: ``decoding(levels) -> Plan`` that decodes.
        summary: One line of documentation.
        num_past: Number of states in a latent besides the last one, which ``decoding`` needs.
    """

    name: str
    plan: Callable[[NoiseLevels], Plan] | None
    decoding: Callable[[NoiseLevels], Plan]
    summary: str
    num_past: int = 0

    @property
    def solved(self) -> bool:
        """Whether the rows of ``decoding`` are inverted numerically."""
        return self.plan is None


ENCODINGS: Mapping[str, EncodingMethod] = MappingProxyType(
    {
        row.name: row
        for row in (
            EncodingMethod(
                "first", first_order_inverse, ddim_rev, "first order, one evaluation per row"
            ),
            EncodingMethod(
                "second", second_order_inverse, ddim_rev, "second order, two evaluations per row"
            ),
            EncodingMethod("implicit", None, ddim_rev, "numerical, about ten evaluations per row"),
            EncodingMethod(
                "invertible",
                leapfrog_inverse,
                leapfrog_rest,
                "exact, one evaluation per row",
                num_past=1,
            ),
        )
    }
)


def find_encoding(name: str) -> EncodingMethod:
    """Look up an encoding method by name.

    Raises:
        InvalidArgumentError: If there is no such method.
    """
    check_one_of("method", name, ENCODINGS)
    return ENCODINGS[name]


def noise_ratio(level: Array) -> Array:
    """Compute u = sqrt(1 - r^2) / r of a level."""
    return np.asarray(np.sqrt(variance(level)) / level)


def _steps(r: Array) -> Array:
    """Differences of u between neighboring levels, shape (S,)."""
    r_next, u = r[1:], noise_ratio(r)
    r = r[:-1]
    # From u^2 = 1 / r^2 - 1: subtracting the u of close levels would cancel.
    return np.asarray((r - r_next) * (r + r_next) / (r**2 * r_next**2 * (u[:-1] + u[1:])))


def _check_two_rows(levels: NoiseLevels) -> None:
    if levels.num_steps < 2:
        raise InvalidArgumentError(
            f"two-step encoding needs at least 2 steps, got {levels.num_steps}: use more steps, or"
            " another `method`"
        )


def _two_steps(r: Array) -> tuple[Array, Array]:
    """Tables a and b of the two-step rule along levels r, in either direction."""
    step = _steps(r)
    before, after = step[:-1], step[1:]
    share = (after / before) ** 2
    a = np.stack([(1 - share) * r[2:] / r[1:-1], share * r[2:] / r[:-2]], axis=1)
    b = after * (before + after) / before * r[2:]
    return a, b[:, None]
