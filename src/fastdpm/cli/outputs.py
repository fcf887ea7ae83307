"""Where the commands of the inverse direction write, checked before the work is done."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import typer

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import check_new_folder, check_place, check_suffix, new_folder
from fastdpm.data.record import RECORD, read_record

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
]


def results_folder(out: Path, overwrite: bool) -> AbstractContextManager[Path]:
    """Check that a folder can be written, before the work is done.

    Args:
        out: The folder.
        overwrite: Whether an earlier run in it, of any of these commands, may be replaced.

    Returns:
        The folder to be filled, which takes its place once it is whole.
    """
    from fastdpm.evaluation import reconstruct
    from fastdpm.output import figures_inverse, folder

    record = read_record(out)
    samples = [path.name for path in (record.paths(out) if record else ())]
    pictures = (*folder.PICTURES.values(), *figures_inverse.FILES)
    ours = {RECORD, *samples, *pictures, *reconstruct.FILES}
    check_new_folder(out, ours)
    if not overwrite:
        check_new_folder(out, advice=", or add `overwrite`")
    return new_folder(out, ours)


def check_output(path: Path | None, suffixes: tuple[str, ...], inputs: list[Path]) -> None:
    """Check that a file can be written, before the work is done.

    Raises:
        InvalidArgumentError: If it has another suffix, no folder, or the place of an input.
    """
    if path is None:
        return
    check_place(path)
    check_suffix(path, suffixes)
    if path.resolve() in [given.resolve() for given in inputs]:
        raise InvalidArgumentError(f"{path} is an input: choose another name")
