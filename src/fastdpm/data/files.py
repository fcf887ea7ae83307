"""Atomic writing of files and folders: a reader never sees a partial one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError

FIGURE_FORMATS = ("png", "pdf", "svg")
FIGURE_SUFFIXES = tuple(f".{name}" for name in FIGURE_FORMATS)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically; see :func:`write_chunks`."""
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes | memoryview]) -> None:
    """Write chunks to a temporary file in the same folder, then move it into place.

    If writing fails or is interrupted, an existing file stays as it was.

    Raises:
        InvalidArgumentError: If ``path`` is a folder, or its parent folder does not exist.
        OSError: If the file cannot be written.
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
def new_folder(path: Path, replaced: Collection[str] = (), advice: str = "") -> Iterator[Path]:
    """Yield a temporary folder that is moved to ``path`` when the block ends without an error.

    After an error, ``path`` is as it was before.

    Args:
        path: Where the folder goes.
        replaced: Names of existing files that may be replaced. Any other file is an error.
        advice: See :func:`check_new_folder`.

    Raises:
        InvalidArgumentError: See :func:`check_new_folder`.
    """
    check_new_folder(path, replaced, advice)
    target = path.resolve()
    ancestor = next(p for p in target.parents if p.exists())
    temporary = Path(tempfile.mkdtemp(dir=ancestor, prefix=f".{target.name}-", suffix=".part"))
    backup = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            target.rename(backup)
        temporary.rename(target)
    finally:
        if backup.is_dir() and not target.exists():
            backup.rename(target)
        shutil.rmtree(backup, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path, replaced: Collection[str] = (), advice: str = "") -> None:
    """Check that a new folder can be created at ``path``, or replace what is there.

    Args:
        path: Where the folder goes.
        replaced: Names of existing files that may be replaced. Any other file is an error.
        advice: Further advice for the message about other files, such as ", or ...".

    Raises:
        InvalidArgumentError: If ``path`` cannot be written, is the current folder or one above
            it, or holds other files.
    """
    check_writable(path)
    target = path.resolve()
    if not target.is_dir():
        return
    if target in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise InvalidArgumentError(
            f"{path} is or contains the current folder: choose another `out`"
        )
    others = sorted({p.name for p in target.iterdir()} - set(replaced))
    if others:
        raise InvalidArgumentError(
            f"{path} already holds {others[0]}: choose another `out`{advice}"
        )


def check_writable(folder: Path) -> None:
    """Raise InvalidArgumentError if a folder cannot be created, or cannot be written to."""
    target = folder.resolve()
    ancestor = next(p for p in (target, *target.parents) if p.exists())
    if not ancestor.is_dir() or not os.access(ancestor, os.W_OK):
        reason = "is not writable" if ancestor.is_dir() else "is a file"
        raise InvalidArgumentError(f"{ancestor} {reason}: choose another `out`")


def check_place(path: Path) -> None:
    """Raise InvalidArgumentError if ``path`` is a folder, or its parent folder does not exist."""
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
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


def _umask() -> int:
    """The permission bits that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
