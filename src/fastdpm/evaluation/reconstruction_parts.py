"""Finished reconstructions of a run, kept in its folder until all of them are finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from fastdpm.core.guidance import GuidanceScale
from fastdpm.core.structure import build, plain
from fastdpm.data.files import write_bytes
from fastdpm.data.run_folder import RunFolder
from fastdpm.data.tensors import read_with_head
from fastdpm.evaluation.reconstruction import Found, Reconstruction

_PARTS = "parts"
_TEXTS = ("method", "plan", "fingerprint")
_FLOATS = ("psnr", "relative", "residual", "deviation", "snr", "log_mel")
_WHOLE = ("evaluations", "row")


class ReconstructionParts:
    """Reconstructions in the order of a run.

    Attributes:
        found: Those that are finished. A run that is resumed begins with those on disk.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self.found: list[Found] = []
        while (path := run.folder / self._name(len(self.found))).is_file():
            self.found.append(_read(path))

    def write(self, found: Found) -> None:
        """Keep the next reconstruction."""
        with self._run.batch() as folder:
            path = folder / self._name(len(self.found))
            path.parent.mkdir()
            _write(path, found)
        self.found.append(found)

    @contextmanager
    def finished(self) -> Iterator[Path]:
        """A folder for the results, in place of the parts."""
        names = [name for name in self._run.record.hashes if name.startswith(f"{_PARTS}/")]
        with self._run.batch(remove=names) as folder:
            yield folder

    def remove(self) -> None:
        """Remove what is left of the parts of a run whose results are in place."""
        with self.finished():
            pass

    @staticmethod
    def _name(number: int) -> str:
        return f"{_PARTS}/{number:04d}.safetensors"


def _write(path: Path, found: Found) -> None:
    result = found.result
    tensors = {"x": result.x.contiguous()}
    for names, dtype in ((_FLOATS, torch.float64), (_WHOLE, torch.int64)):
        for name in names:
            values = getattr(result, name)
            if values is not None:
                tensors[name] = torch.tensor(values, dtype=dtype)
    head = {name: getattr(result, name) for name in _TEXTS}
    head["place"] = json.dumps([found.choice, found.num_steps, result.decoding])
    head["guidance"] = json.dumps(plain(result.guidance))
    write_bytes(path, save(tensors, head))


def _read(path: Path) -> Found:
    head, tensors = read_with_head(path)

    def values(name: str) -> tuple[float, ...] | None:
        found: Tensor | None = tensors.get(name)
        return None if found is None else tuple(found.tolist())

    choice, num_steps, decoding = json.loads(head["place"])
    fields = {name: values(name) for name in (*_FLOATS, *_WHOLE)}
    texts: dict[str, Any] = {name: head[name] for name in _TEXTS}
    texts["guidance"] = build(GuidanceScale, json.loads(head["guidance"]), str(path))
    result = Reconstruction(x=tensors["x"], decoding=decoding, **texts, **fields)  # type: ignore[arg-type]
    return Found(choice, num_steps, result)
