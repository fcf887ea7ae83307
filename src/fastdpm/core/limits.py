"""Limits on what files, configurations and options may request.

A file of a few bytes can state sizes that no machine has: an archive that unpacks to terabytes, a
network of a billion channels, an array of which only the header exists. Every such size has a
limit here, far above what real data and models need, and is checked before anything is allocated.
docs/formats.md lists the limits for users.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from fastdpm.core.errors import DataError, InvalidArgumentError

MAX_TEXT_BYTES = 2**26  # of a JSON or TOML file
MAX_DEPTH = 64  # lists and tables inside each other in such a file
MAX_FILE_BYTES = 2**31  # of one encoded image or sound, also of a member of an archive
MAX_PIXELS = 2**26  # of one image
MAX_SOUND_VALUES = 2**29  # of one sound file, all channels together
MAX_SAMPLE_RATE = 10**6  # of a sound that is resampled, in Hz
MAX_UNPACKED_BYTES = 2**34  # of an archive or array, once decompressed
MAX_RATIO = 200  # of decompressed to compressed size, above FREE_BYTES
FREE_BYTES = 2**28
MAX_SAMPLES = 10**7  # to draw, read or measure in one call
MAX_TRAIN_STEPS = 10**5  # T of a schedule
MAX_SAMPLE_VALUES = 2**28  # of one sample of a model
MAX_CLASSES = 10**6
MAX_LAYERS = 10_000  # modules of a network
MAX_WEIGHTS = 10**10  # numbers in all tensors of a network
MAX_TENSORS = 100_000  # in a safetensors file
MAX_COUNT = 2**31 - 1  # any other size in a configuration

_KINDS = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
    stat.S_ISDIR: "a folder",
}
_KEY = r"""\s*(?:[\w-]+|"[^"\n]*"|'[^'\n]*')\s*\."""
_DEEP_KEY = re.compile(rf"(?<![\w-])(?:{_KEY}){{{MAX_DEPTH}}}")


def check_limit(name: str, value: int, limit: int) -> int:
    """Return a size, or raise InvalidArgumentError if it is above its limit."""
    if value > limit:
        raise InvalidArgumentError(f"{name} is too large: at most {limit:,}, got {value:,}")
    return value


def check_regular(path: Path) -> int:
    """The size in bytes of a regular file; a pipe or a device could keep a reader waiting.

    Raises:
        DataError: If the path is something else.
        OSError: If there is nothing at the path, or it cannot be looked at.
    """
    found = path.stat()
    for is_kind, kind in _KINDS.items():
        if is_kind(found.st_mode):
            raise DataError(f"{path} is {kind}: pass a regular file")
    return found.st_size


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        DataError: If it is larger, or no regular file.
        OSError: If it cannot be read.
    """
    size = check_regular(path)
    if size > limit:
        raise DataError(f"{path} has {size:,} bytes: at most {limit:,} are read")
    return path.read_bytes()


def read_text(path: Path) -> str:
    """Read a UTF-8 file of at most ``MAX_TEXT_BYTES``; see :func:`read_bytes`.

    Raises:
        ValueError: If it is not UTF-8.
    """
    return read_bytes(path, MAX_TEXT_BYTES).decode("utf-8")


def parse_json(text: str) -> Any:
    """The values of a JSON text.

    Raises:
        ValueError: If it is not JSON, or nested deeper than ``MAX_DEPTH``.
    """
    try:
        return _shallow(json.loads(text))
    except RecursionError:
        raise _too_deep() from None


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text; see :func:`parse_json`."""
    if _DEEP_KEY.search(text):  # the parser needs quadratic time for these
        raise _too_deep()
    try:
        values: dict[str, Any] = _shallow(tomllib.loads(text))
    except RecursionError:
        raise _too_deep() from None
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; see :func:`read_json`."""
    return parse_toml(read_text(path))


def read_json(path: Path) -> Any:
    """The values of a JSON file.

    Raises:
        DataError: See :func:`read_bytes`.
        OSError: If it cannot be read.
        ValueError: See :func:`parse_json`.
    """
    return parse_json(read_text(path))


def check_unpacked(name: str | Path, packed: int, unpacked: int) -> None:
    """Check the size that compressed data states for its content.

    Raises:
        DataError: If it is above ``MAX_UNPACKED_BYTES``; or above ``FREE_BYTES`` and over
            ``MAX_RATIO`` times the compressed size, which real samples do not reach.
    """
    limit = min(MAX_UNPACKED_BYTES, max(FREE_BYTES, MAX_RATIO * packed))
    if unpacked > limit:
        raise DataError(
            f"{name} would unpack from {packed:,} to {unpacked:,} bytes: at most {limit:,} are"
            " unpacked; store it in parts, or without compression"
        )


def _shallow(values: Any) -> Any:
    level = [values]
    for _ in range(MAX_DEPTH + 1):
        inner = [value for value in level if isinstance(value, dict | list)]
        if not inner:
            return values
        level = [
            child
            for value in inner
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"it is nested too deeply: at most {MAX_DEPTH} levels are read")
