"""The table of samplers.

A row adds a sampler to recipes, the command line, comparisons, the diffusers scheduler, the
documentation and the property tests. Look rows up here by :func:`find` when you need them, and
keep no copy of the list elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from fastdpm.core.adams import deis_log_rho, deis_tab, ipndm
from fastdpm.core.errors import check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.multistep import (
    adams_bashforth,
    dpmpp_2m,
    dpmpp_3m,
    multistep_3,
    sde_dpmpp_2m,
)
from fastdpm.core.plan import Plan
from fastdpm.core.restart import restart
from fastdpm.core.reverse import ddim_rev, standard
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.singlestep import dpm_solver_2, heun
from fastdpm.core.unipc import unipc

TUNED = "tuned"
"""The method of a model's tuned plans, which belong to no recipe."""


def _as_many(num_evaluations: int) -> int:
    """One step for each evaluation."""
    return num_evaluations


def _half(num_evaluations: int) -> int:
    """Steps of two evaluations; an odd number of evaluations ends with a step of one."""
    return (num_evaluations + 1) // 2


def _three_quarters(num_evaluations: int) -> int:
    """Steps of a chain of which a quarter of all evaluations repeats the last ones."""
    return num_evaluations - num_evaluations // 4


@dataclass(frozen=True)
class Sampler:
    """A way to compile a plan.

    Attributes:
        name: Name in recipes and on the command line.
        title: Name in tables.
        family: Group of methods in a comparison, and panel of its figure: "paper", "multistep",
            "singlestep" or "standard".
        function: ``function(levels) -> Plan``. With ``takes_kappa`` it also takes kappa, with
            ``takes_schedule`` the schedule, and where ``steps`` is not one for each evaluation
            ``num_evaluations``. With ``all_steps``, ``function(schedule)``.
        order: Order of convergence with exact predictions.
        summary: One line of documentation.
        takes_kappa: Whether kappa sets how much noise a row draws.
        takes_schedule: Whether the function needs the schedule.
        draws_noise: Whether rows draw noise without kappa.
        history: Whether rows use earlier states or predictions.
        all_steps: Whether it always takes all T training steps.
        compared: Whether its group includes it in a comparison. Any other sampler is compared
            only by its own key.
        steps: Number of levels for a number of network evaluations.
    """

    name: str
    title: str
    family: str
    function: Callable[..., Plan]
    order: int
    summary: str
    takes_kappa: bool = False
    takes_schedule: bool = False
    draws_noise: bool = False
    history: bool = False
    all_steps: bool = False
    compared: bool = True
    steps: Callable[[int], int] = _as_many

    @property
    def one_step_each(self) -> bool:
        """Whether every network evaluation takes a step to the next level."""
        return self.steps is _as_many

    def _counts(self, num_evaluations: int, levels: NoiseLevels) -> bool:
        """Whether the number is an argument of the function: no levels were merged."""
        return not self.one_step_each and self.steps(num_evaluations) == levels.num_steps

    def over(
        self,
        levels: NoiseLevels,
        schedule: VarianceSchedule,
        kappa: float = 0.0,
        num_evaluations: int | None = None,
    ) -> Plan:
        """Compile the plan over levels.

        Args:
            levels: The levels.
            schedule: The schedule that they belong to.
            kappa: For samplers that take it.
            num_evaluations: Rows of the plan, of which :attr:`steps` says how many levels they
                need. By default, the sampler chooses.
        """
        options: dict[str, Any] = {}
        if self.takes_kappa:
            options["kappa"] = kappa
        if self.takes_schedule:
            options["schedule"] = schedule
        if num_evaluations is not None and self._counts(num_evaluations, levels):
            options["num_evaluations"] = num_evaluations
        return self.function(levels, **options)


def _rows_of(
    name: str,
    title: str,
    function: Callable[..., Plan],
    orders: Mapping[int, int],
    summary: str,
    *,
    takes_schedule: bool = False,
) -> list[Sampler]:
    """Multistep samplers of one function, by its argument ``order`` and the order they have."""
    return [
        Sampler(
            f"{name}-{order}",
            f"{title} {order}",
            "multistep",
            partial(function, order=order),
            found,
            summary,
            history=True,
            compared=False,
            takes_schedule=takes_schedule,
        )
        for order, found in orders.items()
    ]


SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        row.name: row
        for row in (
            Sampler(
                "ddim-rev",
                "DDIM-rev",
                "paper",
                ddim_rev,
                1,
                "the paper's reverse process; kappa = 1 is DDPM-rev",
                takes_kappa=True,
            ),
            Sampler(
                "dpmpp-2m",
                "DPM-Solver++ 2M",
                "multistep",
                dpmpp_2m,
                2,
                "DPM-Solver++ 2M over any levels",
                history=True,
            ),
            Sampler(
                "dpmpp-3m",
                "DPM-Solver++ 3M",
                "multistep",
                dpmpp_3m,
                2,
                "DPM-Solver++ 3M as published, which converges with order 2",
                history=True,
            ),
            Sampler(
                "multistep-3",
                "third-order multistep",
                "multistep",
                multistep_3,
                3,
                "DPM-Solver++ 3M with its second difference doubled",
                history=True,
            ),
            *_rows_of(
                "unipc",
                "UniPC",
                unipc,
                {2: 3, 3: 4},
                "UniPC with B(h) = e^h - 1: a predictor, and a corrector without more evaluations",
            ),
            *_rows_of(
                "unipc-bh1",
                "UniPC bh1",
                partial(unipc, variant="bh1"),
                {2: 3, 3: 4},
                "UniPC with B(h) = h",
            ),
            *_rows_of(
                "ipndm",
                "iPNDM",
                ipndm,
                {2: 2, 3: 2, 4: 2},
                "DDIM with the noise that Adams-Bashforth of equal steps extrapolates",
            ),
            *_rows_of(
                "deis",
                "DEIS log-rho",
                deis_log_rho,
                {2: 2, 3: 3, 4: 4},
                "DEIS: the noise extrapolated in the logarithm of the noise scale",
            ),
            *_rows_of(
                "deis-tab",
                "DEIS tAB",
                deis_tab,
                {2: 2, 3: 3, 4: 4},
                "DEIS: the noise extrapolated in the network's step",
                takes_schedule=True,
            ),
            *_rows_of(
                "adams",
                "Adams-Bashforth",
                adams_bashforth,
                {2: 2, 4: 4},
                "the clean data extrapolated in log-SNR, with exact weights",
            ),
            Sampler(
                "sde-dpmpp-2m",
                "SDE-DPM-Solver++ 2M",
                "multistep",
                sde_dpmpp_2m,
                1,
                "DPM-Solver++ 2M of the reverse SDE, which draws noise",
                draws_noise=True,
                history=True,
                compared=False,
            ),
            Sampler(
                "heun",
                "Heun",
                "singlestep",
                heun,
                2,
                "the mean of the predictions at both ends of a step",
                takes_schedule=True,
                history=True,
                compared=False,
                steps=_half,
            ),
            Sampler(
                "dpm-solver-2",
                "DPM-Solver-2",
                "singlestep",
                dpm_solver_2,
                2,
                "the prediction in the middle of a step",
                takes_schedule=True,
                history=True,
                compared=False,
                steps=_half,
            ),
            Sampler(
                "restart",
                "restart",
                "singlestep",
                restart,
                1,
                "DDIM-rev that draws new noise near the end and repeats the last steps",
                draws_noise=True,
                compared=False,
                steps=_three_quarters,
            ),
            Sampler(
                "standard",
                "standard sampler",
                "standard",
                partial(standard, variance="small"),
                1,
                "all T training steps, DDPM-rev with the posterior variance",
                draws_noise=True,
                all_steps=True,
            ),
            Sampler(
                "standard-large",
                "standard sampler, large variance",
                "standard",
                partial(standard, variance="large"),
                1,
                "all T training steps with variance beta_t",
                draws_noise=True,
                all_steps=True,
                compared=False,
            ),
            Sampler(
                "standard-learned",
                "standard sampler, learned variance",
                "standard",
                partial(standard, variance="learned"),
                1,
                "all T training steps with the network's learned variance",
                draws_noise=True,
                all_steps=True,
                compared=False,
            ),
        )
    }
)


def find(name: str) -> Sampler:
    """Look up a sampler by name.

    Raises:
        InvalidArgumentError: If there is no such sampler.
    """
    check_one_of("method", name, SAMPLERS)
    return SAMPLERS[name]


def method_names() -> tuple[str, ...]:
    """The samplers by name, and the method of tuned plans."""
    return (*SAMPLERS, TUNED)
