"""``samples.json``, the record of a folder of samples."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.files import write_json

RECORD = "samples.json"
_FORMAT = "fastdpm-samples"
_NAMED = ("format", "complete", "gain", "files", "picture")
ARCHIVE = "samples.npz"
FORMATS: Mapping[str, tuple[str, ...]] = {
    "image": ("png", "webp", "npz"),
    "audio": ("wav", "flac", "npz"),
    "series": ("npy", "npz"),
}
_SAMPLE_NAME = re.compile(r"\d+\.(png|webp|wav|flac|npy)|samples\.npz")


@dataclass(frozen=True)
class SampleRecord:
    """What a folder of samples holds, and how they were made.

    Attributes:
        files: Names of the samples, in order; or of one archive, and of samples not yet in it.
        picture: Name of their picture; None until all requested samples are there.
        facts: What decided the samples, and other facts about them.
        gain: What each was multiplied by to be at the level of a user's file; None at the model's.
    """

    files: Sequence[str]
    picture: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    gain: Sequence[float] | None = None

    def paths(self, folder: Path) -> list[Path]:
        """The samples in their folder; raises DataError if one is missing."""
        paths = [folder / Path(name).name for name in self.files]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            listed = folder / RECORD
            raise DataError(f"{missing[0]} is missing though {listed} lists it: sample again")
        return paths

    def write(self, folder: Path) -> None:
        """Write it as the record of a folder."""
        body = {"format": _FORMAT, "complete": self.picture is not None, **self.facts}
        body |= {} if self.gain is None else {"gain": self.gain}
        body |= {"files": self.files, "picture": self.picture}
        write_json(folder / RECORD, body)


def format_names() -> list[str]:
    """All formats of samples; those of one modality are in :data:`FORMATS`, its default first."""
    return list(dict.fromkeys(name for names in FORMATS.values() for name in names))


def check_format(name: str | None, modality: str) -> str:
    """The format to write, by default the first of the modality.

    Raises:
        InvalidArgumentError: If samples of this modality are not written in that format.
    """
    known = FORMATS[modality]
    if name is not None and name not in known:
        kind = {"image": "images", "audio": "sounds"}.get(modality, modality)
        raise InvalidArgumentError(
            f"`format` of {kind} must be one of {', '.join(known)}, got {name!r}"
        )
    return name or known[0]


def read_record(folder: Path, *, own: bool = False) -> SampleRecord | None:
    """The record of a folder, or None where there is none.

    Args:
        folder: The folder.
        own: Refuse a record without this package's format and names: its files may be deleted.

    Raises:
        DataError: If it is damaged, or no record of samples.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        files = [str(Path(name)) for name in body["files"]]
        ours = not own or body["format"] == _FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        ours, files = False, []
    if not ours or (own and not all(map(_SAMPLE_NAME.fullmatch, files))):
        raise DataError(f"{path} is no record of samples: delete it, or choose another folder")
    facts = {name: value for name, value in body.items() if name not in _NAMED}
    return SampleRecord(files, body.get("picture"), facts, body.get("gain"))
