"""A folder of samples: the files, a picture of them, and ``samples.json``."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.structure import plain
from fastdpm.data.files import check_writable
from fastdpm.data.record import ARCHIVE, FORMATS, RECORD, SampleRecord, check_format, read_record
from fastdpm.data.sound import at_level
from fastdpm.data.spec import DataSpec
from fastdpm.output import sample_files
from fastdpm.output.figures import MAX_SOUNDS, write_picture

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.models.config import ModelConfig

Draw = Callable[[Path, NDArray[Any], int], Path]

PICTURES = {"image": "grid.png", "audio": "sounds.png", "series": "series.png"}
_SHOWN_IN_GRID = 64
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy")


def free_folder(parent: Path, name: str) -> Path:
    """``parent/name``, or with the first number that makes it a new folder."""
    candidates = [parent / name, *(parent / f"{name}-{i}" for i in range(2, 10_000))]
    return next(path for path in candidates if not path.exists())


def made_by(
    config: ModelConfig, plan: Plan | None = None, recipe: Recipe | None = None
) -> dict[str, Any]:
    """What a record says about the model that made something, and the plan and recipe if any."""
    made: dict[str, Any] = {"model": config.name, "weights_sha256": config.weights_sha256}
    if plan is not None:
        made["plan"] = {"label": plan.label, "fingerprint": plan.fingerprint}
    if recipe is not None:
        made["recipe"] = plain(recipe)
    return made


def write_samples(
    folder: Path,
    data: DataSpec,
    samples: Tensor,
    gain: Tensor,
    facts: dict[str, Any],
    draw: Draw | None = None,
) -> str:
    """Write samples, their picture and their record; see :class:`SampleFolder`.

    Returns:
        The name of the picture.
    """
    written = SampleFolder(folder, data, facts)
    written.write(range(len(samples)), samples, gain)
    return written.finish(draw=draw).name


def check_folder(path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
    """Check that a folder can take samples, before any are drawn.

    Raises:
        InvalidArgumentError: If it cannot be written, there is nothing to resume, or it holds
            files and neither ``overwrite`` nor ``resume`` is set.
    """
    check_writable(path)
    if resume:
        if not (path / RECORD).is_file():
            raise InvalidArgumentError(f"nothing to resume: {path / RECORD} does not exist")
    elif not overwrite and path.is_dir() and any(path.iterdir()):
        raise InvalidArgumentError(
            f"{path} holds other files: choose another `out`, or add `overwrite`"
        )


@dataclass
class SampleFolder:
    """Writes samples of one recipe; use :meth:`open`.

    Attributes:
        path: The folder.
        data: What the samples are.
        identity: What decides the samples; the same in a run and its continuation.
        facts: What else the record says from the start; not compared when a run continues.
        format: How they are written, one of :data:`fastdpm.data.record.FORMATS`; by default the
            first of the modality. "npz" is one archive: until :meth:`finish` puts the samples
            into it, each has a .npy file, so that an interrupted run keeps what it has.
        done: Indices of the samples on disk.
        archived: How many of them, the first ones, are in the archive.
        old: Files of an earlier run, removed when the first new ones are written.
        gain: What samples were multiplied by to be at the level of a user's files; none for
            samples at the model's own level.
    """

    path: Path
    data: DataSpec
    identity: dict[str, Any]
    format: str = ""
    done: set[int] = field(default_factory=set)
    archived: int = 0
    old: tuple[str, ...] = ()
    gain: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.format = check_format(self.format or None, self.data.modality)

    @classmethod
    def open(
        cls,
        path: Path,
        data: DataSpec,
        identity: dict[str, Any],
        *,
        facts: dict[str, Any] | None = None,
        format: str = "",
        overwrite: bool = False,
        resume: bool = False,
    ) -> SampleFolder:
        """Prepare a folder; nothing is written until the first samples are.

        Raises:
            InvalidArgumentError: See :func:`check_folder`, or if the run to resume was drawn
                differently.
            DataError: If the folder's record is damaged.
        """
        folder = cls(path, data, identity, format, facts=facts or {})
        check_folder(path, overwrite=overwrite, resume=resume)
        if resume:
            folder._read_back()
        elif (record := read_record(path, own=True)) is not None:  # what it lists, no more
            folder.old = (*record.files, *filter(None, [record.picture]), RECORD)
        return folder

    def file_name(self, index: int) -> str:
        """Name of the file of a sample, until it is in an archive."""
        return f"{index:06d}.{'npy' if self.format == 'npz' else self.format}"

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
            values = sample_files.to_values(samples, self.data)
            for index, sample in zip(indices, values, strict=True):
                sample_files.write_sample(self.path / self.file_name(index), sample, self.data)
            self.done.update(indices)
            self._write_record()
        except BaseException:
            self.done.difference_update(indices)
            self._remove(self.file_name(index) for index in indices)
            if not any(self.path.iterdir()):
                self.path.rmdir()
            raise

    def finish(self, facts: dict[str, Any] | None = None, draw: Draw | None = None) -> Path:
        """Write the picture, the archive if there is one, and the final record.

        Args:
            facts: What else the record says.
            draw: Draws all samples in place of the usual picture of the first ones: from the
                folder, the samples as their files have them and the rate of sounds, it makes
                the picture and returns its path.

        Returns:
            The picture's path.
        """
        samples = sorted(self.done)
        # An archive needs all samples, a picture only the first ones.
        every = self._read(samples if draw or self.format == "npz" else samples[: self.shown])
        shown = every if draw else every[: self.shown]
        if draw is None:
            picture = self.path / PICTURES[self.data.modality]
            write_picture(picture, shown, self.data.sample_rate)
        else:
            picture = draw(self.path, shown, self.data.sample_rate or 0)
        if self.format == "npz" and self.archived < len(samples):
            sample_files.write_archive(self.path / ARCHIVE, every)
            self.archived = len(samples)
        self._write_record(picture.name, facts)
        if self.format == "npz":
            self._remove(map(self.file_name, samples))
        return picture

    @property
    def shown(self) -> int:
        """How many samples the picture shows at most."""
        return _SHOWN_IN_GRID if self.data.modality == "image" else MAX_SOUNDS

    def _parts(self) -> list[str]:
        """Names of the samples that have a file each."""
        return [self.file_name(i) for i in sorted(self.done) if i >= self.archived]

    def _write_record(
        self, picture: str | None = None, facts: dict[str, Any] | None = None
    ) -> None:
        versions = {name: version(name) for name in _PACKAGES}
        versions["python"] = platform.python_version()
        sample_rate = self.data.sample_rate
        rate = {} if sample_rate is None else {"sample_rate": sample_rate}
        record = SampleRecord(
            [*([ARCHIVE] if self.archived else []), *self._parts()],
            picture,
            {
                **self.identity,
                "file_format": self.format,
                **rate,
                **self.facts,
                **(facts or {}),
                "versions": versions,
            },
            self.gain or None,
        )
        record.write(self.path)

    def _read_back(self) -> None:
        record = read_record(self.path, own=True)
        if record is None:
            raise InvalidArgumentError(f"nothing to resume: {self.path / RECORD} does not exist")
        # Records of earlier versions have the only format that there was.
        facts = {"file_format": FORMATS[self.data.modality][0], **record.facts}
        for name, value in {**self.identity, "file_format": self.format}.items():
            found = facts.get(name)
            if found != value:
                differs = (
                    f"was written with `format` {found}, but this command says {value}"
                    if name == "file_format"
                    else f"was drawn with {name} {_words(found)}, but this command has"
                    f" {_words(value)}"
                )
                raise InvalidArgumentError(
                    f"{self.path} {differs}: resume with the same settings, or choose another"
                    " `out`"
                )
        names = [Path(name) for name in record.files if name != ARCHIVE]
        self.done = {int(name.stem) for name in names if (self.path / name).is_file()}
        if ARCHIVE in record.files:
            self.archived = len(sample_files.read_archive(self.path / ARCHIVE))
            self.done.update(range(self.archived))
        if self.format == "npz":  # an archive has no gaps
            self.done = set(range(next(i for i in count() if i not in self.done)))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.path / Path(name).name).unlink(missing_ok=True)

    def _read(self, indices: Sequence[int]) -> NDArray[Any]:
        """Samples as their files have them."""
        read = [
            sample_files.read_sample(self.path / self.file_name(i), self.data)
            for i in indices
            if i >= self.archived
        ]
        if not self.archived:
            return np.stack(read)
        archive = sample_files.read_archive(self.path / ARCHIVE)
        first = archive[[i for i in indices if i < self.archived]]
        return np.concatenate([first, np.stack(read)]) if read else first


def _words(value: Any) -> str:
    return (
        f"{value.get('label')} ({value.get('fingerprint')})"
        if isinstance(value, dict) and "label" in value
        else str(value)
    )
