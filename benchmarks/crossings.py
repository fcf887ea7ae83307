"""List the functions of other rooms that ``fastdpm convert`` calls from ``fastdpm.models``.

    python benchmarks/crossings.py [CHECKPOINT [PRESET]]

Converts a checkpoint, by default a small one in DDPM's layout with its own preset. Prints every
function outside ``fastdpm/models/`` that code inside it calls, by room, and their number. Calls
that pass through other packages (a context manager, a generated constructor) count as well.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import fastdpm
from fastdpm.models.conversion import convert
from fastdpm.networks.build import build_network

ROOT = Path(fastdpm.__file__).parent
_OWN = "models"
_PRESET = """
name = "small"
[network]
type = "unet"
num_groups = 4
[schedule]
type = "linear"
num_train_steps = 50
beta_start = 1e-4
beta_end = 0.05
[data]
modality = "image"
shape = [1, 8, 8]
"""
_NETWORK = {
    "type": "unet",
    "image_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "base_channels": 8,
    "channel_multipliers": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [4],
    "num_groups": 4,
}


_CHECKS = "core/arguments.py"  # the checks of arguments stand between any two functions


def crossings(work: Callable[[], Any]) -> dict[str, set[str]]:
    """List the functions of other rooms that ``work`` calls from ``fastdpm.models``, by room."""
    found: dict[str, set[str]] = defaultdict(set)

    def note(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name == "<module>" or code.co_filename.endswith(_CHECKS):
            return
        room = _room(frame)
        if room in ("", _OWN):
            return
        caller = frame.f_back
        while caller is not None and not _room(caller):
            caller = caller.f_back
        if caller is not None and _room(caller) == _OWN:
            module = Path(frame.f_code.co_filename).relative_to(ROOT).with_suffix("")
            found[room].add(f"{'.'.join(module.parts)}.{frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return dict(found)


def _room(frame: FrameType) -> str:
    """The room whose code a frame runs; "" for other packages and for imports."""
    path = Path(frame.f_code.co_filename)
    if not path.is_relative_to(ROOT):
        return ""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def of_convert(checkpoint: Path | None = None, preset: str | None = None) -> dict[str, set[str]]:
    """Return the crossings of a conversion, by default of a small checkpoint."""
    with tempfile.TemporaryDirectory() as name:
        folder, described = Path(name), preset
        if checkpoint is None:
            checkpoint, described = folder / "small.pt", str(folder / "small.toml")
            torch.save(build_network(_NETWORK).state_dict(), checkpoint)
            Path(described).write_text(_PRESET)
        source = checkpoint
        return crossings(lambda: convert(source, folder / "out", preset=described))


def main() -> None:
    """Print the rooms, their functions and the totals."""
    found = of_convert(*(kind(arg) for kind, arg in zip((Path, str), sys.argv[1:], strict=False)))
    for room, names in sorted(found.items()):
        print(room)
        for name in sorted(names):
            print(f"  {name}")
    print(f"{len(found)} rooms, {sum(map(len, found.values()))} functions")


if __name__ == "__main__":
    main()
