"""Writing files whole: a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file beside its place and move it there.

    Whatever goes wrong, a full disk or an interrupt, leaves the old file and nothing else.
    """
    check_place(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise InvalidArgumentError if a file cannot have that place, before the work is done."""
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InvalidArgumentError(f"cannot write {path}: {reason}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
