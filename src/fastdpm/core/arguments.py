"""Checks of public arguments against their annotations, once, where they enter.

:func:`checked` decorates public functions and classes. A value of another type is converted where
nothing is lost (10.0 or a NumPy integer to an int, an iterator to a list), else refused in one
line: what it is, what was expected, and what was passed. Ranges are the functions' own checks.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastdpm.core.errors import InvalidArgumentError, shown, whole_number

_T = TypeVar("_T", bound=Callable[..., Any])
_C = TypeVar("_C", bound=type)


class _Unfit(Exception):  # noqa: N818
    """A value does not fit an annotation."""


def checked(function: _T) -> _T:
    """Check the arguments of a function, and convert them, by its annotations."""
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # diffusers passes on keys of its own, which begin with an underscore.
        own = {name: value for name, value in kwargs.items() if name[0] != "_"}
        try:
            bound = signature.bind(*args, **own)
        except TypeError:
            return function(*args, **kwargs)  # Python's own error for names and their number
        if not hints:
            hints.update(_hints(function))
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = fitted(name, value, hints[name])
        values = bound.arguments
        positional = list(values.values())[: len(args)]
        return function(*positional, **{name: values.get(name, kwargs[name]) for name in kwargs})

    return typing.cast(_T, call)


def checked_class(cls: _C) -> _C:
    """Check the arguments with which a class is called; see :func:`checked`."""
    cls.__init__ = checked(cls.__init__)  # type: ignore[misc]
    return cls


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of a function; those of arrays as the word "array"."""
    raw = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    arrays = {name for name, hint in raw.items() if "ArrayLike" in str(hint)}
    place: Any = inspect.unwrap(function)
    hints = typing.get_type_hints(
        types.SimpleNamespace(__annotations__=raw), globalns=place.__globals__
    )
    for name in arrays & hints.keys():
        hints[name] = "array or None" if "None" in str(raw[name]) else "array"
    return hints


def fitted(name: str, value: Any, hint: Any) -> Any:
    """Return an argument as its annotation has it.

    Raises:
        InvalidArgumentError: If it does not fit.
    """
    try:
        return _fitted(value, hint)
    except _Unfit:
        raise InvalidArgumentError(
            f"`{name}` must be {_described(hint)}, got {shown(value)}"
        ) from None


def _fitted(value: Any, hint: Any) -> Any:
    if isinstance(hint, str):
        return None if value is None and "None" in hint else _array(value)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _of_any(value, typing.get_args(hint))
    if hint in _SIMPLE:
        return _SIMPLE[hint](value)
    if origin in _GENERIC:
        return _GENERIC[origin](value, typing.get_args(hint))
    if hasattr(hint, "from_argument"):
        value = hint.from_argument(value)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise _Unfit
    if getattr(value, "is_meta", False):  # a tensor without numbers
        raise _Unfit
    return value


