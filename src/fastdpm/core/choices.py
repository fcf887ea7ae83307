"""Every choice of levels as a row of one table.

Look rows up through this module when they are needed, so that nobody keeps a list of their own.
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
        levels: Its first name, as "var" or "step".
        spacing: Its second name, as "linear" or "quadratic".
        function: ``function(schedule, num_steps) -> NoiseLevels``, and ``bounded=False`` where it
            has a bound. Its levels are within the range of the schedule's.
        summary: One line of documentation.
        bounded: Whether it has a bound that ``bounded=False`` lifts.
    """

    levels: str
    spacing: str
    function: Callable[..., NoiseLevels]
    summary: str
    bounded: bool = False

    @property
    def name(self) -> str:
        """Both names, as keys of methods have them."""
        return f"{self.levels}-{self.spacing}"

    @property
    def title(self) -> str:
        """Both names, as tables have them."""
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
    """The choice of these two names.

    Raises:
        InvalidArgumentError: If there is none.
    """
    check_one_of("levels", levels, level_names())
    check_one_of("spacing", spacing, spacing_names(levels))
    return CHOICES[f"{levels}-{spacing}"]


def level_names() -> list[str]:
    """What ``levels`` may be."""
    return list(dict.fromkeys(row.levels for row in CHOICES.values()))


def spacing_names(levels: str | None = None) -> list[str]:
    """What ``spacing`` may be, beside any ``levels`` or these."""
    rows = [row for row in CHOICES.values() if levels in (None, row.levels)]
    return list(dict.fromkeys(row.spacing for row in rows))
