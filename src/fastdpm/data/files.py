"""Atomic writing of files: a reader never sees a partial one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError

_CAN_LOCK = os.name == "posix"  # on Windows, a file that is open cannot be moved at all
if _CAN_LOCK:
    import fcntl

FIGURE_FORMATS = ("png", "pdf", "svg")
FIGURE_SUFFIXES = tuple(f".{name}" for name in FIGURE_FORMATS)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically; see :func:`write_chunks`."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks to a temporary file in the same folder, then move it into place.

    If writing fails or is interrupted, an existing file stays as it was. A temporary file that a
    killed program left is used again.

    Raises:
        InvalidArgumentError: If ``path`` is a folder, or its parent folder does not exist.
        OSError: If the file cannot be written.
    """
    check_place(path)
    with file_named(path):
        handle, temporary = _open_temporary(path)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                if _CAN_LOCK:  # the file stays locked until it is in place
                    file.flush()
                    temporary.replace(path)
            if not _CAN_LOCK:
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def file_named(path: Path) -> Iterator[None]:
    """Let an OSError in a block name ``path``, as one of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def temporary_name(name: str, number: int = 0) -> str:
    """The name of the temporary file of a file; the number is 0 unless others are in use."""
    return f".{name}.{number}.part"


def _open_temporary(path: Path) -> tuple[int, Path]:
    """Open and lock an empty temporary file that no running program uses."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if not _CAN_LOCK:
        flags |= os.O_EXCL
    for number in count():
        temporary = path.with_name(temporary_name(path.name, number))
        try:
            handle = os.open(temporary, flags, 0o666)
        except FileExistsError:
            continue
        if not _CAN_LOCK or _locked(handle, temporary):
            os.ftruncate(handle, 0)
            return handle, temporary
        os.close(handle)
    raise AssertionError


def _locked(handle: int, path: Path) -> bool:
    """Lock an open file; False if another program has it, or has moved it into place."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, wanted = os.fstat(handle), path.lstat()
    except (BlockingIOError, FileNotFoundError):
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(folder: Path) -> None:
    """Raise InvalidArgumentError if a folder cannot be created, or cannot be written to."""
    try:
        target = folder.resolve()
    except (OSError, RuntimeError):
        raise InvalidArgumentError(f"{folder} is a link to itself: choose another `out`") from None
    ancestor = next(p for p in (target, *target.parents) if p.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        reason = "is not writable" if ancestor.is_dir() else "is a file"
        raise InvalidArgumentError(f"{ancestor} {reason}: choose another `out`")


def check_place(path: Path) -> None:
    """Raise InvalidArgumentError unless ``path`` is a file, or nothing in a writable folder."""
    reason = None
    if path.is_dir():
        reason = "it is a folder"
    elif os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        reason = "it is no regular file"
    elif not path.parent.is_dir():
        reason = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        reason = f"{path.parent} is not writable"
    if reason is not None:
        raise InvalidArgumentError(f"cannot write {path}: {reason}; choose another path")


def check_suffix(path: Path, suffixes: Collection[str]) -> None:
    """Raise InvalidArgumentError unless a file has one of the suffixes, such as ".png"."""
    if path.suffix not in suffixes:
        raise InvalidArgumentError(f"the name of {path} must end in {' or '.join(suffixes)}")


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; bytes of file names that are no text are escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, record: Any) -> None:
    """Write JSON values to an indented file, atomically."""
    write_text(path, json.dumps(record, indent=1) + "\n")
