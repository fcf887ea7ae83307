"""Coefficients of the variational bound over any noise levels, in float64.

From level r to the next cleaner r', with SNR = r^2 / (1 - r^2), the posterior of the diffusion is

    q(x' | x, x0) = N(r' eta / (1 - r^2) x0 + r / r' (1 - r'^2) / (1 - r^2) x, posterior),
    posterior = (1 - r'^2) / (1 - r^2) eta,    eta = 1 - (r / r')^2,

and the model's p(x' | x) has the same mean with the x0 that its eps implies, and its own variance.
Paper -> code: r_S ... r_0 -> ``NoiseLevels.level``, eta_s -> ``forward_variances``, beta~_s ->
``BoundCoefficients.posterior``.
Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 to 13; Nichol & Dhariwal 2021, arXiv:2102.09672,
section 3.1, for the variances; here over any levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from fastdpm.core.arguments import checked, checked_class
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.reverse import variance
from fastdpm.core.schedule import Array

USUAL_GREY_LEVELS = MappingProxyType({"image": 256, "audio": 65_536})
VARIANCES = ("small", "large", "learned")


@dataclass(frozen=True)
class BoundCoefficients:
    """Coefficients of the bound's terms, in sampling order.

    Attributes:
        level: Levels at which the network is evaluated, shape (S,), noisiest first.
        t: Their zero-based steps, shape (S,).
        mean_scale: Distance between the means of q and p for an error in eps of 1,
            shape (S - 1,).
        posterior: Variance of q(x' | x, x0), shape (S - 1,).
        smallest: Lower end of the variance of p(x' | x), shape (S,): the posterior variance. The
            last row has none and uses that of the row before, as the published code does, or its
            forward variance if S = 1.
        largest: Upper end of the variance of p(x' | x), the forward variance, shape (S,).
    """

    level: Array
    t: Array
    mean_scale: Array
    posterior: Array
    smallest: Array
    largest: Array


def forward_variances(levels: NoiseLevels) -> Array:
    """Compute the variances eta of the forward process, shape (S,), noisiest row first.

    x = sqrt(1 - eta) x' + sqrt(eta) z leads from a row's cleaner state to its noisier one.

    Source: Kong & Ping 2021, arXiv:2106.00132, section 3.2.
    """
    r, r_next = levels.level[:-1], levels.level[1:]
    return np.asarray((r_next - r) * (r_next + r) / r_next**2)


def bound_coefficients(levels: NoiseLevels) -> BoundCoefficients:
    """Compute the coefficients of the bound over levels that end at clean data.

    Raises:
        InvalidArgumentError: If the last level is not 1.
    """
    if levels.level[-1] != 1:
        raise InvalidArgumentError(
            f"a likelihood needs levels that end at clean data (1), got {levels.level[-1]:.6g}:"
            " keep the last row"
        )
    eta = forward_variances(levels)
    r, r_next = levels.level[:-2], levels.level[1:-1]
    var, var_next = variance(r), variance(r_next)
    posterior = var_next / var * eta[:-1]
    mean_scale = r_next * eta[:-1] / (r * np.sqrt(var))
    last = posterior[-1] if posterior.size else eta[-1]
    smallest = np.append(posterior, last)
    return BoundCoefficients(levels.level[:-1], levels.t, mean_scale, posterior, smallest, eta)


@checked_class
@dataclass(frozen=True)
class GreyLevels:
    """The discrete values of quantized data: ``low``, ``low + step``, and so on.

    Attributes:
        count: Number of values, at least 2.
        step: Distance between neighboring values, above 0.
        low: The smallest value.

    Raises:
        InvalidArgumentError: If ``count`` or ``step`` is out of range.
    """

    count: int
    step: float
    low: float = -1.0

    def __post_init__(self) -> None:
        fits = 2 <= self.count <= 2**32 and 0 < self.step < math.inf
        if not fits or not math.isfinite(self.low):
            raise InvalidArgumentError(
                "gray levels need a `count` from 2 to 2^32, a finite `step` above 0 and a finite"
                f" `low`, got {self.count}, {self.step:g} and {self.low:g}"
            )

    @classmethod
    @checked
    def spanning(cls, count: int) -> GreyLevels:
        """Create ``count`` values from -1 to 1 inclusive, as in images."""
        return cls(count, 2 / (count - 1) if count > 1 else 0.0)

    @classmethod
    @checked
    def signed(cls, count: int) -> GreyLevels:
        """Create ``count`` values from -1 up to, but not including, 1, as in PCM audio."""
        return cls(count, 2 / count if count > 0 else 0.0)

    @property
    def high(self) -> float:
        """The largest value."""
        return self.low + (self.count - 1) * self.step
