"""A cache of the stages of a measurement, so that nothing is computed twice.

The name of an entry is a digest of everything that decides its content. Files are written
atomically, so an interrupted run leaves only finished files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import DataError
from fastdpm.core.limits import read_json
from fastdpm.data.arrays import read_arrays
from fastdpm.data.files import write_bytes, write_text

Arrays = dict[str, NDArray[Any]]
_HOME = "fastdpm-cache-1"
STAGES = ("samples", "features", "statistics", "metrics", "pairs", "trajectories")
_RANGE = re.compile(r"(\d{9})-(\d{9})\.npz")


def digest(*parts: Any) -> str:
    """A name for values: the first 32 hexadecimal digits of the SHA-256 of their JSON."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages, as a part of digests."""
    return {name: version(name) for name in packages}


class Shards:
    """Arrays of consecutive samples, starting at sample 0, split into several files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def count(self) -> int:
        """Samples that are stored without a gap."""
        return max((stop for _, stop, _ in self._files()), default=0)

    def append(self, first: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Add samples that start at ``first``; the first axis of every array counts them.

        Nothing is written if another process has added them in the meantime.
        """
        if first != self.count:
            return
        stop = first + len(next(iter(arrays.values())))
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / f"{first:09d}-{stop:09d}.npz", buffer.getbuffer())

    def read(
        self, first: int, stop: int, names: Collection[str] | None = None
    ) -> Iterator[Arrays]:
        """Read the samples from ``first`` to before ``stop``, one file at a time.

        Args:
            first: At least 0.
            stop: At most :attr:`count`.
            names: Names of the arrays to read; all by default.

        Raises:
            DataError: If a file is damaged.
        """
        for begin, end, path in self._files():
            low, high = max(first, begin), min(stop, end)
            if low < high:
                arrays = self._load(path, names)
                yield {name: array[low - begin : high - begin] for name, array in arrays.items()}

    def gather(self, stop: int, names: Collection[str] | None = None) -> Arrays:
        """Read the first ``stop`` samples.

        Raises:
            DataError: If some are missing, or a file is damaged.
        """
        if self.count < stop:
            raise DataError(
                f"{self.folder} holds {self.count} of {stop} samples, because files of the cache"
                " were deleted: delete this folder, or clear the cache with `fastdpm cache"
                " --clear`"
            )
        parts = list(self.read(0, stop, names))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _files(self) -> list[tuple[int, int, Path]]:
        """The files from sample 0 on, up to the first gap."""
        found = {}
        for path in self.folder.glob("*.npz"):
            matched = _RANGE.fullmatch(path.name)
            if matched:
                found[int(matched[1])] = (int(matched[2]), path)
        chain, end = [], 0
        while end in found:
            stop, path = found[end]
            chain.append((end, stop, path))
            end = stop
        return chain

    @staticmethod
    def _load(path: Path, names: Collection[str] | None) -> Arrays:
        try:
            return read_arrays(path, None if names is None else list(names))
        except (OSError, DataError):
            raise DataError(
                f"{path} is damaged: delete it, or clear the cache with `fastdpm cache --clear`"
            ) from None


@dataclass(frozen=True)
class Cache:
    """A folder of results.

    Attributes:
        root: The folder; see :func:`default_cache`. Everything is stored in one subfolder, so that
            clearing the cache touches no other files.
    """

    root: Path

    @classmethod
    def from_argument(cls, value: object) -> object:
        """A cache in a folder that an argument names; anything else as it is."""
        return cls(Path(value)) if isinstance(value, str | Path) else value

    @property
    def home(self) -> Path:
        """The subfolder that only the cache uses."""
        return self.root / _HOME

    def shards(self, stage: str, key: str) -> Shards:
        """The arrays of a stage under a key."""
        return Shards(self.home / stage / key)

    def file(self, stage: str, key: str, suffix: str) -> Path:
        """Path of a single file of a stage; its folder is created."""
        folder = self.home / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key}{suffix}"

    def record(self, stage: str, key: str) -> dict[str, Any] | None:
        """A record written by :meth:`write_record`, or None."""
        path = self.home / stage / f"{key}.json"
        try:
            found = read_json(path)
        except (OSError, ValueError, DataError):
            return None
        return found if isinstance(found, dict) else None

    def write_record(self, stage: str, key: str, record: Mapping[str, Any]) -> None:
        """Write a record of values that JSON can hold."""
        write_text(self.file(stage, key, ".json"), json.dumps(record) + "\n")

    def sizes(self) -> dict[str, int]:
        """Size of each stage in bytes."""
        return {
            stage: sum(p.stat().st_size for p in (self.home / stage).rglob("*") if p.is_file())
            for stage in STAGES
        }

    def clear(self) -> None:
        """Delete the cache, and no other files in the folder."""
        shutil.rmtree(self.home, ignore_errors=True)


def default_cache() -> Cache:
    """The folder in the variable FASTDPM_CACHE, or the cache folder of the user."""
    named = os.environ.get("FASTDPM_CACHE")
    if named:
        return Cache(Path(named))
    from platformdirs import user_cache_path

    return Cache(user_cache_path("fastdpm"))
