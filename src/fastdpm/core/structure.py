"""Convert between dataclasses and the plain values of JSON and TOML files."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from cattrs import BaseValidationError, Converter, ForbiddenExtraKeysError, transform_error
from cattrs.gen import make_dict_structure_fn

from fastdpm.core.errors import InvalidArgumentError

_T = TypeVar("_T")
_RENAMED_KEYS = MappingProxyType({"licence": "license"})
_DEFAULT_LEFT_OUT = "default left out"
LEFT_OUT: Mapping[str, bool] = MappingProxyType({_DEFAULT_LEFT_OUT: True})
"""Metadata of a field that files have only if it differs from its default."""


def build(kind: type[_T], data: Mapping[str, Any], where: str) -> _T:
    """Build a dataclass from plain values.

    Args:
        kind: The dataclass.
        data: Its fields, by name.
        where: Start of an error message, such as the file's name. The message lists every value
            that is missing, unknown or of the wrong type.

    Raises:
        InvalidArgumentError: If the values do not fit ``kind``.
    """
    try:
        return _converter().structure(data, kind)
    except (BaseValidationError, TypeError) as error:
        # cattrs appends where an error occurred as "message @ place".
        parts = (text.rpartition(" @ ") for text in transform_error(error, "", _describe))
        errors = "; ".join(f"{place}{message}".lstrip(".: ") for message, _, place in parts)
        raise InvalidArgumentError(f"{where}: {errors}") from None


def build_values(kind: type, data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Convert plain values to the types of some fields of a dataclass, without building it.

    Raises:
        InvalidArgumentError: If a field is unknown, or a value has another type.
    """
    hints, found = get_type_hints(kind), {}
    known = [f.name for f in dataclasses.fields(kind)]
    for name, value in data.items():
        if name not in known:
            raise InvalidArgumentError(
                f"{where} does not know {name!r}: it takes {', '.join(known)}"
            )
        try:
            found[name] = _converter().structure(value, hints[name])
        except (BaseValidationError, TypeError, ValueError) as error:
            texts = transform_error(error, "", _describe)
            text = texts[0].rpartition(" @ ")[0].lstrip(": ")
            raise InvalidArgumentError(f"{where}: `{name}` {text}") from None
    return found


def build_versioned(kind: type[_T], data: Mapping[str, Any], what: str, name: str) -> _T:
    """Build a dataclass from the contents of a file of format ``name``, version 1.

    Raises:
        InvalidArgumentError: If the format or version is different, or a value does not fit.
    """
    if not isinstance(data, Mapping) or data.get("format") != name or data.get("version") != 1:
        raise InvalidArgumentError(f'not a {what}: needs "format": "{name}", "version": 1')
    body = {k: v for k, v in data.items() if k not in ("format", "version")}
    return build(kind, body, "config")


@cache
def _converter() -> Converter:
    """A converter that fills dataclasses and tuples, and rejects values of the wrong type."""
    converter = Converter()

    def fields(kind: type) -> Any:
        fill: Any = make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True)
        return lambda data, _: fill(_current_names(_checked(data, dict, Mapping)), kind)

    def items(data: Any, hint: Any) -> Any:
        if get_origin(hint) is dict:
            held, structure = _checked(data, dict), converter.structure
            kind: Any = get_args(hint)[1]
            plain_values = not dataclasses.is_dataclass(kind)
            return held if plain_values else {k: structure(v, kind) for k, v in held.items()}
        as_list: Any = list[get_args(hint)[0]]  # type: ignore[misc]
        return tuple(converter.structure(_checked(data, list, tuple), as_list))

    def holds_items(hint: Any) -> bool:
        return get_origin(hint) in (dict, tuple)

    converter.register_structure_hook_factory(dataclasses.is_dataclass, fields)
    converter.register_structure_hook_func(holds_items, items)

    def number_or_numbers(data: Any, _: Any) -> Any:
        several = isinstance(data, list | tuple)
        return items(data, tuple[float, ...]) if several else converter.structure(data, float)

    converter.register_structure_hook_func(
        lambda hint: hint == float | tuple[float, ...], number_or_numbers
    )
    converter.register_structure_hook(float, lambda data, _: float(_checked(data, float, int)))
    for kind in (bool, int, str):
        converter.register_structure_hook(kind, _checked)
    return converter


def _current_names(data: Mapping[str, Any]) -> dict[str, Any]:
    """Rename keys that older versions wrote under another name."""
    for old, new in _RENAMED_KEYS.items():
        if old in data and new in data:
            raise TypeError(f" has both {old} and {new}: keep only {new}")
    return {_RENAMED_KEYS.get(name, name): value for name, value in data.items()}


def _checked(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f" must be of type {kinds[0].__name__}, got {value!r}")
    return value


def _describe(error: BaseException, _: object) -> str:
    """The text that follows the place of an error, from these checks or the dataclass's own."""
    if isinstance(error, KeyError):
        return " is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        unknown, known = sorted(error.extra_fields), dataclasses.fields(error.cl)
        return f" does not know {', '.join(unknown)}: it takes {', '.join(f.name for f in known)}"
    return str(error) if isinstance(error, TypeError) else f": {error}"


def plain(value: Any) -> Any:
    """Convert dataclasses and tuples to values for JSON; fields that are None are left out.

    So are those marked :data:`LEFT_OUT` that have their default.
    """
    if dataclasses.is_dataclass(value):
        shown = shown_fields(value)
        return {name: plain(v) for name, v in shown.items() if v is not None}
    if isinstance(value, dict):
        return {name: plain(held) for name, held in value.items()}
    return list(value) if isinstance(value, tuple) else value


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any], whole: Collection[str] = ()
) -> Iterator[tuple[str, Any, Any]]:
    """Compare nested tables.

    Args:
        before: The old values.
        now: The new values.
        whole: Names of tables that are compared as a whole.

    Yields:
        The name of each value that differs, as in "data.classes", and both values; None if absent.
    """
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and name not in whole:
            yield from ((f"{name}.{inner}", *values) for inner, *values in changed(old, new))
        elif old != new:
            yield name, old, new


def shown_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, without :data:`LEFT_OUT` ones at their default."""
    fields = dataclasses.fields(record)
    values = {f.name: getattr(record, f.name) for f in fields}
    idle = [
        f.name for f in fields if _DEFAULT_LEFT_OUT in f.metadata and values[f.name] == f.default
    ]
    return {name: value for name, value in values.items() if name not in idle}
