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

from fastdpm.core.errors import check_one_of
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.multistep import dpmpp_2m, dpmpp_3m, multistep_3
from fastdpm.core.plan import Plan
from fastdpm.core.reverse import ddim_rev, standard


@dataclass(frozen=True)
class Sampler:
    """A way to compile a plan.

    Attributes:
        name: Name in recipes and on the command line.
        title: Name in tables.
        family: Group of methods in a comparison, and panel of its figure: "paper", "multistep" or
            "standard".
        function: ``function(levels) -> Plan``; with ``takes_kappa``, ``function(levels, kappa)``;
            with ``all_steps``, ``function(schedule)``.
        order: Order of convergence with exact predictions.
        summary: One line of documentation.
        takes_kappa: Whether kappa sets how much noise a row draws. Any other sampler draws none,
            unless it takes all steps.
        history: Whether rows use earlier states or predictions.
        all_steps: Whether it always takes all T training steps.
        compared: Whether its group includes it in a comparison. Any other sampler is compared
            only by its own key.
    """

    name: str
    title: str
    family: str
    function: Callable[..., Plan]
    order: int
    summary: str
    takes_kappa: bool = False
    history: bool = False
    all_steps: bool = False
    compared: bool = True

    def over(self, levels: NoiseLevels, kappa: float = 0.0) -> Plan:
        """Compile the plan over levels; ``kappa`` applies to samplers that take it."""
        return self.function(levels, kappa) if self.takes_kappa else self.function(levels)


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
            Sampler(
                "standard",
                "standard sampler",
                "standard",
                partial(standard, variance="small"),
                1,
                "all T training steps, DDPM-rev with the posterior variance",
                all_steps=True,
            ),
            Sampler(
                "standard-large",
                "standard sampler, large variance",
                "standard",
                partial(standard, variance="large"),
                1,
                "all T training steps with variance beta_t",
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
