"""A folder of samples: the files, a picture of them, and ``samples.json``."""

from __future__ import annotations

import io
import json
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.files import write_bytes, write_text
from fastdpm.data.pixels import to_pixels, write_png
from fastdpm.data.record import RECORD
from fastdpm.data.sound import at_level, write_wav
from fastdpm.data.spec import DataSpec
from fastdpm.output.figures import MOST_SOUNDS, write_grid, write_series, write_sounds

if TYPE_CHECKING:
    from torch import Tensor

GRID, SOUNDS, SERIES = "grid.png", "sounds.png", "series.png"
_PICTURES = {"image": GRID, "audio": SOUNDS, "series": SERIES}
_SUFFIXES = {"image": "png", "audio": "wav", "series": "npy"}
_MOST_IN_GRID = 64
_SAMPLE_NAME = re.compile(r"\d+\.(png|wav|npy)")
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy")


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first number that makes it a new folder."""
    candidates = [parent / name, *(parent / f"{name}-{i}" for i in range(2, 10_000))]
    return next(path for path in candidates if not path.exists())


@dataclass
class SampleFolder:
    """Writes samples of one recipe; use :meth:`open`.

    Attributes:
        path: The folder.
        data: What the samples are.
        identity: What decides the samples; the same in a run and its continuation.
        done: Indices that are on disk.
        old: Files of an earlier run, removed when the first new ones are written.
        gain: What samples were multiplied by to be at the level of a user's files; none for
            samples at the model's own level.
    """

    path: Path
    data: DataSpec
    identity: dict[str, Any]
    done: set[int] = field(default_factory=set)
    old: tuple[str, ...] = ()
    gain: list[float] = field(default_factory=list)

    @classmethod
    def open(
        cls,
        path: Path,
        data: DataSpec,
        identity: dict[str, Any],
        *,
        overwrite: bool = False,
        resume: bool = False,
    ) -> SampleFolder:
        """Prepare a folder; nothing is written until the first samples are.

        Raises:
            InvalidArgumentError: If the folder holds files and neither ``overwrite`` nor
                ``resume`` is set, or what is to be resumed does not exist or was drawn
                differently.
            DataError: If the folder's record is damaged.
        """
        folder = cls(path, data, identity)
        if path.exists() and not path.is_dir():
            raise InvalidArgumentError(f"{path} is a file: choose another output folder")
        if resume:
            folder._read_back()
        elif path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise InvalidArgumentError(
                    f"{path} holds other files: choose another --out, or add --overwrite"
                )
            folder.old = folder._files_of_earlier_run()
        return folder

    def file_name(self, index: int) -> str:
        """Name of the file of a sample."""
        return f"{index:06d}.{_SUFFIXES[self.data.modality]}"

    def write(self, indices: Sequence[int], samples: Tensor, gain: Tensor | None = None) -> None:
        """Write a batch of samples in [-1, 1], and note that they are done.

        Args:
            indices: Of the samples.
            samples: Shape (n, *data shape).
            gain: What to multiply each by, shape (n,); nothing is multiplied by 1.
        """
        if gain is not None and not bool((gain == 1).all()):
            samples = at_level(samples, gain)
            self.gain += gain.tolist()
        self.path.mkdir(parents=True, exist_ok=True)
        self._remove(self.old)
        self.old = ()
        try:
            self._write_files(indices, samples)
            self.done.update(indices)
            self._write_record(complete=False)
        except BaseException:
            self.done.difference_update(indices)
            self._remove(self.file_name(index) for index in indices)
            if not any(self.path.iterdir()):
                self.path.rmdir()
            raise

    def _write_files(self, indices: Sequence[int], samples: Tensor) -> None:
        paths = [self.path / self.file_name(index) for index in indices]
        if self.data.modality == "image":
            for path, pixels in zip(paths, to_pixels(samples), strict=True):
                write_png(path, pixels)
            return
        for path, values in zip(paths, samples.float().cpu().numpy(), strict=True):
            if self.data.modality == "audio":
                write_wav(path, values[0], self.sample_rate)
            else:
                write_npy(path, values)

    def finish(self, facts: dict[str, Any]) -> Path:
        """Write the picture and the final record; returns the picture's path."""
        shown = sorted(self.done)
        if self.data.modality == "image":
            pixels = [self._read_png(i) for i in shown[:_MOST_IN_GRID]]
            write_grid(self.picture, np.stack(pixels))
        elif self.data.modality == "audio":
            sounds = [self._read_wav(i) for i in shown[:MOST_SOUNDS]]
            write_sounds(self.picture, np.stack(sounds), self.sample_rate)
        else:
            series = [self._read_npy(i) for i in shown[:MOST_SOUNDS]]
            write_series(self.picture, np.stack(series))
        self._write_record(complete=True, facts=facts)
        return self.picture

    @property
    def most_shown(self) -> int:
        """How many samples the picture shows at most."""
        return _MOST_IN_GRID if self.data.modality == "image" else MOST_SOUNDS

    @property
    def picture(self) -> Path:
        """The grid of images, or the picture of sounds or series."""
        return self.path / _PICTURES[self.data.modality]

    @property
    def sample_rate(self) -> int:
        """In Hz, of sound."""
        return self.data.sample_rate or 0

    def _write_record(self, *, complete: bool, facts: dict[str, Any] | None = None) -> None:
        versions = {name: version(name) for name in _PACKAGES}
        record = {
            "format": "fastdpm-samples",
            "complete": complete,
            **self.identity,
            **(facts or {}),
            "versions": versions | {"python": platform.python_version()},
            **({"gain": self.gain} if self.gain else {}),
            "files": [self.file_name(i) for i in sorted(self.done)],
            "picture": self.picture.name if complete else None,
        }
        write_text(self.path / RECORD, json.dumps(record, indent=1) + "\n")

    def _read_back(self) -> None:
        record = self._record()
        if record is None:
            raise InvalidArgumentError(f"nothing to resume: {self.path / RECORD} does not exist")
        for name, value in self.identity.items():
            if record.get(name) != value:
                raise InvalidArgumentError(
                    f"{self.path} was drawn with {name} {_words(record.get(name))}, this command"
                    f" has {_words(value)}: resume with the same choices, or choose another --out"
                )
        names = [Path(name) for name in record["files"]]
        self.done = {int(name.stem) for name in names if (self.path / name).is_file()}

    def _record(self) -> dict[str, Any] | None:
        try:
            record = json.loads((self.path / RECORD).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            raise DataError(
                f"{self.path / RECORD} is damaged: choose another --out, or delete the folder"
            ) from None
        known = isinstance(record, dict) and record.get("format") == "fastdpm-samples"
        files = record.get("files") if known else None
        if not isinstance(files, list) or not all(_SAMPLE_NAME.fullmatch(str(f)) for f in files):
            raise DataError(
                f"{self.path / RECORD} is no record of samples: choose another --out, or delete"
                " the folder"
            )
        return dict(record)

    def _files_of_earlier_run(self) -> tuple[str, ...]:
        """What its record lists, and nothing else."""
        record = self._record()
        if record is None:
            return ()
        return (*record["files"], *filter(None, [record.get("picture")]), RECORD)

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / Path(name).name).unlink(missing_ok=True)

    def _read_png(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        from PIL import Image

        path = self.path / self.file_name(index)
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path} is damaged: delete it and add --resume ({error})") from None
        return pixels[..., None] if pixels.ndim == 2 else pixels

    def _read_wav(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        import soundfile

        return np.asarray(soundfile.read(self.path / self.file_name(index), dtype="float32")[0])

    def _read_npy(self, index: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        path = self.path / self.file_name(index)
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged: delete it and add --resume ({error})") from None


def _words(value: Any) -> str:
    return (
        f"{value.get('label')} ({value.get('fingerprint')})"
        if isinstance(value, dict)
        else str(value)
    )


def write_npy(path: Path, values: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Write an array as it is, in NumPy's own format."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())
