"""Which files of a folder or an archive are samples.

What a system or an editor leaves beside data is passed over. A file that could be a sample but is
not read is an error, because a mean without it would be wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, NamedTuple

from fastdpm.core.errors import DataError
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.data.record import RECORD
from fastdpm.data.run_record import RUN

MODALITIES = ("image", "audio")
READ: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "image": (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif"),
        "audio": (".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff"),
    }
)
_UNREAD = MappingProxyType(
    {
        "image": (".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".psd")
        + (".exr", ".hdr", ".ico", ".svg", ".jfif", ".dng", ".cr2", ".nef", ".arw")
        + (".jpe", ".pbm", ".pnm", ".dib", ".pcx", ".dds", ".apng", ".npy"),
        "audio": (".m4a", ".aac", ".wma", ".opus", ".mp4", ".m4b", ".amr", ".au", ".caf", ".aifc")
        + (".w64", ".rf64", ".sph"),
    }
)
_CONVERT = MappingProxyType({"image": "PNG", "audio": "WAV or FLAC"})
_SYSTEM = ("__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "@eadir")
TABLE = ".parquet"
_HOLDERS = (".npz", ".zip", TABLE)
_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)\.parquet", re.IGNORECASE)


class EncodedFile(NamedTuple):
    """One encoded image or sound.

    Attributes:
        name: Its name in error messages: a path, or a place in a file.
        data: The encoded bytes.
        label: Its class as it is stored, or None.
    """

    name: str
    data: bytes
    label: Any = None


class Entry(NamedTuple):
    """A file: its name in messages, and its path inside the folder or archive."""

    name: str
    inner: PurePath

    @property
    def suffix(self) -> str:
        """The suffix in lower case."""
        return self.inner.suffix.lower()


def find_entries(folder: Path) -> list[Entry]:
    """All files below a folder, sorted, without hidden and system files.

    Linked folders are followed; each folder is read once, so that a link to a folder above ends.

    Raises:
        DataError: If there are more than ``MAX_SAMPLES``.
        OSError: If a folder cannot be read.
    """
    found = [path for path in _walk(folder) if not is_hidden(path.relative_to(folder))]
    check_limit(f"the number of files in {folder}", len(found), MAX_SAMPLES)
    return [Entry(str(path), path.relative_to(folder)) for path in sorted(found)]


def is_hidden(inner: PurePath) -> bool:
    """Whether a path inside a folder is hidden, or left there by the system."""
    return any(
        (part.startswith(".") and part != "..") or part.lower() in _SYSTEM for part in inner.parts
    )


def choose(
    path: Path, modality: str | None, entries: Sequence[Entry], alone: bool
) -> tuple[str, list[str]]:
    """The modality of the samples, and the names of the files that are samples.

    Args:
        path: The folder or archive.
        modality: "image" or "audio"; None for the one that the files have.
        entries: Its files, without hidden ones.
        alone: Raise an error if there are any other files than samples and records of a run.

    Raises:
        DataError: If there are files of both modalities, or of formats that are not read; or if
            there are other files and ``alone`` is set.
    """
    present = [kind for kind in MODALITIES if _of(entries, READ[kind])]
    if modality is None and not present:
        for kind in MODALITIES:
            _check_read(path, kind, entries)
    modality = modality or single_modality(path, present)
    _check_read(path, modality, entries)
    chosen = _of(entries, READ[modality])
    others = [
        entry.name
        for entry in entries
        if entry.suffix not in READ[modality] and entry.inner.name not in (RECORD, RUN)
    ]
    if alone and chosen and others:
        kind = "an image" if modality == "image" else "a sound"
        raise DataError(
            f"{others[0]} is not {kind}: {path} must contain only samples, so move"
            f" {len(others)} other files out of it"
        )
    return modality, chosen


def single_modality(path: Path, modalities: Sequence[str]) -> str:
    """The only modality of a data set; raises DataError if there are several, or none."""
    if len(modalities) != 1:
        what = "both images and sounds" if modalities else "neither images nor sounds"
        raise DataError(f"{path} holds {what}: use a data set of one kind")
    return modalities[0]


def find_shards(file: Path) -> list[Path]:
    """All parts of a Parquet file that is one of several, as "train-00000-of-00004.parquet".

    Raises:
        DataError: If a part is missing.
    """
    named = _SHARD.fullmatch(file.name)
    if named is None:
        return [file]
    stem, digits, total = named[1], len(named[2]), named[3]
    count = check_limit(f"the number of parts of {file}", int(total), MAX_SAMPLES)
    names = [f"{stem}-{i:0{digits}d}-of-{total}{file.suffix}" for i in range(count)]
    present = {path.name for path in file.parent.iterdir()}
    missing = [name for name in names if name not in present]
    if missing or file.name not in names:
        raise DataError(
            f"{file.parent} lacks {missing[0] if missing else file.name}, {len(missing)} of"
            f" {count} parts of one data set: copy all of them"
        )
    return [file.with_name(name) for name in names]


def find_tables(folder: Path, entries: Sequence[Entry]) -> list[Path]:
    """The Parquet files of the one data set in a folder, in order; empty if there are none.

    Raises:
        DataError: If there are several data sets, or a part is missing.
    """
    files = [Path(entry.name) for entry in entries if entry.suffix == TABLE]
    sets = {tuple(find_shards(file)) for file in files}
    if len(sets) > 1:
        names = ", ".join(sorted(parts[0].name for parts in sets))
        raise DataError(f"{folder} holds {len(sets)} data sets ({names}): pass a file of one")
    return list(sets.pop()) if sets else []


def _of(entries: Sequence[Entry], suffixes: Sequence[str]) -> list[str]:
    return [entry.name for entry in entries if entry.suffix in suffixes]


def _check_read(path: Path, modality: str, entries: Sequence[Entry]) -> None:
    """Refuse files that could be samples, but are of a format that is not read."""
    holders = [entry for entry in entries if entry.suffix in _HOLDERS]
    if holders:
        more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        raise DataError(
            f"{holders[0].name}{more} may hold samples, but is not read from a folder or an"
            f" archive: pass it alone, or move it out of {path}"
        )
    unread = [entry for entry in entries if entry.suffix in _UNREAD[modality]]
    if unread:
        more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
        raise DataError(
            f"{unread[0].name}{more} cannot be read: convert {unread[0].suffix[1:].upper()} to"
            f" {_CONVERT[modality]}, or move it out of {path}"
        )


def _walk(folder: Path) -> Iterator[Path]:
    """Every path below a folder that is no folder itself."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        found = Path(place).stat()
        if (found.st_dev, found.st_ino) in seen:
            folders.clear()
            continue
        seen.add((found.st_dev, found.st_ino))
        folders[:] = sorted(name for name in folders if not is_hidden(PurePath(name)))
        yield from (Path(place, name) for name in files)


def _refuse(error: OSError) -> None:
    raise error
