"""Every sampler as a row of one table.

A row puts a sampler into recipes, the command line, comparisons, the diffusers scheduler, the
documentation and the property tests. Look rows up through :func:`find` and :data:`SAMPLERS` of
this module when they are needed, so that nobody keeps a list of their own.
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
        name: In recipes and on the command line.
        title: In tables.
        family: What it is compared among, as "paper", "multistep" or "standard": a group of
            methods, and a panel of the figure of a comparison.
        function: ``function(levels) -> Plan``; ``function(levels, kappa)`` where ``takes_kappa``;
            ``function(schedule)`` where ``all_steps``.
        order: Of convergence, on exact predictions.
        summary: One line of documentation.
        takes_kappa: Whether kappa says how much noise a row draws; without it, and unless it takes
            all steps, a sampler draws none.
        history: Whether rows use the rows before them.
        all_steps: Whether it takes all T training steps as they are.
        compared: Whether the group of its family has it, and so a comparison by default; any other
            is compared where its key is given.
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
        """The plan over levels; ``kappa`` is for samplers that take it."""
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
                "DPM-Solver++ 3M as published, which is of second order",
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
                "all T training steps with the variance that the network learned",
                all_steps=True,
                compared=False,
            ),
        )
    }
)


def find(name: str) -> Sampler:
    """The sampler of this name.

    Raises:
        InvalidArgumentError: If there is none.
    """
    check_one_of("method", name, SAMPLERS)
    return SAMPLERS[name]
