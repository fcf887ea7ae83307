"""What a published layout of checkpoints is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Format:
    """A published layout; networks carry its names, so that no tensor is renamed.

    Attributes:
        title: Whose it is, in words.
        network: The type of network that it holds.
        mark: A tensor that no other layout has.
        infer: The arguments of the network that names and shapes tell, for data of a height;
            ModelError, LookupError, ArithmeticError or ValueError where tensors are missing.
        unstated: Given the network as far as it is known, the arguments of which a preset must
            state one, as weights do not show them; "" for none.
    """

    title: str
    network: str
    mark: str
    infer: Callable[[Shapes, int], dict[str, Any]]
    unstated: Callable[[Mapping[str, Any]], str] = lambda network: ""


def count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern's group takes among the names."""
    found = [int(m[1]) for name in shapes if (m := re.match(pattern, name))]
    return max(found, default=-1) + 1
