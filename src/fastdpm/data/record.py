"""``samples.json``: the record of the samples in a folder, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import read_json
from fastdpm.data.files import write_json

RECORD = "samples.json"
_FORMAT = "fastdpm-samples"
_OWN_KEYS = ("format", "complete", "gain", "files", "picture")
ARCHIVE = "samples.npz"
FORMATS: Mapping[str, tuple[str, ...]] = {
    "image": ("png", "webp", "npz"),
    "audio": ("wav", "flac", "npz"),
    "series": ("npy", "npz"),
}


@dataclass(frozen=True)
class SampleRecord:
    """The record of a folder of samples.

    Attributes:
        files: File names of the samples, in order; or of the archive, followed by samples that are
            not in it yet.
        picture: File name of the overview picture; None while samples are still missing.
        facts: Other entries: the settings that determine the samples, and measurements.
        gain: Factor by which each sample was scaled to the level of its input file; None if the
            samples have the model's level.
    """

    files: Sequence[str]
    picture: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    gain: Sequence[float] | None = None

    def paths(self, folder: Path) -> list[Path]:
        """Paths of the samples in ``folder``.

        Raises:
            DataError: If a sample is missing.
        """
        paths = [folder / Path(name).name for name in self.files]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(
                f"{missing[0]} is missing, but {folder / RECORD} lists it: sample again"
            )
        return paths

    @property
    def sample_rate(self) -> int | None:
        """The sample rate of sounds in Hz, if the record states one."""
        rate = self.facts.get("sample_rate")
        return rate if isinstance(rate, int) else None

    def labels(self, folder: Path, count: int) -> list[int] | None:
        """The class labels of the samples, if the record states them.

        Args:
            folder: The folder, for messages.
            count: Number of samples.

        Raises:
            DataError: If they are not one integer for each sample.
        """
        labels = self.facts.get("labels")
        if labels is None:
            return None
        whole = isinstance(labels, list) and all(type(label) is int for label in labels)
        if not whole or len(labels) != count:
            raise DataError(
                f"`labels` in {folder / RECORD} must be {count} integers, one for each sample:"
                " sample again, or delete them"
            )
        return list(labels)

    def write(self, folder: Path) -> None:
        """Write the record to ``samples.json`` in ``folder``."""
        body = {"format": _FORMAT, "complete": self.picture is not None, **self.facts}
        body |= {} if self.gain is None else {"gain": self.gain}
        body |= {"files": self.files, "picture": self.picture}
        write_json(folder / RECORD, body)


def label_facts(labels: Sequence[int] | None, samples: Sequence[int]) -> dict[str, Any]:
    """The entry of a record for class labels, of which sample i has number i mod m."""
    if labels is None:
        return {}
    return {"labels": [int(labels[i % len(labels)]) for i in samples]}


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


def read_record(folder: Path) -> SampleRecord | None:
    """Read the record of a folder; None if it has none.

    Raises:
        DataError: If the record is damaged or of another format.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        body = read_json(path)
        files = [str(Path(name)) for name in body["files"]]
        known = all(isinstance(name, str) for name in body["files"])
        if not known or not _is_gain(body.get("gain"), len(files)):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} is not a record of samples: delete it, or choose another folder"
        ) from None
    facts = {name: value for name, value in body.items() if name not in _OWN_KEYS}
    picture = body.get("picture")
    return SampleRecord(files, picture and str(picture), facts, body.get("gain"))


def _is_gain(gain: Any, count: int) -> bool:
    """Whether the factors of a record are as they are written."""
    if gain is None:
        return True
    return isinstance(gain, list) and all(isinstance(factor, int | float) for factor in gain)
