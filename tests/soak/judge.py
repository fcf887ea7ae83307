"""What a folder holds, and whether a stopped and continued run ended like an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor

KINDS = ("dead ends", "lost", "repeated", "foreign", "differ", "left over", "unclear")
OUTPUTS = ("out", "z.safetensors")
Tree = dict[str, str]
Marks = dict[tuple[int, int], str]


def tree(folder: Path) -> Tree:
    """A digest of each file in a folder, and "folder" for each folder, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = _digest(path)
    return found


def outputs(whole: Tree) -> Tree:
    """What users see of the outputs in a tree."""
    names = (PurePath(name) for name in whole)
    seen = [n for n in names if n.parts[0] in OUTPUTS and not n.name.startswith(".")]
    return {str(name): whole[str(name)] for name in seen}


def compare(expected: Tree, found: Tree) -> dict[str, list[str]]:
    """How a folder differs from that of the uninterrupted run, by the kind of fault."""
    return {
        "lost": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "differ": sorted(n for n in expected.keys() & found.keys() if expected[n] != found[n]),
    }


def finished(folder: Path) -> Marks:
    """Names of samples and parts in records, and of a cache's files, by inode and last change."""
    files = {path for path in folder.glob("cache/*/*/**/*") if path.is_file()}
    for record in folder.rglob("run.jsonl"):
        for line in record.read_text().splitlines():
            path = record.parent / _parsed(line).get("file", "")
            if path.is_file() and (path.stem.isdigit() or path.parent.name == "parts"):
                files.add(path)
    return {_mark(path): path.name for path in files}


def _parsed(line: str) -> dict[str, str]:
    """The values of a line; none of one that was not written to its end."""
    try:
        found: dict[str, str] = json.loads(line)
    except ValueError:
        return {}
    return found


def repeated(before: Marks, after: Marks) -> list[str]:
    """Files that were done before a run continued, and were made again."""
    made = set(after.values())
    return sorted(name for mark, name in before.items() if mark not in after and name in made)


def _mark(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def _record(path: Path) -> str:
    """A digest of the record of a run; of checkpoints, whether their checksums are right."""
    lines: list[dict[str, Any]] = [{**_parsed(line)} for line in path.read_text().splitlines()]
    for line in lines:
        name = str(line.get("file", ""))
        if name.endswith(".pt") and (path.parent / name).is_file():
            line["sha256"] = line["sha256"] == _sha256((path.parent / name).read_bytes())
    return _sha256(json.dumps(lines).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(path: Path) -> str:
    if path.suffix == ".pt":
        try:
            saved = torch.load(path, weights_only=True)
        except Exception:  # damaged, which shows as a difference
            return "damaged"
        saved.pop("seconds", None)
        return _sha256(repr(_plain(saved)).encode())
    if path.suffix == ".jsonl":
        return _record(path)
    if path.suffix == ".safetensors":
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        head = json.loads(content[8:end])  # its entries may be in any order
        return hashlib.sha256(
            json.dumps(head, sort_keys=True).encode() + content[end:]
        ).hexdigest()
    return _sha256(path.read_bytes())


def _plain(value: Any) -> Any:
    """Tensors as digests; the pickle around them is not the same in every process."""
    if isinstance(value, Tensor):
        data = value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return value.dtype, tuple(value.shape), _sha256(data)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
