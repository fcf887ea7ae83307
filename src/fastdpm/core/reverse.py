"""First-order reverse processes: DDIM-rev, DDPM-rev and the standard T-step sampler.

Paper -> code: gamma_bar_s -> ``level**2``, kappa -> ``kappa``, sigma_s -> ``Plan.c``.
Source: Kong & Ping 2021, arXiv:2106.00132, section 3.3.
"""

from __future__ import annotations

import numpy as np

from fastdpm.core.arguments import checked
from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.levels import NoiseLevels, levels_all
from fastdpm.core.plan import Plan
from fastdpm.core.schedule import Array, VarianceSchedule


def variance(level: Array) -> Array:
    """Compute the noise variance 1 - r^2 of a level, without cancellation near r = 1."""
    return np.asarray((1 - level) * (1 + level))


@checked
def ddim_rev(levels: NoiseLevels, kappa: float = 0.0) -> Plan:
    """Compile DDIM-rev over ``levels``; ``kappa=1`` is DDPM-rev, ``kappa=0`` draws no noise.

    With r and r' the levels before and after a row, eq. 13 is

        x' = r'/r (x - sqrt(1 - r^2) eps) + sqrt(1 - r'^2 - c^2) eps + c z.

    Args:
        levels: S + 1 signal scales in sampling order (noise first) and their S network steps.
        kappa: Stochasticity in [0, 1]; the eta of DDIM.

    Returns:
        A plan of S rows.

    Raises:
        InvalidArgumentError: If ``kappa`` is outside [0, 1].

    Source: Kong & Ping 2021, arXiv:2106.00132, eq. 13.
    """
    if not 0.0 <= kappa <= 1.0:
        raise InvalidArgumentError(f"`kappa` must be in [0, 1], got {kappa}")
    r, r_next = levels.level[:-1], levels.level[1:]
    var, var_next = variance(r), variance(r_next)
    # eta is the forward variance. The terms of each sum below have one sign: nothing cancels.
    eta = (r_next - r) * (r_next + r) / r_next**2
    kept = (1 - kappa) * (1 + kappa) + kappa**2 * (r / r_next) ** 2 * var_next / var
    c = kappa * np.sqrt(var_next / var * eta)
    a = r_next / r
    b = -(c**2 + a**2 * eta) / (np.sqrt(var_next * kept) + a * np.sqrt(var))
    label = f"{_name(kappa)} over {levels.label}"
    return Plan(levels.level, levels.t, a[:, None], b[:, None], c, label, levels.notes)


@checked
def standard(schedule: VarianceSchedule, variance: str = "small") -> Plan:
    """Compile the standard DDPM sampler: DDPM-rev over all T training steps.

    Args:
        schedule: The schedule the network was trained with.
        variance: Variance of the noise of step t: "small" is the posterior variance beta~_t,
            "large" is beta_t, and "learned" interpolates between them, on a logarithmic scale, by
            the second half of the network's output channels. The last step draws no noise.

    Raises:
        InvalidArgumentError: If ``variance`` is unknown.

    Source: Ho et al. 2020, arXiv:2006.11239, section 3.2; Nichol & Dhariwal 2021,
    arXiv:2102.09672, eq. 15, for learned variances.
    """
    check_one_of("variance", variance, ("small", "large", "learned"))
    levels = levels_all(schedule)
    plan = ddim_rev(levels, kappa=1.0)
    c = plan.c
    if variance == "large":
        c = np.sqrt(schedule.betas[::-1])
        c[-1] = 0.0
    log_variance = None
    if variance == "learned":
        largest = np.log(schedule.betas[::-1])
        smallest = largest.copy()
        smallest[:-1] = 2 * np.log(c[:-1])
        log_variance = np.stack([smallest, largest], axis=1)
    kind = variance if variance == "learned" else f"fixed {variance}"
    label = f"standard sampler, {schedule.num_train_steps} steps, {kind} variance"
    return Plan(plan.level, plan.t, plan.a, plan.b, c, label, log_variance=log_variance)


def _name(kappa: float) -> str:
    return {0.0: "DDIM-rev", 1.0: "DDPM-rev"}.get(kappa, f"DDIM-rev, kappa = {kappa:g}")
