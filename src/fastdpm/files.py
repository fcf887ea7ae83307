"""Writing files whole: a reader never sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole; see :func:`write_chunks`."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file piece by piece beside its place and move it there.

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
            for chunk in chunks:
                file.write(chunk)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to be filled that takes its place only once it is whole.

    Args:
        path: The place; an empty folder there is replaced.
        overwrite: Replace also a folder that holds files.

    Raises:
        InvalidArgumentError: If a file, or a folder with files, has the place.
    """
    check_new_folder(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-", suffix=".part"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path, *, overwrite: bool = False) -> None:
    """Raise InvalidArgumentError if a new folder cannot have that place."""
    if path.exists() and not path.is_dir():
        raise InvalidArgumentError(f"{path} is a file: choose another --out")
    if path.is_dir() and any(path.iterdir()) and not overwrite:
        raise InvalidArgumentError(
            f"{path} holds other files: choose another --out, or add --overwrite"
        )


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
