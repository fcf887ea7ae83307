"""Errors that a user can cause, each with one clear line and an exit code for the command line."""

import importlib.util
from collections.abc import Collection


class FastDPMError(Exception):
    """Something outside the program's control went wrong; the message says what to do."""

    exit_code = 1


class InvalidArgumentError(FastDPMError, ValueError):
    """A value that was passed in cannot be used."""

    exit_code = 2


class ModelError(FastDPMError):
    """A model folder is damaged, foreign or does not match its configuration."""


class DataError(FastDPMError):
    """A data file cannot be read or does not contain what is needed."""


class SamplingError(FastDPMError):
    """The network returned something that cannot be sampled from."""


class InterruptedRunError(FastDPMError):
    """A run was stopped by its user; the message says what is kept and how to go on."""

    exit_code = 130


class MissingExtraError(FastDPMError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed: run `pip install 'fastdpm[{extra}]'` and try again"
        )


def check_installed(package: str, module: str, extra: str) -> None:
    """Raise MissingExtraError unless a module can be found; it is not imported yet."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra)


def check_one_of(name: str, value: object, known: Collection[str]) -> None:
    """Raise InvalidArgumentError unless ``value`` is one of the ``known`` names."""
    if not isinstance(value, str) or value not in known:
        said = f"`{name}`" if name.isidentifier() else name
        raise InvalidArgumentError(f"{said} must be one of {', '.join(known)}, got {value!r}")


def first_line(error: Exception) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
