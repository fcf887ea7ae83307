"""A folder of samples: the files, a picture of them, and ``samples.json``."""

from __future__ import annotations

import io
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.files import check_writable, write_bytes
from fastdpm.data.images import read_pixels
from fastdpm.data.pixels import to_pixels, write_png
from fastdpm.data.record import RECORD, SampleRecord, read_record
from fastdpm.data.sound import at_level, decode_sound, write_wav
from fastdpm.data.spec import DataSpec
from fastdpm.output.figures import MOST_SOUNDS, write_picture

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.models.config import ModelConfig

Draw = Callable[[Path, NDArray[Any], int], Path]

PICTURES = {"image": "grid.png", "audio": "sounds.png", "series": "series.png"}
_SUFFIXES = {"image": "png", "audio": "wav", "series": "npy"}
_MOST_IN_GRID = 64
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy")


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first number that makes it a new folder."""
    candidates = [parent / name, *(parent / f"{name}-{i}" for i in range(2, 10_000))]
    return next(path for path in candidates if not path.exists())


def made_by(config: ModelConfig, plan: Plan | None = None) -> dict[str, Any]:
    """What a record tells of the model that made something, and of the plan if there is one."""
    model = {"model": config.name, "weights_sha256": config.weights_sha256}
    if plan is None:
        return model
    return {**model, "plan": {"label": plan.label, "fingerprint": plan.fingerprint}}


def write_samples(
    folder: Path,
    data: DataSpec,
    samples: Tensor,
    gain: Tensor,
    facts: dict[str, Any],
    draw: Draw | None = None,
) -> str:
    """Write samples, their picture and their record, for which see :class:`SampleFolder`.

    Returns:
        The name of the picture.
    """
    written = SampleFolder(folder, data, facts)
    written.write(range(len(samples)), samples, gain)
    return written.finish(draw=draw).name


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
            InvalidArgumentError: If the folder cannot be written, or holds files and neither
                ``overwrite`` nor ``resume`` is set, or what is to be resumed does not exist or
                was drawn differently.
            DataError: If the folder's record is damaged.
        """
        folder = cls(path, data, identity)
        check_writable(path)
        if resume:
            folder._read_back()
        elif path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise InvalidArgumentError(
                    f"{path} holds other files: choose another `out`, or add `overwrite`"
                )
            if (record := read_record(path, own=True)) is not None:  # what it lists, no more
                folder.old = (*record.files, *filter(None, [record.picture]), RECORD)
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
            self._write_record()
        except BaseException:
            self.done.difference_update(indices)
            self._remove(self.file_name(index) for index in indices)
            if not any(self.path.iterdir()):
                self.path.rmdir()
            raise

    def _write_files(self, indices: Sequence[int], samples: Tensor) -> None:
        image = self.data.modality == "image"
        values = to_pixels(samples) if image else samples.float().cpu().numpy()
        for index, sample in zip(indices, values, strict=True):
            path = self.path / self.file_name(index)
            if image:
                write_png(path, sample)
            elif self.data.modality == "audio":
                write_wav(path, sample[0], self.data.sample_rate or 0)
            else:
                buffer = io.BytesIO()
                np.save(buffer, sample, allow_pickle=False)
                write_bytes(path, buffer.getbuffer())

    def finish(self, facts: dict[str, Any] | None = None, draw: Draw | None = None) -> Path:
        """Write the picture and the final record; returns the picture's path.

        Args:
            facts: What else the record tells.
            draw: Draws all samples in place of the usual picture of the first ones: given the
                folder, the samples as their files have them and the rate of sounds, it returns
                the picture's path.
        """
        most = self.most_shown if draw is None else None
        shown = np.stack([self._read(i) for i in sorted(self.done)[:most]])
        if draw is None:
            picture = self.path / PICTURES[self.data.modality]
            write_picture(picture, shown, self.data.sample_rate)
        else:
            picture = draw(self.path, shown, self.data.sample_rate or 0)
        self._write_record(picture.name, facts)
        return picture

    @property
    def most_shown(self) -> int:
        """How many samples the picture shows at most."""
        return _MOST_IN_GRID if self.data.modality == "image" else MOST_SOUNDS

    def _write_record(
        self, picture: str | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        versions = {name: version(name) for name in _PACKAGES}
        versions["python"] = platform.python_version()
        record = SampleRecord(
            [self.file_name(i) for i in sorted(self.done)],
            picture,
            {**self.identity, **(facts or {}), "versions": versions},
            self.gain or None,
        )
        record.write(self.path)

    def _read_back(self) -> None:
        record = read_record(self.path, own=True)
        if record is None:
            raise InvalidArgumentError(f"nothing to resume: {self.path / RECORD} does not exist")
        for name, value in self.identity.items():
            found = record.facts.get(name)
            if found != value:
                raise InvalidArgumentError(
                    f"{self.path} was drawn with {name} {_words(found)}, this command has"
                    f" {_words(value)}: resume with the same choices, or choose another `out`"
                )
        names = [Path(name) for name in record.files]
        self.done = {int(name.stem) for name in names if (self.path / name).is_file()}

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / Path(name).name).unlink(missing_ok=True)

    def _read(self, index: int) -> NDArray[Any]:
        """A sample as its file has it: pixels (H, W, C), a sound (samples,), or a series."""
        path = self.path / self.file_name(index)
        try:
            if self.data.modality == "series":
                return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
            if self.data.modality == "image":
                return read_pixels(str(path), path.read_bytes()).transpose(1, 2, 0)
            return decode_sound(str(path), path.read_bytes())[0]
        except (DataError, OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} is damaged: delete it and add `resume` ({error})") from None


def _words(value: Any) -> str:
    return (
        f"{value.get('label')} ({value.get('fingerprint')})"
        if isinstance(value, dict)
        else str(value)
    )
