"""The description of a checkpoint format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Format:
    """A format of published checkpoints. Networks use its parameter names.

    Attributes:
        title: The name of the format in messages.
        network: The type of its network, a key of ``fastdpm.networks.build.NETWORKS``.
        mark: Name of a tensor that no other format has.
        infer: Maps shapes and the height of the data to the network arguments that can be
            inferred. Raises ModelError, LookupError, ArithmeticError or ValueError if tensors are
            missing.
        unstated: Maps the known network arguments to the names of arguments of which a preset
            must set one, in words; "" if there are none.
        hidden: Network arguments that change what is computed but not the shape of any tensor.
        stated: Maps the content of a file to values of a model configuration that the file itself
            states: keys of :meth:`fastdpm.models.config.ModelConfig.to_dict`, nested tables
            included. Raises InvalidArgumentError if they are unusable.
    """

    title: str
    network: str
    mark: str
    infer: Callable[[Shapes, int], dict[str, Any]]
    unstated: Callable[[Mapping[str, Any]], str] = lambda network: ""
    hidden: tuple[str, ...] = ()
    stated: Callable[[Any], dict[str, Any]] = lambda content: {}


def count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number in the group of ``pattern`` among the names; 0 if none."""
    found = [int(m[1]) for name in shapes if (m := re.match(pattern, name))]
    return max(found, default=-1) + 1
