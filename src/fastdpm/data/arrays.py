"""Reading NumPy files, and samples that are arrays instead of encoded files.

Nothing is unpickled. Sizes are compared with the file before memory is allocated.
"""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from fastdpm.core.errors import DataError
from fastdpm.core.limits import check_regular, check_unpacked
from fastdpm.data.record import ARCHIVE, read_record
from fastdpm.data.spec import DataSpec, check_shape

Values = NDArray[Any]
_DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, SyntaxError),
    *(OverflowError, RuntimeError, NotImplementedError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
_MEMBER = ".npy"
_CHUNK = 2**18


@dataclass(frozen=True, eq=False)
class LabeledArray:
    """Samples in memory.

    Attributes:
        label: Where they come from, for people.
        values: The samples; see :func:`fit_array`.
        sample_rate: Of sounds, in Hz; None if unknown.
        labels: Class label of each sample, shape (n,); None if unknown.
        channels_last: Whether images are (n, H, W, C); None to decide by the number of channels.
        generated: Whether a model drew them, as the record of their folder states.
    """

    label: str
    values: Values
    sample_rate: int | None = None
    labels: Sequence[int] | Values | None = None
    channels_last: bool | None = None
    generated: bool = False

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of its images.

        Raises:
            DataError: If the array does not have four axes.
        """
        shape = self.values.shape
        if len(shape) != 4:
            raise DataError(f"{self.label} must hold images (n, H, W, C), got shape {shape}")
        return (shape[3], *shape[1:3]) if self._last(shape) else shape[1:]

    def _last(self, shape: tuple[int, ...]) -> bool:
        return shape[3] in (1, 3) if self.channels_last is None else self.channels_last


def is_array(path: Path) -> bool:
    """Whether a path names a NumPy file, by its suffix."""
    return path.suffix.lower() in (".npy", ".npz")


def open_array(path: Path) -> LabeledArray | None:
    """The samples of a ``.npy`` or ``.npz`` file, or of a folder whose record lists one; or None.

    Raises:
        DataError: If the file is damaged, or holds several arrays or no array of numbers.
    """
    if is_array(path) and not path.is_dir():
        values, beside = _read_samples(path)
        return LabeledArray(path.name, values, labels=beside)
    record = read_record(path) if (path / ARCHIVE).is_file() else None
    if record is None or list(record.files) != [ARCHIVE]:
        return None
    values = read_array(path / ARCHIVE)
    labels = record.labels(path, len(values))
    # Its images are (n, H, W, C), whatever their size.
    label = f"{path.name}/{ARCHIVE}"
    return LabeledArray(label, values, record.sample_rate, labels, True, generated=True)


def read_array(path: Path) -> Values:
    """The array of a ``.npy`` file, or the one called "samples" or the only one of a ``.npz``.

    Raises:
        DataError: If the file is damaged, or holds several arrays or no array of numbers.
    """
    return _read_samples(path)[0]


def _read_samples(path: Path) -> tuple[Values, Values | None]:
    """The array of :func:`read_array`, and the integers "labels" beside "samples"; or None."""
    if path.suffix.lower() == ".npz":
        with _Archive(path) as archive:
            names = archive.names
            if {"mu", "sigma"} <= set(names):
                raise DataError(
                    f"{path} holds statistics, which cannot be measured: choose samples, and set"
                    " `against` to this file"
                )
            if len(names) != 1 and "samples" not in names:
                raise DataError(
                    f"{path} holds {', '.join(names) or 'no array'}: it must hold one array, or"
                    " one named 'samples'"
                )
            values = archive.read("samples" if "samples" in names else names[0])
            if not {"samples", "labels"} <= set(names):
                return values, None
            labels = archive.read("labels")
            whole = labels.dtype.kind in "iu" and labels.shape == values.shape[:1]
            whole = whole and bool(np.all(labels <= np.iinfo(np.int64).max))
            return values, labels.astype(np.int64) if whole else None
    try:
        size = check_regular(path)
        with path.open("rb") as file:
            return _read_npy(path, file, size), None
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def read_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, Values]:
    """Arrays of a ``.npz`` file by name, by default all.

    Raises:
        DataError: If the file is damaged, or one is missing or is no array of numbers.
    """
    with _Archive(path) as archive:
        return {name: archive.read(name) for name in names or archive.names}


def array_names(path: Path) -> list[str]:
    """Names of the arrays of a ``.npz`` file; empty if it cannot be read."""
    try:
        with _Archive(path) as archive:
            return archive.names
    except DataError:
        return []


def has_objects(path: Path) -> bool:
    """Whether a ``.npy`` file holds pickled objects, judged by its header.

    Raises:
        DataError: If the header is damaged.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            return bool(_read_header(file)[2].hasobject)
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def fit_array(array: LabeledArray, data: DataSpec, *, any_length: bool = False) -> Values:
    """Samples in memory as uint8 images (n, C, H, W), or float32 of shape (n, *data shape).

    Args:
        array: Images, uint8 or float in [-1, 1] of shape (n, H, W, C) or (n, C, H, W); or sounds,
            float in [-1, 1] of shape (n, length) or (n, 1, length).
        data: Modality, shape and sample rate that they must have.
        any_length: Accept sounds of any length.

    Raises:
        DataError: If they have another type, shape, range or sample rate.
    """
    label, values = array.label, array.values
    if None not in (array.sample_rate, data.sample_rate) and array.sample_rate != data.sample_rate:
        raise DataError(
            f"{label} has a sample rate of {array.sample_rate} Hz, but the model's is"
            f" {data.sample_rate} Hz: resample it first"
        )
    if data.modality == "audio" and values.ndim == 2:
        values = values[:, None]
    pixels = data.modality == "image" and values.dtype == np.uint8 and values.ndim == 4
    if not pixels and (values.dtype.kind != "f" or values.ndim != len(data.shape) + 1):
        kind = "uint8 images of shape (n, H, W, C)" if data.modality == "image" else "sounds"
        raise DataError(
            f"{label} must hold {kind}, or floats in [-1, 1] of shape (n,"
            f" {', '.join(map(str, data.shape))}), got {values.dtype} of shape {values.shape}"
        )
    if not pixels:
        check_range(label, values)
        values = values.astype(np.float32)
    if not len(values):
        kind = "images" if data.modality == "image" else "sounds"
        raise DataError(f"{label} holds no {kind}")
    if data.modality == "image" and values.shape[1:] != data.shape:
        last = replace(array, values=values).image_shape != values.shape[1:]
        values = values.transpose(0, 3, 1, 2) if last else values
    if not (any_length and values.shape[1] == 1):
        check_shape(label, values.shape[1:], data)
    return np.ascontiguousarray(values)


def check_range(label: str, values: Values | Tensor) -> None:
    """Check floats in [-1, 1], shape (n, ...); several samples in [0, 1] are refused.

    Raises:
        DataError: If a value is not finite or out of range, or no sample has a value below 0.
    """
    if not values.shape[0] or 0 in values.shape:
        return
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)) or max(-low, high) > 1:
        raise DataError(f"{label} holds values that are not finite or outside [-1, 1]")
    if in_unit_range(values):
        raise DataError(
            f"{label} has no value below 0, but floats must be in [-1, 1]: convert values in"
            " [0, 1] by 2 * x - 1"
        )


