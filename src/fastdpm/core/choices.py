"""The table of ways to choose noise levels.

Look rows up here when you need them, and keep no copy of the list elsewhere: a new row then
appears everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from fastdpm.core.errors import check_one_of
from fastdpm.core.levels import NoiseLevels, levels_step, levels_var


@dataclass(frozen=True)
class LevelChoice:
    """A way to choose S levels.

    Attributes:
        levels: First part of the name: "var" or "step".
        spacing: Second part of the name: "linear" or "quadratic".
        function: ``function(schedule, num_steps) -> NoiseLevels``, with levels in the range of the
            schedule. It also accepts ``bounded=False`` if ``bounded`` is true.
        summary: One line of documentation.
        bounded: Whether the variances have a bound, which ``bounded=False`` lifts.
    """

    levels: str
    spacing: str
    function: Callable[..., NoiseLevels]
    summary: str
    bounded: bool = False

    @property
    def name(self) -> str:
        """Both parts of the name, as in the keys of methods: "var-linear"."""
        return f"{self.levels}-{self.spacing}"

    @property
    def title(self) -> str:
        """Both parts of the name, as in tables: "VAR linear"."""
        return f"{self.levels.upper()} {self.spacing}"


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
                "training steps up to 0.8 T, denser towards clean data",
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


def level_names() -> list[str]:
    """Names that ``levels`` can have."""
    return list(dict.fromkeys(row.levels for row in CHOICES.values()))


def spacing_names(levels: str | None = None) -> list[str]:
    """Names that ``spacing`` can have, for all choices or for one value of ``levels``."""
    rows = [row for row in CHOICES.values() if levels in (None, row.levels)]
    return list(dict.fromkeys(row.spacing for row in rows))
