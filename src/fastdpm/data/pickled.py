"""Reading files of ``torch.save`` without executing code.

PyTorch's restricted unpickler builds tensors and plain values only. The types in :func:`_allowed`
are added, because trainers save them beside the weights. Where a type is not needed, an inert
stand-in takes its place: a path of any system is a ``PurePosixPath``, a default dictionary is a
dictionary.
"""

from __future__ import annotations

import argparse
import datetime
import pathlib
import pickletools
import re
import types
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from fastdpm.core.errors import FastDPMError, ModelError, first_line

ZIP, PICKLES = b"PK\x03\x04", (b"\x80", b"\x0a")
_NUM_PICKLES = 4  # pickles in a file of torch before 1.6, up to and including the weights
_TENSORS = ("torch.", "collections.OrderedDict", "collections.Counter", "_codecs.encode")
_BUILTINS = (bool, bytearray, complex, dict, float, frozenset, int, list, set, str, tuple)
_DTYPES = "?bhilqBHILQefdgFDUS"  # one character for each type of NumPy's plain arrays
_CHUNK = 2**22
_SLACK = 2**20  # bytes by which the entries of an archive may exceed the file


def read_pickled(path: Path, kind: type[FastDPMError] = ModelError) -> Any:
    """Read a file that ``torch.save`` wrote, or a plain pickle of simple values.

    Tensors of the zip layout are memory-mapped. The checksums of its entries are verified.

    Args:
        path: The file.
        kind: The error to raise.

    Raises:
        FastDPMError: As ``kind``, if the file is damaged or would execute code when read.
    """
    with path.open("rb") as file:
        head = file.read(4)
    zipped = head.startswith(ZIP)
    if zipped:
        _check_archive(path, kind)
    try:
        # torch warns about the pickle protocol, which readers cannot change.
        with warnings.catch_warnings(), safe_globals(_allowed()):
            warnings.simplefilter("ignore")
            # torch would misread a file named ".safetensors".
            if zipped and path.suffix != ".safetensors":
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # an unpickler fails in many ways on unknown or truncated bytes
        code = _unsafe_code(path, zipped=zipped)
        if code:
            raise kind(
                f"{path} would run {code} when it is read, which is refused: save only the"
                " weights, with torch.save(network.state_dict(), FILE), where the file was made"
            ) from None
        if zipped:  # and intact
            raise kind(
                f"{path} holds a value that is not read ({_reason(error)}): save only the weights,"
                " with torch.save(network.state_dict(), FILE), where the file was made"
            ) from None
        raise kind(
            f"{path} is not a complete checkpoint: {_reason(error)}; download it again"
        ) from None


def _check_archive(path: Path, kind: type[FastDPMError]) -> None:
    """Check that an archive is one of ``torch.save``, and verify the checksums of its entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = {entry.filename.rpartition("/")[2] for entry in entries}
            if "constants.pkl" in names or "data.pkl" not in names:
                what = "TorchScript code" if "constants.pkl" in names else "other files"
                raise kind(
                    f"{path} is an archive of {what}, not of weights: save the weights alone, with"
                    " torch.save(network.state_dict(), FILE)"
                )
            if sum(entry.file_size for entry in entries) > path.stat().st_size + _SLACK:
                raise kind(
                    f"{path} is a compressed archive, which torch.save does not write: unpack it,"
                    " and pass the checkpoint inside"
                )
            if any(entry.CRC for entry in entries):  # torch can be set to leave them out
                damaged = [each.filename for each in entries if not _intact(archive, each)]
                if damaged:
                    raise kind(
                        f"{path} is damaged: {damaged[0]} in it does not match its checksum;"
                        " download it again"
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise kind(
            f"{path} is not a complete checkpoint: {first_line(error)}; download it again"
        ) from None
    except (ValueError, RuntimeError, UnicodeDecodeError) as error:  # of damaged directories
        raise kind(f"{path} is damaged: {first_line(error)}; download it again") from None


def _intact(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an entry has the checksum that the archive states."""
    try:
        with archive.open(entry) as file:
            while file.read(_CHUNK):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _unsafe_code(path: Path, *, zipped: bool) -> str:
    """Names of the functions that reading a file would run; empty if none. Runs nothing."""
    # The file may be damaged as well, or not be a pickle at all.
    with suppress(Exception), path.open("rb") as file, safe_globals(_allowed()):
        if zipped:
            return ", ".join(sorted(get_unsafe_globals_in_checkpoint(file)))
        return next(chain.from_iterable(_globals(file) for _ in range(_NUM_PICKLES)), "")
    return ""


def _globals(file: BinaryIO) -> Iterator[str]:
    """The names that a pickle imports, except those that build tensors and allowed types."""
    safe = {name for _, name in _allowed()}
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(file):
        if isinstance(argument, str):
            texts.append(argument.replace(" ", "."))
        if code.name in ("GLOBAL", "STACK_GLOBAL"):
            name = ".".join(texts[-1 if code.name == "GLOBAL" else -2 :])
            name = name.replace("__builtin__.", "builtins.")
            if not name.startswith(_TENSORS) and name not in safe:
                yield name


@cache
def _allowed() -> list[Any]:
    """Pairs of what is built in place of a type, and the name of that type in a pickle."""
    scalar: Any = np.float64(0).__reduce__()[0]
    built: list[tuple[Any, str]] = [
        (_empty_dict, "collections.defaultdict"),
        (_empty_list, "collections.deque"),
        (argparse.Namespace, "argparse.Namespace"),
        (types.SimpleNamespace, "types.SimpleNamespace"),
        (str, "torch.torch_version.TorchVersion"),
        (int, "builtins.long"),
        (str, "builtins.unicode"),
        (_arguments, "builtins.range"),
        (_arguments, "builtins.xrange"),
        (_arguments, "builtins.slice"),
        (np.dtype, "numpy.dtype"),
        (np.ndarray, "numpy.ndarray"),
    ]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        built += [(scalar, f"{module}.scalar"), (_empty_array, f"{module}._reconstruct")]
    paths = [f"{pure}{system}Path" for pure in ("", "Pure") for system in ("", "Posix", "Windows")]
    for module in ("pathlib", "pathlib._local"):
        built += [(pathlib.PurePosixPath, f"{module}.{name}") for name in paths]
    times = ("datetime", "date", "time", "timedelta", "timezone")
    built += [(getattr(datetime, name), f"datetime.{name}") for name in times]
    built += [(each, f"builtins.{each.__name__}") for each in _BUILTINS]
    dtypes = {type(np.dtype(code)) for code in _DTYPES}
    return built + [(each, f"{each.__module__}.{each.__qualname__}") for each in dtypes]


def _empty_dict(*_: object) -> dict[Any, Any]:
    return {}


def _empty_list(*_: object) -> list[Any]:
    return []


def _arguments(*values: object) -> tuple[object, ...]:
    return values


def _empty_array(*_: object) -> Any:
    """An array whose shape and values the pickle sets next."""
    return np.empty(0)


def _reason(error: Exception) -> str:
    """The reason in torch's message, without its advice to execute the file."""
    _, _, reason = str(error).partition("WeightsUnpickler error: ")
    if found := re.search(r"but got <class '([\w.]+)'>", reason):
        return found[1]
    lines = reason.strip().splitlines() or [first_line(error)]
    return lines[0].partition(". ")[0].rstrip(".")
