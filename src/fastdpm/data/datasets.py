"""Data sets: folders, zip archives and Parquet files of images or sounds, and scikit-learn digits.

Every sample has a name for error messages and, if the data set has labels, a label.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, check_installed
from fastdpm.core.limits import MAX_FILE_BYTES, check_regular, check_unpacked, read_bytes
from fastdpm.data.listing import (
    READ,
    TABLE,
    EncodedFile,
    Entry,
    choose,
    find_entries,
    find_shards,
    find_tables,
    is_hidden,
)
from fastdpm.data.record import SampleRecord, read_record
from fastdpm.data.tables import open_tables

DIGITS, DIGITS_TEST = "sklearn:digits", "sklearn:digits-test"
MAX_CACHED_BYTES = 2**30
_HELD_OUT_DIGITS = 360


def digits_part(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scikit-learn's handwritten digits, split into a training part and a test part.

    Args:
        part: "sklearn:digits" for training (the first 1,437 rows), or "sklearn:digits-test" for
            testing (the last 360 rows).

    Returns:
        Images, shape (n, 1, 8, 8), uint8, and their digits 0 to 9, shape (n,).

    Raises:
        MissingExtraError: If scikit-learn is not installed.
    """
    check_installed("scikit-learn", "sklearn", "train")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    rows = slice(None, -_HELD_OUT_DIGITS) if part == DIGITS else slice(-_HELD_OUT_DIGITS, None)
    return images[rows], np.asarray(digits.target[rows], dtype=np.int64)


@dataclass(eq=False)
class Dataset:
    """Encoded images or sounds in a fixed order; see :func:`open_dataset`.

    Files are cached in memory when they are first read, up to ``MAX_CACHED_BYTES`` (1 GiB) in
    total. Files that do not fit into the cache are read again each time.

    Attributes:
        path: The folder or file.
        modality: "image" or "audio".
        count: Number of samples.
        read: Reads the files at increasing indices, from 0, without the cache.
        record: The record of a folder that `fastdpm sample` wrote; None otherwise.

    Raises:
        DataError: If ``count`` is 0.
    """

    path: Path
    modality: str
    count: int
    read: Callable[[Sequence[int]], Iterator[EncodedFile]]
    record: SampleRecord | None = None

    def __post_init__(self) -> None:
        if not self.count:
            raise no_files(self.path, self.modality)
        self._cache: dict[int, EncodedFile] = {}
        self._free_bytes = MAX_CACHED_BYTES

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[EncodedFile]:
        return self.files(range(len(self)))

    def files(self, indices: Sequence[int]) -> Iterator[EncodedFile]:
        """Yield the files at increasing ``indices``, from 0."""
        missing = [index for index in indices if index not in self._cache]
        files, uncached = self.read(missing), set(missing)
        for index in indices:
            file = next(files) if index in uncached else self._cache[index]
            if index not in self._cache and len(file.data) <= self._free_bytes:
                self._cache[index] = file
                self._free_bytes -= len(file.data)
            yield file


def open_dataset(path: str | Path, modality: str | None = None, *, alone: bool = False) -> Dataset:
    """Open a data set. Its samples are read lazily.

    Args:
        path: A folder, a zip archive or a Parquet file. A Parquet file has a column ``image``,
            ``img`` or ``audio`` of encoded files (bytes, or a struct with ``bytes``) and
            optionally a column ``label``. Of a file like ``train-00000-of-00004.parquet``, or a
            folder of them, all parts are read. In a folder that `fastdpm sample` wrote, only the
            samples that its record lists are read. Hidden and system files are passed over.
        modality: "image" or "audio"; by default, the one that the data set holds.
        alone: Raise an error if a folder or archive holds any other files, except hidden ones.

    Raises:
        DataError: If the path does not exist, cannot be read or holds no samples, a file is of a
            format that is not read, or ``modality`` is None and it holds both images and sounds.
        MissingExtraError: If a package needed to read it is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, modality, alone)
    if path.exists():
        check_regular(path)
    else:
        raise DataError(
            f"no data at {str(path)!r}: pass a folder, a zip archive, a Parquet file or {DIGITS}"
        )
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _open_archive(path, modality, alone)
    if suffix == TABLE:
        return Dataset(path, *open_tables(find_shards(path), modality))
    raise DataError(f"{path} cannot be read: pass a folder, a .zip file or a .parquet file")


def _open_folder(path: Path, modality: str | None, alone: bool) -> Dataset:
    record = read_record(path)
    if record is not None:
        return _open_record(path, modality, record)
    entries = find_entries(path)
    if not any(entry.suffix in chain(*READ.values()) for entry in entries):
        tables = find_tables(path, entries)
        if tables:
            return Dataset(path, *open_tables(tables, modality))
    modality, names = choose(path, modality, entries, alone)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        return (EncodedFile(names[i], read_bytes(Path(names[i]))) for i in indices)

    return Dataset(path, modality, len(names), read)


def _open_record(path: Path, modality: str | None, record: SampleRecord) -> Dataset:
    """The samples that a record lists."""
    listed = [Entry(str(file), PurePath(file.name)) for file in record.paths(path)]
    if record.picture is None and any(entry.suffix == ".npy" for entry in listed):
        raise DataError(f"{path} is an unfinished run of arrays: continue it with `resume`")
    modality, names = choose(path, modality, listed, alone=True)
    labels = record.labels(path, len(names))

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        for i in indices:
            label = None if labels is None else labels[i]
            yield EncodedFile(names[i], read_bytes(Path(names[i])), label)

    return Dataset(path, modality, len(names), read, record)


def _open_archive(path: Path, modality: str | None, alone: bool) -> Dataset:
    errors = (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError),
        *(EOFError, OSError, ValueError, struct.error),
    )
    message = f"{path} is not a complete zip archive"
    with _as_data_error(message, errors):
        archive = zipfile.ZipFile(path)
    members = {member.filename: member for member in archive.infolist()}
    sizes = [member.file_size for member in members.values()]
    check_unpacked(path, check_regular(path), sum(sizes))
    if max(sizes, default=0) > MAX_FILE_BYTES:
        raise DataError(f"{path} holds a file of over {MAX_FILE_BYTES:,} bytes: take it out")
    entries = [Entry(name, PurePath(name)) for name in sorted(members) if not name.endswith("/")]
    shown = [entry for entry in entries if not is_hidden(entry.inner)]
    modality, names = choose(path, modality, shown, alone)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        with _as_data_error(message, errors):
            for i in indices:
                yield EncodedFile(f"{path}:{names[i]}", archive.read(names[i]))

    return Dataset(path, modality, len(names), read)


@contextmanager
def _as_data_error(message: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Raise DataError in place of the errors of a reader."""
    try:
        yield
    except errors as error:
        raise DataError(f"{message}: {error}") from None


def no_files(path: str | Path, modality: str) -> DataError:
    """The error for a data set without samples of a modality, "image" or "audio"."""
    kind = "images" if modality == "image" else "sounds"
    return DataError(f"{path} holds no {kind} ({', '.join(READ[modality])})")
