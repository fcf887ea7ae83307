"""Errors that a user can cause, each with one clear line and an exit code for the command line."""

import importlib.util
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

_NO_NUMBERS = ("bool", "bool_", "str", "bytes")
_LONGEST = 80


class FastDPMError(Exception):
    """Base class of the errors that a user can cause or fix; the message says what to do."""

    exit_code = 1


class InvalidArgumentError(FastDPMError, ValueError):
    """An argument has an invalid value."""

    exit_code = 2


class ModelError(FastDPMError):
    """A model cannot be loaded: it is damaged, unknown or does not match its configuration."""


class DataError(FastDPMError):
    """A data file cannot be read, or does not contain what is needed."""


class SamplingError(FastDPMError):
    """Sampling failed, usually because the network returned an unusable output."""


class InterruptedRunError(FastDPMError):
    """The user stopped a run; the message says what was kept and how to resume."""

    exit_code = 130


class MissingExtraError(FastDPMError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: run `pip install 'fastdpm[{extra}]'` and try again"
        )


def check_installed(package: str, module: str, extra: str) -> None:
    """Raise MissingExtraError unless ``module`` is installed, without importing it."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra)


@contextmanager
def arguments_named(**names: str) -> Iterator[None]:
    """Let errors in a block name arguments as its caller does.

    Args:
        names: What the caller calls each argument, such as ``num_steps="`num_inference_steps`"``.
    """
    try:
        yield
    except InvalidArgumentError as error:
        message = str(error)
        for inner, outer in names.items():
            message = message.replace(f"`{inner}`", outer)
        raise InvalidArgumentError(message) from None


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raise InvalidArgumentError unless ``value`` is one of the ``known`` names."""
    if not isinstance(value, str) or value not in known:
        shown = f"`{name}`" if name.isidentifier() else name
        raise InvalidArgumentError(f"{shown} must be one of {', '.join(known)}, got {value!r}")


def whole_number(name: str, value: Any) -> int:
    """An argument as an int: any whole number, also of NumPy, and 10.0.

    Raises:
        InvalidArgumentError: If it is not a whole number.
    """
    try:
        single = getattr(value, "ndim", 0) == 0 and type(value).__name__ not in _NO_NUMBERS
        if single and value == int(value) and "bool" not in str(getattr(value, "dtype", "")):
            return int(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass  # refused below
    raise InvalidArgumentError(f"`{name}` must be a whole number, got {shown(value)}")


def shown(value: object) -> str:
    """A value in an error message: its text, or if that is long, its type and shape or items."""
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape):
        where = " on the meta device" if getattr(value, "is_meta", False) else ""
        return f"{type(value).__name__} of shape {tuple(shape)}{where}"
    try:
        text = repr(value)
    except Exception:  # the text of a foreign object can fail in any way
        text = ""
    line = " ".join(text.split())
    if 0 < len(line) <= _LONGEST:
        return line
    kind = type(value).__name__
    if isinstance(value, list | tuple):
        items = " and ".join(sorted({type(item).__name__ for item in value}))
        return f"a {kind} of {items}"
    return f"an object of type {kind}"


def positive_or_none(name: str, value: Any) -> int | None:
    """An optional argument as an int of at least 1.

    Raises:
        InvalidArgumentError: If it is not a whole number, or out of range.
    """
    if value is None:
        return None
    number = whole_number(name, value)
    if not 1 <= number < 2**62:
        raise InvalidArgumentError(f"`{name}` must be at least 1 and below 2^62, got {number}")
    return number


def first_line(error: Exception) -> str:
    """Return the first line of another library's error, or its type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
