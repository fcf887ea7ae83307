"""Decoding images: 8-bit grey or RGB, upright, and nothing of them lost unsaid."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fastdpm.core.errors import DataError
from fastdpm.data.spec import DataSpec, check_shape

_PLAIN, _TRANSPARENT = ("1", "L", "P", "RGB"), ("LA", "La", "PA", "RGBA", "RGBa")
_WIDE = {"I": 32, "F": 32, "I;16": 16, "I;16L": 16, "I;16B": 16, "I;16N": 16}
_COLOURS = {
    **dict.fromkeys(("1", "L", "LA", "La", *_WIDE), "grey"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGB"),
    **dict.fromkeys(("P", "PA"), "a palette"),
    "F": "float grey",
}
_BITS_PER_SAMPLE, _ORIENTATION = 258, 274  # tags of TIFF and EXIF


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
        Shape (1, H, W) if the file is grey, or a palette or WebP image (which has no grey mode)
        of grey colors; otherwise (3, H, W).

    Raises:
        DataError: If it is no whole image, or would lose something: bits, transparency, or colours
            that are not RGB.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            _check_plain(name, data, image)
            may_be_grey = image.mode == "P" or image.format == "WEBP"
            upright = _upright(image)
            if upright.mode in "1L":
                return np.asarray(upright.convert("L"))[None]
            pixels = np.asarray(upright.convert("RGB")).transpose(2, 0, 1)
    except UnidentifiedImageError:
        raise DataError(f"{name} is not a whole image: its format is unknown") from None
    except (OSError, TypeError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a whole image: {error}") from None
    grey = may_be_grey and bool((pixels == pixels[0]).all())
    return pixels[:1] if grey else pixels


def in_colours(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Pixels (C, H, W) as grey where one channel is wanted, and else as RGB."""
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
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
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
