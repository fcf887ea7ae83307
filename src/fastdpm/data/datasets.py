"""Reading data sets: Parquet files, folders and zip archives of images or sound, and digits.

Every sample comes with the name to call it by in an error and, where the data has one, its label.
"""

from __future__ import annotations

import importlib
import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, MissingExtraError
from fastdpm.data.record import recorded_files
from fastdpm.data.sound import sample_rate_of
from fastdpm.data.spec import DataSpec

if TYPE_CHECKING:
    from PIL import Image

DIGITS, DIGITS_TEST = "sklearn:digits", "sklearn:digits-test"
_HELD_OUT_DIGITS = 360
_PLAIN, _TRANSPARENT = ("1", "L", "P", "RGB"), ("LA", "La", "PA", "RGBA", "RGBa")
_WIDE = {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
_COLOURS = {
    **dict.fromkeys(("1", "L", "LA", "La", *_WIDE), "grey"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGB"),
    **dict.fromkeys(("P", "PA"), "a palette"),
    "F": "float grey",
}
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274  # tags of TIFF and EXIF
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
    digits = _import("sklearn.datasets", "scikit-learn").load_digits()
    images = np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8)
    rows = slice(None, -_HELD_OUT_DIGITS) if part == DIGITS else slice(-_HELD_OUT_DIGITS, None)
    return images[rows], np.asarray(digits.target[rows], dtype=np.int64)


def encoded_files(path: str | Path, modality: str) -> Iterator[EncodedFile]:
    """Encoded images or sounds, one after the other.

    Args:
        path: A Parquet file with a column ``image`` or ``audio`` of encoded files (bytes, or a
            struct with ``bytes``) and perhaps a column ``label``, a folder, or a zip archive.
        modality: "image" or "audio".

    Raises:
        DataError: If there is no such data or it cannot be read.
        MissingExtraError: If reading it needs a package that is not installed.
    """
    path = Path(path)
    if path.is_dir():
        return (EncodedFile(str(p), p.read_bytes()) for p in files_of(path, modality))
    if not path.is_file():
        raise DataError(
            f"no data at {str(path)!r}: give a Parquet file, a folder, a zip archive or {DIGITS}"
        )
    if path.suffix == ".zip":
        return _zip_members(path, modality)
    if path.suffix == ".parquet":
        return _parquet_rows(path, modality)
    raise DataError(f"{path} is neither a .parquet nor a .zip file nor a folder")


def count_files(path: str | Path, modality: str) -> int:
    """How many encoded files :func:`encoded_files` gives, without decoding one."""
    path = Path(path)
    if path.is_dir():
        return len(files_of(path, modality))
    if path.suffix != ".parquet" or not path.is_file():
        return sum(1 for _ in encoded_files(path, modality))
    return int(_parquet(path).metadata.num_rows)


def files_of(folder: Path, modality: str) -> list[Path]:
    """The images or sounds below a folder, by the ends of their names, in order.

    Of a folder that `fastdpm sample` wrote, those that its record lists: not its picture.

    Raises:
        DataError: If that record is damaged or a file of it is missing.
    """
    found = recorded_files(folder)
    if found is None:
        found = sorted(p for p in folder.rglob("*") if p.is_file())
    return [path for path in found if path.suffix.lower() in _SUFFIXES[modality]]


def check_samples_alone(path: str | Path, modality: str) -> None:
    """Refuse a folder or archive that holds more than samples: it would be measured in part.

    Raises:
        DataError: If there are other files, hidden ones aside.
    """
    path = Path(path)
    if path.is_dir() and recorded_files(path) is None:
        names = [str(p) for p in sorted(path.rglob("*")) if p.is_file()]
    elif path.suffix == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    else:
        return
    others = [
        name
        for name in names
        if Path(name).suffix.lower() not in _SUFFIXES[modality]
        and not Path(name).name.startswith(".")
    ]
    if others and len(others) < len(names):
        kind = "image" if modality == "image" else "sound"
        raise DataError(
            f"{others[0]} is no {kind}: move {len(others)} such files out of {path}, which must"
            " hold samples alone"
        )


def modality_of(path: str | Path) -> str:
    """Whether a data set holds images ("image") or sounds ("audio").

    Raises:
        DataError: If it holds neither, or both.
    """
    if Path(path).suffix == ".parquet" and Path(path).is_file():
        names = _parquet(Path(path)).schema_arrow.names
        found = [modality for modality in _SUFFIXES if modality in names]
    else:
        found = [m for m in _SUFFIXES if next(iter(encoded_files(path, m)), None) is not None]
    if len(found) != 1:
        what = "both images and sounds" if found else "neither images nor sounds"
        raise DataError(f"{path} holds {what}: give one kind of samples")
    return found[0]


def first_sample_rate(path: str | Path) -> int:
    """Sample rate of the first sound of a data set, in Hz.

    Raises:
        DataError: If there is none or it is damaged.
    """
    file = next(iter(encoded_files(path, "audio")), None)
    if file is None:
        raise no_files(path, "audio")
    return sample_rate_of(file.name, file.data)


def first_image_shape(path: str | Path) -> tuple[int, ...]:
    """Shape (C, H, W) of the first image of a data set, C being 1 for grey and 3 for colour.

    Raises:
        DataError: If there is none or it is damaged.
    """
    file = next(iter(encoded_files(path, "image")), None)
    if file is None:
        raise no_files(path, "image")
    return read_pixels(file.name, file.data).shape


def _zip_members(path: Path, modality: str) -> Iterator[EncodedFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in _SUFFIXES[modality]:
                    yield EncodedFile(f"{path}:{name}", archive.read(name))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path} is not a whole zip archive: {error}") from None


def _parquet_rows(path: Path, modality: str) -> Iterator[EncodedFile]:
    file = _parquet(path)
    errors = _import("pyarrow", "pyarrow").ArrowException
    try:
        names = file.schema_arrow.names
        if modality not in names:
            raise DataError(f"{path} has no column {modality!r}, only {', '.join(names)}")
        columns = [modality, "label"] if "label" in names else [modality]
        row = 0
        for batch in file.iter_batches(columns=columns):
            values = [batch.column(name).to_pylist() for name in columns]
            for value, *label in zip(*values, strict=True):
                encoded = value.get("bytes") if isinstance(value, dict) else value
                if not isinstance(encoded, bytes):
                    raise DataError(f"{path} row {row} holds no {modality} file")
                yield EncodedFile(f"{path} row {row}", encoded, *label)
                row += 1
    except (errors, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}") from None


def _parquet(path: Path) -> Any:
    """A Parquet file, opened; of pyarrow's own type."""
    errors = _import("pyarrow", "pyarrow").ArrowException
    try:
        return _import("pyarrow.parquet", "pyarrow").ParquetFile(path)
    except (errors, OSError) as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}") from None


