"""Training data, held whole on the device: pictures as uint8, sound as int16.

Reads Parquet files, folders and zip archives of images or sound, and scikit-learn's digits.
"""

from __future__ import annotations

import importlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.errors import DataError, MissingExtraError
from fastdpm.models.config import DataSpec
from fastdpm.models.mel import log_mel
from fastdpm.models.sound import read_sound

DIGITS = "sklearn:digits"
HELD_OUT_DIGITS = 360
_IMAGE_MODES = ("1", "L", "P", "RGB")
_SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".webp"),
    "audio": (".wav", ".flac", ".ogg"),
}


@dataclass(frozen=True)
class TrainingData:
    """Samples on a device and how to make a batch of them.

    Attributes:
        spec: What they are.
        values: uint8 images (n, C, H, W), or int16 sound (n, longest), padded with zeros.
        lengths: Samples of each recording, shape (n,); None for images.
        horizontal_flip: Mirror half of the images.
    """

    spec: DataSpec
    values: Tensor
    lengths: Tensor | None = None
    horizontal_flip: bool = False

    def __len__(self) -> int:
        return len(self.values)

    def to(self, device: torch.device) -> TrainingData:
        """The same on another device."""
        lengths = None if self.lengths is None else self.lengths.to(device)
        return TrainingData(self.spec, self.values.to(device), lengths, self.horizontal_flip)

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """A random batch in [-1, 1], shape (size, ...), and its mel spectrograms or None."""
        device = self.values.device
        index = torch.randint(len(self), (size,), generator=generator, device=device)
        if self.lengths is None:
            images = self.values[index].float() / 127.5 - 1
            if self.horizontal_flip:
                mirror = torch.rand(size, 1, 1, 1, generator=generator, device=device) < 0.5
                images = torch.where(mirror, images.flip(-1), images)
            return images, None
        place = torch.rand(size, 1, generator=generator, device=device)
        sound = self.windows(index, place)
        mel = None if self.spec.mel is None else log_mel(sound[:, 0], self.spec.mel)
        return sound, mel

    def windows(self, index: Tensor, place: Tensor) -> Tensor:
        """Windows of recordings, shape (n, 1, window).

        ``place`` in [0, 1], shape (n, 1), moves the window over a longer recording, or a shorter
        recording within the silence that fills the window.
        """
        if self.lengths is None:
            raise DataError("windows are cut from sound, and this data is images")
        window = self.spec.shape[-1]
        lengths = self.lengths[index][:, None]
        spare = lengths - window
        start = spare.clamp_max(0) + (place * (spare.abs() + 1)).long().clamp_max(spare.abs())
        position = start + torch.arange(window, device=index.device)
        inside = (position >= 0) & (position < lengths)
        table = self.values[index].gather(1, position.clamp(0, self.values.shape[1] - 1))
        return (table.float() / 32768 * inside)[:, None]


def load_training_data(
    path: str, spec: DataSpec, *, horizontal_flip: bool = False
) -> TrainingData:
    """Read training data into memory.

    Args:
        path: A Parquet file with a column ``image`` or ``audio`` of encoded files, a folder or a
            zip archive of such files, or "sklearn:digits" (all but its last 360 rows, which are
            held out).
        spec: What the samples must be.
        horizontal_flip: Mirror half of the images in every batch.

    Raises:
        DataError: If the data cannot be read, is empty, or has another shape or sample rate.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    if path == DIGITS:
        images = digits_pixels()[:-HELD_OUT_DIGITS]
        _check_shape("digits", images.shape[1:], spec)
        return TrainingData(spec, torch.from_numpy(images), horizontal_flip=horizontal_flip)
    files = _encoded_files(Path(path), spec.modality)
    if spec.modality == "image":
        pictures = [_decode_image(name, data, spec) for name, data in files]
        if not pictures:
            raise _empty(path, spec.modality)
        values = torch.from_numpy(np.stack(pictures))
        return TrainingData(spec, values, horizontal_flip=horizontal_flip)
    sounds = [read_sound(name, data, spec) for name, data in files]
    if not sounds:
        raise _empty(path, spec.modality)
    table = np.zeros((len(sounds), max(map(len, sounds))), dtype=np.int16)
    for row, sound in zip(table, sounds, strict=True):
        row[: len(sound)] = np.clip(np.rint(sound * 32768), -32768, 32767)
    lengths = torch.tensor([len(sound) for sound in sounds])
    return TrainingData(spec, torch.from_numpy(table), lengths)


def digits_pixels() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scikit-learn's 1,797 handwritten digits, shape (1797, 1, 8, 8), 0 ... 255."""
    digits = _import("sklearn.datasets", "scikit-learn").load_digits()
    return np.asarray(np.rint(digits.images[:, None] * (255 / 16)), dtype=np.uint8)


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(package, "train") from None


def _encoded_files(path: Path, modality: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each encoded image or sound."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES[modality])
        return ((str(p), p.read_bytes()) for p in found)
    if not path.is_file():
        raise DataError(
            f"no data at {str(path)!r}: give a Parquet file, a folder, a zip archive or {DIGITS}"
        )
    if path.suffix == ".zip":
        return _zip_members(path, modality)
    if path.suffix == ".parquet":
        return _parquet_rows(path, modality)
    raise DataError(f"{path} is neither a .parquet nor a .zip file nor a folder")


def _zip_members(path: Path, modality: str) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in _SUFFIXES[modality]:
                    yield f"{path}:{name}", archive.read(name)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole zip archive: {error}") from None


def _parquet_rows(path: Path, modality: str) -> Iterator[tuple[str, bytes]]:
    parquet = _import("pyarrow.parquet", "pyarrow")
    errors = _import("pyarrow", "pyarrow").ArrowException
    try:
        file = parquet.ParquetFile(path)
        if modality not in file.schema_arrow.names:
            raise DataError(
                f"{path} has no column {modality!r}, only {', '.join(file.schema_arrow.names)}"
            )
        row = 0
        for batch in file.iter_batches(columns=[modality]):
            for value in batch.column(0).to_pylist():
                encoded = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(encoded, bytes):
                    raise DataError(f"{path} row {row} holds no {modality} file")
                yield f"{path} row {row}", encoded
                row += 1
    except (errors, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}") from None


def _decode_image(name: str, data: bytes, spec: DataSpec) -> np.ndarray[Any, np.dtype[np.uint8]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in _IMAGE_MODES:
                raise DataError(
                    f"{name} has pixels of mode {image.mode}: convert it to 8-bit grey or RGB"
                )
            pixels = np.asarray(image.convert("L" if spec.shape[0] == 1 else "RGB"))
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a whole image: its format is unknown") from None
    except (OSError, TypeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a whole image: {error}") from None
    picture = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    _check_shape(name, picture.shape, spec)
    return picture


def _check_shape(name: str, found: tuple[int, ...], spec: DataSpec) -> None:
    if tuple(found) != spec.shape:
        raise DataError(
            f"{name} has shape {tuple(found)}, the model needs {spec.shape}: resize the data or"
            " change the configuration"
        )


def _empty(path: str, modality: str) -> DataError:
    return DataError(f"{path} holds no {modality}s ({', '.join(_SUFFIXES[modality])})")