def in_unit_range(values: Values | Tensor) -> bool:
    """Whether finite floats, shape (n, ...), are those of several samples in [0, 1].

    Bright samples in [-1, 1] are not: a single sample could be one, and so could 8-bit pixels,
    which are odd multiples of 1/255 then.
    """
    if len(values) < 2 or float(values.min()) < 0 or float(values.max()) <= 0:
        return False
    even = values * 255 % 2 - 1
    return float(max(even.max(), -even.min())) > 1e-3


class _Archive:
    """A ``.npz`` file, of which every array is checked before it is unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            check_regular(path)
            self._file = zipfile.ZipFile(path)
        except _DAMAGED as error:
            raise _damaged(path, error) from None
        self._members = {m.filename.removesuffix(_MEMBER): m for m in self._file.infolist()}
        self.names = list(self._members)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, name: str) -> Values:
        """Read one array."""
        member = self._members.get(name)
        if member is None:
            raise DataError(f"{self.path} holds no array {name!r}")
        check_unpacked(f"{self.path}:{name}", member.compress_size, member.file_size)
        try:
            with self._file.open(member) as file:
                return _read_npy(self.path, file, member.file_size)
        except _DAMAGED as error:
            raise _damaged(self.path, error) from None


def _read_npy(path: Path, file: IO[bytes], size: int) -> Values:
    """An array from a stream of ``size`` bytes, of which the header must not state more."""
    shape, fortran, dtype = _read_header(file)
    if dtype.hasobject:
        raise DataError(
            f"{path} is a pickled array, which could execute code and is not read: save it as"
            " numbers"
        )
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError("its header is damaged")
    length = math.prod(shape) * dtype.itemsize
    if length > size:
        raise ValueError(f"its header states {length:,} bytes, but the file has {size:,}")
    buffer, done = np.empty(length, dtype=np.uint8), 0
    while done < length:
        part = file.read(min(length - done, _CHUNK))
        if not part:
            raise EOFError("it ends too early")
        buffer[done : done + len(part)] = np.frombuffer(part, dtype=np.uint8)
        done += len(part)
    values = buffer.view(dtype)
    return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type that a ``.npy`` file states."""
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on headers that Python 2 wrote
            return read_header(file)
    except Exception:  # the header is read by Python's own parser, which fails in many ways
        raise ValueError("its header is damaged") from None


def _damaged(path: Path, error: Exception) -> Exception:
    if isinstance(error, FileNotFoundError | PermissionError):
        return error
    return DataError(f"{path} is damaged, or it does not hold an array of numbers: save it again")
