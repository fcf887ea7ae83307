"""Names of files and folders: second ones, empty ones, and two that take each other's place."""

from __future__ import annotations

import ctypes
import filecmp
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any


def same(path: Path, other: Path) -> bool:
    """Whether two names are links to one file, or equal symbolic links or files."""
    if path.is_symlink() or other.is_symlink():
        return path.is_symlink() and other.is_symlink() and path.readlink() == other.readlink()
    if path.is_file() and other.is_file():
        return path.samefile(other) or filecmp.cmp(path, other, shallow=False)
    return False


def link(path: Path, new: Path) -> None:
    """Give a file, a symbolic link or an empty folder another name."""
    new.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        new.unlink(missing_ok=True)
        new.symlink_to(path.readlink())
    elif path.is_dir():
        new.mkdir(exist_ok=True)
    else:
        new.unlink(missing_ok=True)
        try:
            new.hardlink_to(path)
        except OSError:  # not every disk has links
            shutil.copy2(path, new)


def remove_empty(folder: Path) -> None:
    """Remove folders in which nothing is, from the inside."""
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(place).rmdir()


def remove_empty_of(folder: Path, names: Iterable[str]) -> None:
    """Remove folders in which nothing is, of those inside that names of files begin with."""
    for name in {name.split("/")[0] for name in names if "/" in name}:
        remove_empty(folder / name)


def exchange(new: Path, old: Path, aside: Path) -> None:
    """Let two folders take each other's place, in one step where the system can.

    Args:
        new: The first folder.
        old: The second folder.
        aside: Where the second one is meanwhile on other systems.
    """
    names = os.fsencode(new), os.fsencode(old)
    library: Any = ctypes.CDLL(None) if sys.platform != "win32" else None
    if hasattr(library, "renameat2") and library.renameat2(-100, names[0], -100, names[1], 2) == 0:
        return
    if hasattr(library, "renamex_np") and library.renamex_np(*names, 2) == 0:
        return
    old.rename(aside)
    try:
        new.rename(old)
    except BaseException:
        aside.rename(old)
        raise
    aside.rename(new)