def _of_any(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return _fitted(value, hint)
        except _Unfit:
            continue
    raise _Unfit


def _whole(value: Any) -> int:
    try:
        return whole_number("", value)
    except InvalidArgumentError:
        raise _Unfit from None


def _real(value: Any) -> float:
    if not is_number(value):
        raise _Unfit
    return value if type(value) in (int, float) else float(value)


def is_number(value: Any) -> bool:
    """Whether a value is one real number, of Python, NumPy or PyTorch, and no bool."""
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    dtype = str(getattr(value, "dtype", ""))
    real = any(kind in dtype for kind in ("int", "float"))
    return real and getattr(value, "ndim", None) == 0 and getattr(value, "is_meta", False) is False


def _flag(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise _Unfit


def _nothing(value: Any) -> None:
    if value is not None:
        raise _Unfit


def _path(value: Any) -> Path:
    if isinstance(value, str | os.PathLike) and "\0" not in os.fspath(value):
        return Path(value)
    raise _Unfit


def _text(value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise _Unfit


def _array(value: Any) -> Any:
    """Real numbers of any shape, float64."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
        array = np.asarray(list(value) if isinstance(value, collections.abc.Iterator) else value)
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        raise _Unfit from None
    if array.dtype.kind not in "iuf" and array.size:
        raise _Unfit
    return array.astype(np.float64)


def _typed_array(value: Any, hints: tuple[Any, ...]) -> Any:
    """Numbers for an array of float64; for one of any type, an array as it is."""
    if typing.get_args(hints[1])[0] is np.float64:
        return _array(value)
    return value if isinstance(value, np.ndarray) else _refuse()


def _items(value: Any, hints: tuple[Any, ...]) -> Any:
    """A sequence; a range stays as it is."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, collections.abc.Iterable):
        raise _Unfit
    if isinstance(value, range) or getattr(value, "ndim", 1) == 0:
        return value if isinstance(value, range) and hints[0] in (int, float) else _refuse()
    kind = hints[0] if hints else Any
    return [_fitted(item, kind) for item in value]


def _refuse() -> Any:
    raise _Unfit


def _tuple(value: Any, hints: tuple[Any, ...]) -> Any:
    items = _items(value, (Any,))
    if len(hints) == 2 and hints[1] is Ellipsis:
        return tuple(_fitted(item, hints[0]) for item in items)
    if hints and len(items) != len(hints):
        raise _Unfit
    return tuple(_fitted(item, hint) for item, hint in zip(items, hints, strict=True))


def _mapping(value: Any, hints: tuple[Any, ...]) -> Any:
    if not isinstance(value, Mapping) or (hints and hints[0] is str and not _all_text(value)):
        raise _Unfit
    return value


def _all_text(keys: typing.Iterable[Any]) -> bool:
    return all(isinstance(key, str) for key in keys)


def _callable(value: Any, hints: tuple[Any, ...]) -> Any:
    if not callable(value):
        raise _Unfit
    return value


_SIMPLE: Mapping[Any, Callable[[Any], Any]] = types.MappingProxyType(
    {
        Any: lambda value: value,
        object: lambda value: value,
        type(None): _nothing,
        None: _nothing,
        int: _whole,
        float: _real,
        bool: _flag,
        str: _text,
        Path: _path,
    }
)
_GENERIC: Mapping[Any, Callable[[Any, tuple[Any, ...]], Any]] = types.MappingProxyType(
    {
        collections.abc.Sequence: _items,
        collections.abc.Iterable: _items,
        collections.abc.Callable: _callable,
        collections.abc.Mapping: _mapping,
        dict: _mapping,
        list: _items,
        tuple: _tuple,
        np.ndarray: _typed_array,
    }
)
_WORDS: Mapping[Any, str] = types.MappingProxyType(
    {
        type(None): "None",
        int: "a whole number",
        float: "a number",
        bool: "True or False",
        str: "a string",
        Path: "a path",
        "array": "numbers",
        "array or None": "numbers or None",
        collections.abc.Callable: "a function",
        collections.abc.Mapping: "a dict",
        dict: "a dict",
        np.ndarray: "numbers",
    }
)


def _described(hint: Any) -> str:
    """What an annotation accepts, in words."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        words = list(dict.fromkeys(_described(part) for part in typing.get_args(hint)))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    for key in (hint, origin):
        if key is not None and key in _WORDS:
            return _WORDS[key]
    if origin in _GENERIC:
        kind = next(iter(typing.get_args(hint)), Any)
        return f"a sequence of {_plural(kind)}"
    if hasattr(hint, "described"):
        return str(hint.described)
    name = getattr(hint, "__name__", str(hint))
    return f"a{'n' if name[0] in 'AEIOU' else ''} {name}"


def _plural(kind: Any) -> str:
    """What the items of a sequence are."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_plural(part) for part in typing.get_args(kind))
    known = {int: "whole numbers", float: "numbers", str: "strings", Any: "values", Path: "paths"}
    return known.get(kind) or f"{getattr(kind, '__name__', 'value')}s"
