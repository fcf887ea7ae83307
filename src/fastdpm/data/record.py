"""``samples.json``, the record of a folder of samples."""

from __future__ import annotations

import json
from pathlib import Path

from fastdpm.core.errors import DataError

RECORD = "samples.json"


def recorded_files(folder: Path) -> list[Path] | None:
    """The samples that the record of a sample folder lists, or None where there is no record."""
    record = folder / RECORD
    if not record.is_file():
        return None
    try:
        body = json.loads(record.read_text(encoding="utf-8"))
        names = [folder / Path(name).name for name in body["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{record} is no record of samples: delete it or sample again") from None
    missing = [path for path in names if not path.is_file()]
    if missing:
        raise DataError(f"{missing[0]} is missing though {record} lists it: sample again")
    return names
