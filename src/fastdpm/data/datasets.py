"""Data sets: folders, zip archives and Parquet files of images or sounds, and scikit-learn digits.

Every sample has a name for error messages and, if the data set has labels, a label.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, check_installed
from fastdpm.data.record import SampleRecord, read_record

DIGITS, DIGITS_TEST = "sklearn:digits", "sklearn:digits-test"
MAX_CACHED_BYTES = 2**30
_HELD_OUT_DIGITS = 360
_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".webp"),
    "audio": (".wav", ".flac", ".ogg"),
}


class EncodedFile(NamedTuple):
    """One encoded image or sound.

    Attributes:
        name: Its name in error messages: a path, or a place in a file.
        data: The encoded bytes.
        label: Its class, or None.
    """

    name: str
    data: bytes
    label: int | None = None


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
        path: A folder, a zip archive or a Parquet file. A Parquet file has a column ``image`` or
            ``audio`` of encoded files (bytes, or a struct with ``bytes``) and optionally a column
            ``label``. In a folder that `fastdpm sample` wrote, only the samples that its record
            lists are read.
        modality: "image" or "audio"; by default, the one that the data set holds.
        alone: Raise an error if a folder or archive holds any other files, except hidden ones.

    Raises:
        DataError: If the path does not exist, cannot be read or holds no samples, or
            ``modality`` is None and it holds both images and sounds.
        MissingExtraError: If a package needed to read it is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, modality, alone)
    if not path.is_file():
        raise DataError(
            f"no data at {str(path)!r}: pass a folder, a zip archive, a Parquet file or {DIGITS}"
        )
    if path.suffix == ".zip":
        return _open_archive(path, modality, alone)
    if path.suffix == ".parquet":
        return _open_table(path, modality)
    raise DataError(f"{path} cannot be read: pass a folder, a .zip file or a .parquet file")


def _open_folder(path: Path, modality: str | None, alone: bool) -> Dataset:
    record = read_record(path)
    if record is None:
        found = sorted(p for p in path.rglob("*") if p.is_file())
    else:
        found, alone = record.paths(path), False
    modality, names = _choose(path, modality, [str(p) for p in found], alone)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        return (EncodedFile(names[i], Path(names[i]).read_bytes()) for i in indices)

    return Dataset(path, modality, len(names), read, record)


def _open_archive(path: Path, modality: str | None, alone: bool) -> Dataset:
    errors = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
    message = f"{path} is not a complete zip archive"
    with _as_data_error(message, errors):
        archive = zipfile.ZipFile(path)
    members = sorted(name for name in archive.namelist() if not name.endswith("/"))
    modality, names = _choose(path, modality, members, alone)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        with _as_data_error(message, errors):
            for i in indices:
                yield EncodedFile(f"{path}:{names[i]}", archive.read(names[i]))

    return Dataset(path, modality, len(names), read)


def _choose(
    path: Path, modality: str | None, names: Sequence[str], alone: bool
) -> tuple[str, list[str]]:
    """The modality, and the names whose suffix is one of that modality."""

    def matches(kind: str, name: str) -> bool:
        return Path(name).suffix.lower() in _SUFFIXES[kind]

    present = [kind for kind in _SUFFIXES if any(matches(kind, name) for name in names)]
    modality = modality or _single_modality(path, present)
    chosen = [name for name in names if matches(modality, name)]
    hidden = {name for name in names if Path(name).name.startswith(".")}
    others = [name for name in names if name not in hidden and not matches(modality, name)]
    if alone and chosen and others:
        kind = "an image" if modality == "image" else "a sound"
        raise DataError(
            f"{others[0]} is not {kind}: {path} must contain only samples, so move"
            f" {len(others)} other files out of it"
        )
    return modality, chosen


def _open_table(path: Path, modality: str | None) -> Dataset:
    check_installed("pyarrow", "pyarrow", "train")
    import pyarrow
    import pyarrow.parquet

    errors = (pyarrow.ArrowException, OSError)
    message = f"{path} is not a complete Parquet file"
    with _as_data_error(message, errors):
        file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    modality = modality or _single_modality(path, [m for m in _SUFFIXES if m in names])
    if modality not in names:
        raise DataError(f"{path} has no column {modality!r}, only {', '.join(names)}")
    columns = [modality, "label"] if "label" in names else [modality]

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        selected = set(indices)
        with _as_data_error(message, errors):
            tables = (batch.to_pylist() for batch in file.iter_batches(columns=columns))
            for i, row in enumerate(chain.from_iterable(tables)):
                if i not in selected:
                    continue
                value = row[modality]
                encoded = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(encoded, bytes):
                    raise DataError(f"{path} row {i} holds no encoded {modality} file")
                yield EncodedFile(f"{path} row {i}", encoded, row.get("label"))

    return Dataset(path, modality, file.metadata.num_rows, read)


def _single_modality(path: Path, modalities: list[str]) -> str:
    """The only modality of a data set; raises DataError if there are several, or none."""
    if len(modalities) != 1:
        what = "both images and sounds" if modalities else "neither images nor sounds"
        raise DataError(f"{path} holds {what}: use a data set of one kind")
    return modalities[0]


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
    return DataError(f"{path} holds no {kind} ({', '.join(_SUFFIXES[modality])})")
