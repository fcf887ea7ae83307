"""Where the commands of the inverse direction write, checked before the work is done."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
]
# What the commands of this direction write into their folders, beside samples.
_WRITTEN = (
    *("samples.json", "grid.png", "sounds.png", "series.png", "edited.png"),
    *("strip.png", "animation.png", "joined.wav"),
    *("reconstruct.json", "reconstruct.csv", "psnr.png", "samples.png"),
)


def check_folder(out: Path, overwrite: bool) -> Collection[str]:
    """Check that a folder can be written, before the work is done.

    Args:
        out: The folder.
        overwrite: Whether an earlier run in it, of any of these commands, may be replaced.

    Returns:
        The files that may be replaced.
    """
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.data.files import check_new_folder
    from fastdpm.data.record import read_record

    record = read_record(out)
    ours = {*_WRITTEN, *(path.name for path in (record.paths(out) if record else ()))}
    check_new_folder(out, ours)
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InvalidArgumentError(
            f"{out} holds an earlier run: choose another --out, or add --overwrite"
        )
    return ours


def check_output(path: Path | None, suffixes: tuple[str, ...], inputs: list[Path]) -> None:
    """Check that a file can be written, before the work is done.

    Raises:
        InvalidArgumentError: If it has another suffix, no folder, or the place of an input.
    """
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.data.files import check_place

    if path is None:
        return
    check_place(path)
    if path.suffix not in suffixes:
        ends = " or ".join(suffixes)
        raise InvalidArgumentError(f"{path} must end in {ends}: choose another name")
    if path.resolve() in [given.resolve() for given in inputs]:
        raise InvalidArgumentError(f"{path} is an input: choose another name")
