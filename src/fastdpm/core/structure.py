"""Dataclasses from plain values, as JSON and TOML files hold them, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin

from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, transform_error
from cattrs.gen import make_dict_structure_fn

from fastdpm.core.errors import InvalidArgumentError

_T = TypeVar("_T")
_RENAMED_KEYS = MappingProxyType({"licence": "license"})


def build(kind: type[_T], data: Mapping[str, Any], where: str) -> _T:
    """Make a dataclass from plain values, naming what is missing, unknown or of the wrong type.

    Raises:
        InvalidArgumentError: If the values do not fit ``kind``.
    """
    try:
        return _converter().structure(data, kind)
    except (BaseValidationError, TypeError) as error:
        told = (fault.rpartition(" @ ") for fault in transform_error(error, "", _fault))
        faults = "; ".join(f"{place}{said}".lstrip(".: ") for said, _, place in told)
        raise InvalidArgumentError(f"{where}: {faults}") from None


def build_versioned(kind: type[_T], data: Mapping[str, Any], what: str, name: str) -> _T:
    """Make a dataclass from what was written as format ``name``, version 1.

    Raises:
        InvalidArgumentError: If it is another format or version, or a value does not fit.
    """
    if not isinstance(data, Mapping) or data.get("format") != name or data.get("version") != 1:
        raise InvalidArgumentError(f'not a {what}: needs "format": "{name}", "version": 1')
    body = {k: v for k, v in data.items() if k not in ("format", "version")}
    return build(kind, body, "config")


@cache
def _converter() -> Converter:
    """Fills dataclasses and tuples; a value of another type is refused and not converted."""
    converter = Converter()

    def fields(kind: type) -> Any:
        fill: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
        return lambda data, _: fill(_in_new_names(_checked(data, dict, Mapping)), kind)

    def items(data: Any, hint: Any) -> Any:
        if get_origin(hint) is dict:
            return _checked(data, dict)
        each: Any = list[get_args(hint)[0]]  # type: ignore[misc]
        return tuple(converter.structure(_checked(data, list, tuple), each))

    def holds_items(hint: Any) -> bool:
        return get_origin(hint) in (dict, tuple)

    converter.register_structure_hook_factory(dataclasses.is_dataclass, fields)
    converter.register_structure_hook_func(holds_items, items)
    converter.register_structure_hook(float, lambda data, _: float(_checked(data, float, int)))
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _checked)
    return converter


def _in_new_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the current names of keys; files of earlier versions are read too."""
    for old, new in _RENAMED_KEYS.items():
        if old in data and new in data:
            raise TypeError(f" has both {old} and {new}: keep {new} alone")
    return {_RENAMED_KEYS.get(name, name): value for name, value in data.items()}


def _checked(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f" must be of type {kinds[0].__name__}, got {value!r}")
    return value


def _fault(error: BaseException, _: object) -> str:
    """What goes after the place of an error: of the checks here, or of a dataclass's own."""
    if isinstance(error, KeyError):
        return " is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        unknown, known = sorted(error.extra_fields), dataclasses.fields(error.cl)
        return f" does not know {', '.join(unknown)}: it takes {', '.join(f.name for f in known)}"
    return str(error) if isinstance(error, TypeError) else f": {error}"


def plain(value: Any) -> Any:
    """Values for JSON from dataclasses and tuples; what is None is left out."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(v) for name, v in fields.items() if v is not None}
    return list(value) if isinstance(value, tuple) else value
