"""Dataclasses from plain values, as JSON and TOML files hold them, and back."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from fastdpm.core.errors import InvalidArgumentError

_T = TypeVar("_T")


def build(kind: type[_T], data: Mapping[str, Any], where: str) -> _T:
    """Make a dataclass from plain values, naming what is missing, unknown or of the wrong type.

    Raises:
        InvalidArgumentError: If the values do not fit ``kind``.
    """
    if not isinstance(data, Mapping):
        raise InvalidArgumentError(f"{where} must be a table of values, got {data!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise InvalidArgumentError(
            f"{where} does not know {', '.join(unknown)}: it takes {', '.join(fields)}"
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InvalidArgumentError(f"{where} lacks {', '.join(missing)}")
    return kind(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()})


def build_versioned(kind: type[_T], data: Mapping[str, Any], what: str, name: str) -> _T:
    """Make a dataclass from what was written as format ``name``, version 1.

    Raises:
        InvalidArgumentError: If it is another format or version, or a value does not fit.
    """
    if not isinstance(data, Mapping) or data.get("format") != name or data.get("version") != 1:
        raise InvalidArgumentError(f'not a {what}: needs "format": "{name}", "version": 1')
    body = {k: v for k, v in data.items() if k not in ("format", "version")}
    return build(kind, body, "config")


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint) or hint
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(typing.get_args(hint)[0], v, where) for v in value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (origin is not bool and isinstance(value, bool)):
        raise InvalidArgumentError(f"{where} must be a {origin.__name__}, got {value!r}")
    return value


def plain(value: Any) -> Any:
    """Values for JSON from dataclasses and tuples; what is None is left out."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(v) for name, v in fields.items() if v is not None}
    return list(value) if isinstance(value, tuple) else value
