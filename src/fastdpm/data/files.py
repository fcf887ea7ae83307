"""Writing files whole: a reader never sees half of one."""

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

FIGURE_SUFFIXES = (".png", ".pdf", ".svg")


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
def new_folder(path: Path, replaced: Collection[str] = (), advice: str = "") -> Iterator[Path]:
    """A folder to be filled that takes its place only once it is whole.

    Whatever goes wrong leaves what was there before.

    Args:
        path: The place.
        replaced: Names of files that may be there and are replaced; no other file may.
        advice: See :func:`check_new_folder`.

    Raises:
        InvalidArgumentError: If something else has the place: see :func:`check_new_folder`.
    """
    check_new_folder(path, replaced, advice)
    place = path.resolve()
    above = next(p for p in place.parents if p.exists())
    temporary = Path(tempfile.mkdtemp(dir=above, prefix=f".{place.name}-", suffix=".part"))
    aside = temporary.with_suffix(".old")
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            place.rename(aside)
        temporary.rename(place)
    finally:
        if aside.is_dir() and not place.exists():
            aside.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path, replaced: Collection[str] = (), advice: str = "") -> None:
    """Raise InvalidArgumentError if a new folder cannot have that place, before the work is done.

    Args:
        path: The place.
        replaced: Names of files that may be there already.
        advice: What else to do where others are, ", or ...".
    """
    check_writable(path)
    place = path.resolve()
    if not place.is_dir():
        return
    if place in (Path.cwd().resolve(), *Path.cwd().resolve().parents):
        raise InvalidArgumentError(f"{path} is the folder you are in: choose another `out`")
    others = sorted({p.name for p in place.iterdir()} - set(replaced))
    if others:
        raise InvalidArgumentError(f"{path} holds {others[0]}: choose another `out`{advice}")


def check_writable(folder: Path) -> None:
    """Raise InvalidArgumentError if a folder cannot be made, or nothing be written into it."""
    place = folder.resolve()
    above = next(p for p in (place, *place.parents) if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "cannot be written to" if above.is_dir() else "is a file"
        raise InvalidArgumentError(f"{above} {reason}: choose another `out`")


def check_place(path: Path) -> None:
    """Raise InvalidArgumentError if a file cannot have that place, before the work is done."""
    if path.is_dir() or not path.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise InvalidArgumentError(f"cannot write {path}: {reason}")


def check_suffix(path: Path, suffixes: Collection[str]) -> None:
    """Raise InvalidArgumentError unless a file's name ends in one of the suffixes."""
    if path.suffix not in suffixes:
        raise InvalidArgumentError(f"{path} must end in {' or '.join(suffixes)}")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    write_bytes(path, text.encode())


def write_json(path: Path, record: Any) -> None:
    """Write plain values as an indented JSON file, whole."""
    write_text(path, json.dumps(record, indent=1) + "\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
