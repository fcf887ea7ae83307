"""Decoding images to 8-bit gray or RGB; images that would lose information are refused."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastdpm.core.errors import DataError, first_line
from fastdpm.core.limits import MAX_PIXELS
from fastdpm.data.spec import DataSpec, check_shape

_PLAIN, _TRANSPARENT = ("1", "L", "P", "RGB"), ("LA", "La", "PA", "RGBA", "RGBa")
_WIDE = {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
_COLOR_NAMES = {
    **dict.fromkeys(("1", "L", "LA", "La", *_WIDE), "gray"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGB"),
    **dict.fromkeys(("P", "PA"), "palette"),
    "F": "float gray",
}
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274  # TIFF and EXIF tags


def decode_image(
    name: str, data: bytes, spec: DataSpec, *, drop_colour: bool = True
) -> NDArray[np.uint8]:
    """Decode an image to the shape of ``spec``, (C, H, W), uint8.

    Args:
        name: The image's name in error messages.
        data: The encoded image.
        spec: The expected data. Gray images are converted to RGB if it has three channels.
        drop_colour: If ``spec`` has one channel, convert RGB images to gray instead of raising
            an error.

    Raises:
        DataError: See :func:`read_pixels`; or if the shape is not that of ``spec``.
    """
    pixels = read_pixels(name, data)
    if drop_colour or len(pixels) == 1:
        pixels = to_channels(pixels, spec.shape[0])
    check_shape(name, pixels.shape, spec)
    return pixels


def read_pixels(name: str, data: bytes) -> NDArray[np.uint8]:
    """Decode an 8-bit gray or RGB image and apply its EXIF orientation.

    Args:
        name: The image's name in error messages.
        data: The encoded image.

    Returns:
        uint8, shape (1, H, W) for a gray image, or for a palette or WebP image of grays (WebP has
        no gray mode); otherwise (3, H, W).

    Raises:
        DataError: If the image is incomplete or too large, has several frames, more than 8 bits
            per channel or transparency, or is neither gray nor RGB.
    """
    try:
        with _bounded(), Image.open(io.BytesIO(data)) as image:
            _check_size(name, image)
            _check_plain(name, data, image)
            may_be_gray = image.mode == "P" or image.format == "WEBP"
            upright = _upright(image)
            if upright.mode in "1L":
                return np.asarray(upright.convert("L"))[None]
            pixels = np.asarray(upright.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a complete image: its format is unknown") from None
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders fail in many ways on damaged bytes
        raise DataError(f"{name} is not a complete image: {first_line(error)}") from None
    gray = may_be_gray and bool((pixels == pixels[0]).all())
    return pixels[:1] if gray else pixels


def read_rgba(name: str, data: bytes) -> NDArray[np.uint8]:
    """Decode any image as RGBA pixels, shape (H, W, 4).

    Raises:
        DataError: If the image is incomplete or too large.
    """
    try:
        with _bounded(), Image.open(io.BytesIO(data)) as image:
            _check_size(name, image)
            return np.asarray(image.convert("RGBA"))
    except (DataError, MemoryError):
        raise
    except Exception as error:  # decoders fail in many ways on damaged bytes
        raise DataError(f"{name} is not a complete image: {first_line(error)}") from None


def to_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Convert pixels (C, H, W) to gray if ``channels`` is 1, and to RGB otherwise."""
    if channels == 1 and len(pixels) == 3:
        return np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).convert("L"))[None]
    return pixels.repeat(3, axis=0) if channels != 1 and len(pixels) == 1 else pixels


@contextmanager
def _bounded() -> Iterator[None]:
    """Leave warnings on large images and damaged metadata to the checks here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_size(name: str, image: Image.Image) -> None:
    """Refuse an image of too many pixels before they are decoded, and one of several frames."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{name} has {width} x {height} pixels: at most {MAX_PIXELS:,} are read")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DataError(f"{name} has {frames} frames: save each one as an image")


def _check_plain(name: str, data: bytes, image: Image.Image) -> None:
    """Refuse images that would lose information in 8-bit gray or RGB."""
    bits = _bits(data, image)
    colors = _COLOR_NAMES.get(image.mode, image.mode)
    if bits > 8:
        raise DataError(f"{name} is {bits}-bit {colors}: convert it to 8-bit gray or RGB")
    if image.mode in _TRANSPARENT or "transparency" in image.info:
        raise DataError(
            f"{name} is {colors} with transparency: put it on a background of one color and save"
            " it without transparency"
        )
    if image.mode not in _PLAIN:
        raise DataError(f"{name} is {colors}: convert it to 8-bit gray or RGB")


def _bits(data: bytes, image: Image.Image) -> int:
    """Bits per channel in the file; Pillow silently opens 16-bit RGB files as 8-bit."""
    if data.startswith(b"\x89PNG"):
        return data[24]
    tags = getattr(image, "tag_v2", {})
    return int(max((_WIDE.get(image.mode, 8), *tags.get(_BITS_PER_SAMPLE, ()))))


def _upright(image: Image.Image) -> Image.Image:
    """The image with its EXIF orientation applied."""
    transposes = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image.load()  # applies the orientation of a TIFF file
    # ImageOps.exif_transpose would fail if another part of the EXIF data is damaged.
    try:
        transpose = transposes.get(image.getexif().get(_ORIENTATION, 1))
    except (OSError, SyntaxError, TypeError, ValueError, LookupError, struct.error):
        transpose = None
    return image if transpose is None else image.transpose(transpose)
