"""``run.jsonl``: what is made in a folder, and the SHA-256 of each file that was written into it.

The first line says what is made. Each other line belongs to a file, and is written before the file
is in place, so that a run that is killed never leaves a file that its record does not know. A file
that the record does not list with its SHA-256 belongs to someone else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fastdpm.core.errors import DataError
from fastdpm.core.limits import parse_json
from fastdpm.core.structure import changed
from fastdpm.core.text import shortened
from fastdpm.data.files import file_named, sha256, temporary_name, write_bytes

RUN = "run.jsonl"
LOCK = ".run.lock"
PART = ".run.part"
OWN = frozenset({RUN, LOCK, PART, temporary_name(RUN)})
_FORMAT, _VERSION = "fastdpm-run", 1


@dataclass
class RunRecord:
    """The record of a run.

    Attributes:
        command: What made the folder, such as "sample".
        identity: Settings that determine the files; plain values.
        hashes: By name, with ``/`` below folders, every SHA-256 that the file may have.
        complete: Whether the run was finished.
    """

    command: str
    identity: Mapping[str, Any]
    hashes: dict[str, set[str]] = field(default_factory=dict)
    complete: bool = False

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """Read the record of a folder; None if there is none.

        Raises:
            DataError: If it is damaged, of another version, or a link.
        """
        path = folder / RUN
        if path.is_symlink():
            raise DataError(
                f"{path} is a link: put the file itself in its place, or choose another `out`"
            )
        if not path.is_file():
            return None
        lines = [line for part in path.read_bytes().split(b"\n") if (line := _parsed(part))]
        head = lines[0] if lines else {}
        if (head.get("format"), head.get("version")) != (_FORMAT, _VERSION) or not isinstance(
            head.get("identity"), dict
        ):
            raise DataError(
                f"{path} is not the record of a run, so it does not show which files are the"
                f" run's: move {folder} elsewhere or delete it, or choose another `out`"
            )
        record = cls(str(head.get("command")), head["identity"])
        for line in lines[1:]:
            record._add(line)
        return record

    def differences(self, other: RunRecord) -> list[str]:
        """How the settings of this run differ from those of the command that runs now."""
        if other.command != self.command:
            return [f"`fastdpm {self.command}` made"]
        return [
            f"has {f'`{name}`' if name.isidentifier() else name} {shortened(before)}, but this"
            f" command has {shortened(now)}"
            for name, before, now in changed(self.identity, other.identity)
        ]

    def create(self, folder: Path) -> None:
        """Write the first line into a folder without a record."""
        write_bytes(folder / RUN, _line(self._head()))

    def append(self, folder: Path, hashes: Mapping[str, str]) -> None:
        """Add files that are moved into place next."""
        self._append(folder, [{"file": name, "sha256": digest} for name, digest in hashes.items()])

    def finish(self, folder: Path) -> None:
        """Note that the run is complete, and keep the files that there are."""
        found = {}
        for name, hashes in sorted(self.hashes.items()):
            path = folder / name
            if path.is_file():
                found[name] = sha256(path) if len(hashes) > 1 else next(iter(hashes))
        lines = [{"file": name, "sha256": digest} for name, digest in found.items()]
        text = b"".join(map(_line, [self._head(), *lines, {"complete": True}]))
        write_bytes(folder / RUN, text)
        self.hashes = {name: {digest} for name, digest in found.items()}
        self.complete = True

    def _head(self) -> dict[str, Any]:
        head = {"format": _FORMAT, "version": _VERSION, "command": self.command}
        return head | {"identity": self.identity}

    def owns(self, folder: Path, name: str) -> bool:
        """Whether a file in the folder is one that the run wrote, unchanged and not a link."""
        path, inside = folder / name, PurePosixPath(name)
        return (
            name in self.hashes
            and not inside.is_absolute()
            and ".." not in inside.parts
            and path.is_file()
            and path.resolve() == folder.resolve() / name
            and sha256(path) in self.hashes[name]
        )

    def _append(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        # Starts a new line, in case the last one is incomplete.
        with file_named(folder / RUN), (folder / RUN).open("ab") as file:
            file.write(b"\n" + b"".join(map(_line, lines)))
        for line in lines:
            self._add(line)

    def _add(self, line: Mapping[str, Any]) -> None:
        self.complete = line.get("complete") is True
        if "file" in line:
            self.hashes.setdefault(str(line["file"]), set()).add(str(line.get("sha256")))


def names_in(folder: Path) -> Iterator[str]:
    """Names of all files, links and empty folders in a folder, but for those of every run."""
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.name in OWN and not path.is_symlink():
            continue
        inner = path.is_dir() and not path.is_symlink() and any(path.iterdir())
        for name in _below(path) if inner else ("",):
            yield f"{path.name}/{name}" if name else path.name


def _below(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        empty = [] if folders or files else [""]
        for name in [*sorted(files), *links, *empty]:
            yield (Path(place) / name).relative_to(folder).as_posix()


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    """The values of a line; none of one that is empty or was not written to its end."""
    try:
        found = parse_json(line.decode())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
