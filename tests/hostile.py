"""Damaged and hostile files: bytes, or functions that write them at a path."""

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

Made = bytes | str | Callable[[Path], object]


def make(path: Path, content: Made) -> None:
    """Write a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def flipped(whole: bytes, seed: int) -> bytes:
    """A copy with one to eight bits flipped, more of them near the start."""
    generator = np.random.default_rng(seed)
    changed = bytearray(whole)
    for _ in range(int(generator.integers(1, 9))):
        place = int(len(changed) * generator.random() ** 2)
        changed[place] ^= 1 << int(generator.integers(8))
    return bytes(changed)


def image(kind: str = "PNG", size: int = 8, **options: Any) -> bytes:
    """An image of random gray pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def frames(kind: str) -> bytes:
    """An image of two frames."""
    pictures = [Image.fromarray(np.full((8, 8), 9 * i, dtype=np.uint8)) for i in (1, 2)]
    buffer = io.BytesIO()
    pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def zeros(count: int) -> bytes:
    """Zeros, compressed."""
    return zlib.compress(b"\0" * count)


def png(width: int, height: int, rows: bytes = b"", *more: bytes, depth: int = 8) -> bytes:
    """A PNG file that states any size."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + body + chunk(b"IEND", b"")


def sound(
    samples: Any = None, rate: int = 8000, kind: str = "WAV", subtype: str = "PCM_16"
) -> bytes:
    """A sound file, by default a tone of 512 samples."""
    tone = 0.5 * np.sin(np.arange(512) * 0.3) if samples is None else samples
    buffer = io.BytesIO()
    soundfile.write(buffer, tone, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def flac_of(count: int) -> bytes:
    """A FLAC file that states a number of samples."""
    whole = bytearray(sound(kind="FLAC"))
    whole[21] = whole[21] & 0xF0 | count >> 32 & 0xF
    whole[22:26] = (count & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(whole)


def npy(array: Any) -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npy_stating(header: str, body: bytes = b"\0" * 64) -> bytes:
    """A .npy file with any header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + body


def npz(**arrays: Any) -> bytes:
    """A .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def archive(*members: tuple[str, bytes]) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members:
            file.writestr(name, data)
    return buffer.getvalue()


def patched(whole: bytes, offset: int, value: bytes) -> bytes:
    """A zip archive with bytes of the first entry of its directory replaced."""
    place = whole.index(b"PK\1\2") + offset
    return whole[:place] + value + whole[place + len(value) :]


def bomb(whole: bytes, size: int = 2**31) -> bytes:
    """A zip archive whose first member states a size."""
    return patched(whole, 24, struct.pack("<I", size))


def parquet(**columns: Any) -> bytes:
    """A Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def fifo(path: Path) -> None:
    """A pipe that nobody writes to: a reader would wait forever."""
    os.mkfifo(path)


def folder(files: Mapping[str, Made]) -> Callable[[Path], None]:
    """A folder of files."""

    def write(path: Path) -> None:
        path.mkdir()
        for name, content in files.items():
            make(path / name, content)

    return write


def link(target: str) -> Callable[[Path], None]:
    """A symbolic link."""
    return lambda path: path.symlink_to(target)


def record(**changes: Any) -> Callable[[Path], None]:
    """A folder of two samples whose record is changed."""
    body = {"format": "fastdpm-samples", "complete": True, "files": ["0.png", "1.png"]}
    text = json.dumps(body | {"picture": None} | changes)
    return folder({"0.png": image(), "1.png": image(), "samples.json": text})


def array_run(sample_rate: Any, values: Any, **facts: Any) -> Callable[[Path], None]:
    """A folder of one array of samples."""
    body = {"files": ["samples.npz"], "picture": "x.png", "sample_rate": sample_rate} | facts
    return folder({"samples.npz": npz(samples=values), "samples.json": json.dumps(body)})


def deep(depth: int) -> str:
    """JSON lists inside each other."""
    return "[" * depth + "]" * depth
