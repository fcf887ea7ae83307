"""A folder of samples: the files, a picture of them, and ``samples.json``."""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.structure import plain
from fastdpm.data.record import ARCHIVE, SampleRecord, check_format, read_record
from fastdpm.data.run_folder import RunFolder
from fastdpm.data.sound import at_level
from fastdpm.data.spec import DataSpec
from fastdpm.output import sample_files
from fastdpm.output.figures import MAX_SOUNDS, write_picture

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.models.config import ModelConfig

Draw = Callable[[Path, NDArray[Any]], Path]

PICTURES = {"image": "grid.png", "audio": "sounds.png", "series": "series.png"}
_SHOWN_IN_GRID = 64
_PACKAGES = ("fastdpm", "torch", "numpy", "scipy")


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


@dataclass
class SampleFolder:
    """Writes the samples of a run, batch by batch.

    Attributes:
        run: The folder, claimed. A run that is resumed goes on after the samples in its record.
        data: What the samples are.
        facts: What the record says from the start, beside the identity of the run.
        gain: What each sample is multiplied by to be at the level of a user's files, shape (n,);
            None for samples at the model's own level.
        format: How they are written, one of :data:`fastdpm.data.record.FORMATS`; by default the
            first of the modality. "npz" is one archive: until :meth:`finish` puts the samples
            into it, each has a .npy file, so that an interrupted run keeps what it has.
        done: Indices of the samples on disk.
        archived: How many of them, the first ones, are in the archive.
    """

    run: RunFolder
    data: DataSpec
    facts: dict[str, Any] = field(default_factory=dict)
    gain: Tensor | None = None
    format: str = ""
    done: set[int] = field(default_factory=set, init=False)
    archived: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.format = check_format(self.format or None, self.data.modality)
        if self.gain is not None and bool((self.gain == 1).all()):
            self.gain = None
        record = read_record(self.run.folder)
        self._read_back(() if record is None else record.files)

    @property
    def shown(self) -> int:
        """How many samples the picture shows at most."""
        return _SHOWN_IN_GRID if self.data.modality == "image" else MAX_SOUNDS

    def todo(self, count: int) -> list[int]:
        """Indices of the first ``count`` samples that are not on disk."""
        return [i for i in range(count) if i not in self.done]

    def file_name(self, index: int) -> str:
        """Name of the file of a sample, until it is in an archive."""
        return f"{index:06d}.{'npy' if self.format == 'npz' else self.format}"

    def write(self, indices: Sequence[int], samples: Tensor) -> None:
        """Write a batch of samples in [-1, 1], shape (n, *data shape), and note that it is done.

        Args:
            indices: Of the samples.
            samples: The samples at the model's own level.
        """
        if self.gain is not None:
            samples = at_level(samples, self.gain[list(indices)])
        values = sample_files.to_values(samples, self.data)
        with self.run.batch() as folder:
            for index, sample in zip(indices, values, strict=True):
                sample_files.write_sample(folder / self.file_name(index), sample, self.data)
            self._write_record(folder, self.done | set(indices), self.archived)
        self.done.update(indices)

    def finish(self, facts: dict[str, Any] | None = None, draw: Draw | None = None) -> Path:
        """Write the picture, the archive if there is one, and the final record.

        Args:
            facts: What else the record says.
            draw: Draws all samples in place of :meth:`draw`.

        Returns:
            The picture's path when the run is complete.
        """
        samples = sorted(self.done)
        # An archive needs all samples, a picture only the first ones.
        every = self._read(samples if draw or self.format == "npz" else samples[: self.shown])
        archive = len(samples) if self.format == "npz" else 0
        rest = map(self.file_name, samples) if archive else ()
        with self.run.batch(remove=list(rest)) as folder:
            picture = (draw or self.draw)(folder, every)
            if archive > self.archived:
                sample_files.write_archive(folder / ARCHIVE, every)
            self._write_record(folder, self.done, archive, picture.name, facts)
        self.archived = archive
        return self.run.path / picture.name

    def draw(self, folder: Path, values: NDArray[Any]) -> Path:
        """Draw the usual picture into a folder, of samples as their files have them."""
        picture = folder / PICTURES[self.data.modality]
        write_picture(picture, values[: self.shown], self.data.sample_rate)
        return picture

    def _write_record(
        self,
        folder: Path,
        done: Collection[int],
        archived: int,
        picture: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        versions = {name: version(name) for name in _PACKAGES}
        versions["python"] = platform.python_version()
        sample_rate = self.data.sample_rate
        rate = {} if sample_rate is None else {"sample_rate": sample_rate}
        parts = [self.file_name(i) for i in sorted(done) if i >= archived]
        record = SampleRecord(
            [*([ARCHIVE] if archived else []), *parts],
            picture,
            {
                **self.run.record.identity,
                "file_format": self.format,
                **rate,
                **self.facts,
                **(facts or {}),
                "versions": versions,
            },
            None if self.gain is None else self.gain[sorted(done)].tolist(),
        )
        record.write(folder)

    def _read_back(self, files: Sequence[str]) -> None:
        """Find the samples on disk among those that the record lists."""
        found = [Path(name) for name in files if (self.run.folder / name).is_file()]
        self.done = {int(path.stem) for path in found if path.name != ARCHIVE}
        if ARCHIVE in map(str, found):
            self.archived = len(sample_files.read_archive(self.run.folder / ARCHIVE))
            self.done.update(range(self.archived))
        if self.format == "npz":  # an archive has no gaps
            self.done = set(range(next(i for i in count() if i not in self.done)))

    def _read(self, indices: Sequence[int]) -> NDArray[Any]:
        """Samples as their files have them."""
        folder = self.run.folder
        read = [
            sample_files.read_sample(folder / self.file_name(i), self.data)
            for i in indices
            if i >= self.archived
        ]
        if not self.archived:
            return np.stack(read)
        archive = sample_files.read_archive(folder / ARCHIVE)
        first = archive[[i for i in indices if i < self.archived]]
        return np.concatenate([first, np.stack(read)]) if read else first