def decode_image(
    name: str, data: bytes, spec: DataSpec, *, drop_colour: bool = True
) -> NDArray[np.uint8]:
    """Decode an image, shape (C, H, W), 0 ... 255.

    Args:
        name: What to call it in an error.
        data: The encoded image.
        spec: What it must be; grey images become RGB where that is wanted.
        drop_colour: Turn RGB into grey where that is wanted, or refuse it.

    Raises:
        DataError: If :func:`read_pixels` refuses it, or it has another shape than ``spec`` wants.
    """
    pixels = read_pixels(name, data)
    if drop_colour or len(pixels) == 1:
        pixels = in_colours(pixels, spec.shape[0])
    check_shape(name, pixels.shape, spec)
    return pixels


def read_pixels(name: str, data: bytes) -> NDArray[np.uint8]:
    """Decode an image of 8-bit grey or RGB, turned upright.

    Returns:
        Shape (1, H, W) where the file is grey, a palette of greys included, and else (3, H, W).

    Raises:
        DataError: If it is no whole image, or would lose something: bits, transparency, or colours
            that are not RGB.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_plain(name, data, image)
            upright = _upright(image)
            if upright.mode in "1L":
                return np.asarray(upright.convert("L"))[None]
            pixels = np.asarray(upright.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a whole image: its format is unknown") from None
    except (OSError, TypeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a whole image: {error}") from None
    grey = upright.mode == "P" and bool((pixels == pixels[0]).all())
    return pixels[:1] if grey else pixels


def in_colours(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Pixels (C, H, W) as grey where one channel is wanted, and else as RGB."""
    from PIL import Image

    if channels == 1 and len(pixels) == 3:
        return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]
    return pixels.repeat(3, axis=0) if channels != 1 and len(pixels) == 1 else pixels


def _check_plain(name: str, data: bytes, image: Image.Image) -> None:
    """Refuse what Pillow would cut to 8-bit grey or RGB, saying what it is."""
    bits = _bits(data, image)
    colours = _COLOURS.get(image.mode, image.mode)
    if bits > 8:
        raise DataError(f"{name} is {bits}-bit {colours}: convert it to 8-bit grey or RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        raise DataError(
            f"{name} is {colours} with transparency: put it on a background of one colour and save"
            " it without transparency"
        )
    if image.mode not in _PLAIN:
        raise DataError(f"{name} is {colours}: convert it to 8-bit grey or RGB")


def _bits(data: bytes, image: Image.Image) -> int:
    """Bits of a channel, as the file says: Pillow gives 16-bit RGB as if it had 8."""
    if data.startswith(b"\x89PNG"):
        return data[24]
    tags = getattr(image, "tag_v2", {})
    return int(max((_WIDE.get(image.mode, 8), *tags.get(_BITS_PER_SAMPLE, ()))))


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says, for a photo is seen that way."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    image.load()  # turns a TIFF file
    # Not ImageOps.exif_transpose, which fails where other parts of the EXIF are damaged.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            turn = turns.get(image.getexif().get(_ORIENTATION, 1))
        except (OSError, SyntaxError, TypeError, ValueError, LookupError, struct.error):
            turn = None
    return image if turn is None else image.transpose(turn)


def check_shape(name: str, found: tuple[int, ...], spec: DataSpec) -> None:
    """Raise DataError unless a sample has the shape that ``spec`` wants."""
    if tuple(found) != spec.shape:
        raise DataError(
            f"{name} has shape {tuple(found)}, but {spec.shape} is needed: change the data, or"
            " what it is for"
        )


def no_files(path: str | Path, modality: str) -> DataError:
    """The error for data without a single sample."""
    kind = "images" if modality == "image" else "sounds"
    return DataError(f"{path} holds no {kind} ({', '.join(_SUFFIXES[modality])})")


def _import(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtraError(package, "train") from None
