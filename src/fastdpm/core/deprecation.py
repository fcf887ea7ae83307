"""Names that changed: the old ones still work, with a DeprecationWarning."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def renamed(old: str, new: str) -> Callable[[type[T]], type[T]]:
    """Let a class take its attribute, method or argument ``new`` by the name ``old`` as well."""

    def decorate(cls: type[T]) -> type[T]:
        def read(self: T) -> Any:
            _warn(cls, old, new)
            return getattr(self, new)

        setattr(cls, old, property(read))
        if new in inspect.signature(cls).parameters:
            _rename_argument(cls, old, new)
        return cls

    return decorate


def _rename_argument(cls: type[T], old: str, new: str) -> None:
    construct: Any = cls.__init__

    @functools.wraps(construct)
    def init(self: T, *args: Any, **arguments: Any) -> None:
        if old in arguments and new not in arguments:
            _warn(cls, old, new)
            arguments[new] = arguments.pop(old)
        construct(self, *args, **arguments)

    cls.__init__ = init  # type: ignore[method-assign, assignment]


def _warn(cls: type, old: str, new: str) -> None:
    warnings.warn(
        f"`{old}` of {cls.__name__} is deprecated: use `{new}`", DeprecationWarning, stacklevel=3
    )
