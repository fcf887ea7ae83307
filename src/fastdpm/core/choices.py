"""The table of ways to choose noise levels.

Look rows up here when you need them, and keep no copy of the list elsewhere: a new row then
appears everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from fastdpm.core.errors import check_one_of
from fastdpm.core.levels import NoiseLevels, levels_step, levels_var
from fastdpm.core.spacings import levels_sigma, levels_spaced


@dataclass(frozen=True)
class LevelChoice:
    """A way to choose S levels.

    Attributes:
        levels: First part of the name: "var", "step" or "sigma".
        spacing: Second part of the name, such as "linear" or "quadratic".
        function: ``function(schedule, num_steps) -> NoiseLevels``, with levels in the range of the
            schedule. It also accepts ``bounded=False`` if ``bounded`` is true.
        summary: One line of documentation.
        bounded: Whether the variances have a bound, which ``bounded=False`` lifts.
        takes_start: Whether the function takes ``start``, the share of T to start at.
        compared: Whether a group of a comparison includes it. Any other choice is compared only by
            the keys of methods.
    """

    levels: str
    spacing: str
    function: Callable[..., NoiseLevels]
    summary: str
    bounded: bool = False
    takes_start: bool = False
    compared: bool = True

    @property
    def name(self) -> str:
        """Both parts of the name, as in the keys of methods: "var-linear"."""
        return f"{self.levels}-{self.spacing}"

    @property
    def title(self) -> str:
        """Both parts of the name, as in tables: "VAR linear"."""
        return f"{self.levels.upper()} {self.spacing}"


_STEPS = MappingProxyType(
    {
        "leading": "training steps 0, k, 2 k ... with k = T // S, as in diffusers' DDIM",
        "leading-open": "training steps k, 2 k ... with k = T // (S + 1), as in diffusers' UniPC",
        "linspace": "training steps spread over 0 ... T - 1, rounded, as in diffusers' DDIM",
        "linspace-open": "S + 1 such steps without step 0, as in diffusers' UniPC",
        "trailing": "training steps T - 1, T - 1 - T / S ..., rounded, as in diffusers",
        "uniform": "steps spread over 0 ... T - 1, not rounded",
    }
)
_SIGMAS = MappingProxyType(
    {
        "karras": "noise scales whose seventh roots are evenly spaced",
        "log-snr": "noise scales whose logarithms are evenly spaced",
        "ays": "noise scales like those of Align Your Steps for Stable Diffusion 1.5",
    }
)


CHOICES: Mapping[str, LevelChoice] = MappingProxyType(
    {
        row.name: row
        for row in (
            LevelChoice(
                "var",
                "linear",
                partial(levels_var, spacing="linear"),
                "variances that rise linearly",
                bounded=True,
            ),
            LevelChoice(
                "var",
                "quadratic",
                partial(levels_var, spacing="quadratic"),
                "variances whose square roots rise linearly",
                bounded=True,
            ),
            LevelChoice(
                "step",
                "linear",
                partial(levels_step, spacing="linear"),
                "training steps spread evenly over 0 ... T - 1",
            ),
            LevelChoice(
                "step",
                "quadratic",
                partial(levels_step, spacing="quadratic"),
                "training steps up to 0.8 T (or `start`), denser towards clean data",
                takes_start=True,
            ),
            *(
                LevelChoice(
                    levels, spacing, partial(function, spacing=spacing), summary, compared=False
                )
                for levels, function, spacings in (
                    ("step", levels_spaced, _STEPS),
                    ("sigma", levels_sigma, _SIGMAS),
                )
                for spacing, summary in spacings.items()
            ),
        )
    }
)


def find_choice(levels: str, spacing: str) -> LevelChoice:
    """Look up a choice of levels by its two names.

    Raises:
        InvalidArgumentError: If there is no such choice.
    """
    check_one_of("levels", levels, level_names())
    check_one_of("spacing", spacing, spacing_names(levels))
    return CHOICES[f"{levels}-{spacing}"]


def complete_choice(levels: str, spacing: str, changes: Mapping[str, Any]) -> dict[str, str]:
    """Both names after one of them was changed, perhaps to one that the other does not go with.

    Args:
        levels: The name of the levels before.
        spacing: The name of the spacing before.
        changes: What was changed, with or without "levels" and "spacing".

    Returns:
        "levels" and "spacing". If only one was changed and the other does not go with it, that is
        the first that does.
    """
    names = {"levels": levels, "spacing": spacing} | {
        name: changes[name] for name in ("levels", "spacing") if name in changes
    }
    if f"{names['levels']}-{names['spacing']}" in CHOICES:
        return names
    for row in CHOICES.values():
        fits = {"levels": row.levels, "spacing": row.spacing}
        if all(fits[name] == changes[name] for name in fits if name in changes):
            return fits
    return names


def level_names() -> list[str]:
    """Names that ``levels`` can have."""
    return list(dict.fromkeys(row.levels for row in CHOICES.values()))


def spacing_names(levels: str | None = None) -> list[str]:
    """Names that ``spacing`` can have, for all choices or for one value of ``levels``."""
    rows = [row for row in CHOICES.values() if levels in (None, row.levels)]
    return list(dict.fromkeys(row.spacing for row in rows))
