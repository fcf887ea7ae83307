"""Data sets: Parquet files, folders and zip archives of images or sounds, and digits.

Every sample comes with the name to call it by in an error and, where the data has one, its label.
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
MOST_KEPT = 2**30
_HELD_OUT_DIGITS = 360
_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".webp"),
    "audio": (".wav", ".flac", ".ogg"),
}


class EncodedFile(NamedTuple):
    """One encoded image or sound: what to call it, its bytes, and its label or None."""

    name: str
    data: bytes
    label: int | None = None


def digits_part(part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Scikit-learn's handwritten digits: all but the last 360 rows, or those held out.

    Args:
        part: "sklearn:digits" (1,437 rows to train on) or "sklearn:digits-test" (360 rows).

    Returns:
        Images, shape (n, 1, 8, 8), 0 ... 255, and their digits, shape (n,).

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
    """Encoded images or sounds in a fixed order, each read once; see :func:`open_dataset`.

    What was read is kept in memory for the next time, up to ``MOST_KEPT`` bytes (1 GiB) in total;
    what finds no room is read again.

    Attributes:
        path: The folder or file.
        modality: "image" or "audio".
        count: How many.
        read: Reads those of rising indices, kept or not.
        record: The record of a folder of samples; None elsewhere.
    """

    path: Path
    modality: str
    count: int
    read: Callable[[Sequence[int]], Iterator[EncodedFile]]
    record: SampleRecord | None = None

    def __post_init__(self) -> None:
        if not self.count:
            raise no_files(self.path, self.modality)
        self._kept: dict[int, EncodedFile] = {}
        self._room = MOST_KEPT

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[EncodedFile]:
        return self.files(range(len(self)))

    def files(self, indices: Sequence[int]) -> Iterator[EncodedFile]:
        """Those of the indices, from 0, which rise."""
        unread = [index for index in indices if index not in self._kept]
        fresh, new = self.read(unread), set(unread)
        for index in indices:
            file = next(fresh) if index in new else self._kept[index]
            if index not in self._kept and len(file.data) <= self._room:
                self._kept[index] = file
                self._room -= len(file.data)
            yield file


def open_dataset(path: str | Path, modality: str | None = None, *, alone: bool = False) -> Dataset:
    """Open a data set; its samples are read as they are asked for.

    Args:
        path: A Parquet file with a column ``image`` or ``audio`` of encoded files (bytes, or a
            struct with ``bytes``) and perhaps a column ``label``, a folder, or a zip archive. Of a
            folder that `fastdpm sample` wrote, the files that its record lists, not its picture.
        modality: "image" or "audio"; by default the one that is there.
        alone: Refuse a folder or archive that holds other files, hidden ones aside: it would be
            measured in part.

    Raises:
        DataError: If there is no such data, it cannot be read or holds no sample, or no modality
            was stated and it holds both.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, modality, alone)
    if not path.is_file():
        raise DataError(
            f"no data at {str(path)!r}: give a Parquet file, a folder, a zip archive or {DIGITS}"
        )
    if path.suffix == ".zip":
        return _open_archive(path, modality, alone)
    if path.suffix == ".parquet":
        return _open_table(path, modality)
    raise DataError(f"{path} is neither a .parquet nor a .zip file nor a folder")


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
    with _whole(f"{path} is not a whole zip archive", errors):
        archive = zipfile.ZipFile(path)
    members = sorted(name for name in archive.namelist() if not name.endswith("/"))
    modality, names = _choose(path, modality, members, alone)

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        with _whole(f"{path} is not a whole zip archive", errors):
            for i in indices:
                yield EncodedFile(f"{path}:{names[i]}", archive.read(names[i]))

    return Dataset(path, modality, len(names), read)


def _choose(
    path: Path, modality: str | None, names: Sequence[str], alone: bool
) -> tuple[str, list[str]]:
    """The modality, and the names that are such files by their ends."""

    def are(kind: str, name: str) -> bool:
        return Path(name).suffix.lower() in _SUFFIXES[kind]

    modality = modality or _only(path, [m for m in _SUFFIXES if any(are(m, n) for n in names)])
    chosen = [name for name in names if are(modality, name)]
    hidden = {name for name in names if Path(name).name.startswith(".")}
    others = [name for name in names if name not in hidden and not are(modality, name)]
    if alone and chosen and others:
        kind = "image" if modality == "image" else "sound"
        raise DataError(
            f"{others[0]} is no {kind}: move {len(others)} such files out of {path}, which must"
            " hold samples alone"
        )
    return modality, chosen


def _open_table(path: Path, modality: str | None) -> Dataset:
    check_installed("pyarrow", "pyarrow", "train")
    import pyarrow
    import pyarrow.parquet

    errors = (pyarrow.ArrowException, OSError)
    with _whole(f"{path} is not a whole Parquet file", errors):
        file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    modality = modality or _only(path, [m for m in _SUFFIXES if m in names])
    if modality not in names:
        raise DataError(f"{path} has no column {modality!r}, only {', '.join(names)}")
    columns = [modality, "label"] if "label" in names else [modality]

    def read(indices: Sequence[int]) -> Iterator[EncodedFile]:
        wanted = set(indices)
        with _whole(f"{path} is not a whole Parquet file", errors):
            tables = (batch.to_pylist() for batch in file.iter_batches(columns=columns))
            for i, row in enumerate(chain.from_iterable(tables)):
                if i not in wanted:
                    continue
                value = row[modality]
                encoded = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(encoded, bytes):
                    raise DataError(f"{path} row {i} holds no {modality} file")
                yield EncodedFile(f"{path} row {i}", encoded, row.get("label"))

    return Dataset(path, modality, file.metadata.num_rows, read)


def _only(path: Path, modalities: list[str]) -> str:
    if len(modalities) != 1:
        what = "both images and sounds" if modalities else "neither images nor sounds"
        raise DataError(f"{path} holds {what}: give one kind of samples")
    return modalities[0]


@contextmanager
def _whole(otherwise: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        raise DataError(f"{otherwise}: {error}") from None


def no_files(path: str | Path, modality: str) -> DataError:
    """The error for data without a single sample."""
    kind = "images" if modality == "image" else "sounds"
    return DataError(f"{path} holds no {kind} ({', '.join(_SUFFIXES[modality])})")
