"""Colors, markers and lines of the curves of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from fastdpm.core.text import visible
from fastdpm.evaluation.cells import Row

INK, SOFT, BEHIND, ENVELOPE = "#222222", "#666666", "#dcdcdc", "#a6a6a6"
SMALL, NORMAL = 8.0, 9.5  # points
WIDTH, EDGE = 8.0, 0.08  # inches; a page shows the width as about 800 pixels
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#9A7500", "#3BA3DB", "#8B4513", "#332288")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


@dataclass(frozen=True)
class Look:
    """How a curve is drawn; ``filled`` is about its markers."""

    color: str
    line: str
    marker: str
    filled: bool = True

    @property
    def style(self) -> dict[str, Any]:
        """Arguments of matplotlib."""
        return {
            "color": self.color,
            "linestyle": self.line,
            "marker": self.marker,
            "markerfacecolor": self.color if self.filled else "white",
            "markersize": 4.5,
            "linewidth": 1.5,
        }


# STEP and VAR differ in color; linear and quadratic in the marker.
_CHOICES = {
    "STEP linear": Look("#D55E00", "-", "o"),
    "STEP quadratic": Look("#E8A05C", "--", "s", filled=False),
    "VAR linear": Look("#0072B2", "-", "o"),
    "VAR quadratic": Look("#4FB3E8", "--", "s", filled=False),
    "": Look("#222222", "-", "o"),
    "leading": Look("#009E73", "-", "o"),
    "linspace": Look("#AA4499", "-", "D"),
    "trailing": Look("#332288", "-", "^"),
    "karras": Look("#9A7500", "-", "v"),
}


def looks_by_row(rows: Sequence[Row], listed: Sequence[str]) -> list[Look]:
    """A look for each of a few rows.

    Args:
        rows: The rows of a figure.
        listed: Names of all rows of the comparison, so that a method usually looks the same in all
            figures of a comparison.
    """
    size, used, looks = len(_COLORS), set[int](), []
    for row in rows:
        place = listed.index(row.name) % size
        place = next((i % size for i in range(place, place + size) if i % size not in used), place)
        used.add(place)
        looks.append(Look(_COLORS[place], "-", _MARKERS[place]))
    return looks


def looks_by_choice(choices: Iterable[str]) -> dict[str, Look]:
    """A look for each choice of levels or steps, the same in all groups."""
    names = list(dict.fromkeys(choices))
    known = [_CHOICES[name] for name in names if name in _CHOICES]
    new = (look for i in count() if (look := _numbered(i)) not in known)
    return {name: _CHOICES.get(name) or next(new) for name in names}


def _numbered(i: int) -> Look:
    """The look of the choice number ``i`` of those without one of their own."""
    line = ("-", "--", "-.", ":")[i // len(_COLORS) % 4]
    return Look(_COLORS[i % len(_COLORS)], line, _MARKERS[i % len(_MARKERS)])


def escaped(text: str) -> str:
    """A text of one or more lines that matplotlib shows as it is, without mathematics."""
    return "\n".join(map(visible, text.split("\n"))).replace("$", r"\$")
