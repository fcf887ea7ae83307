"""Output folders and files, checked before the work is done."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

from fastdpm.cli.panels import Panel
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import check_new_folder, check_place, check_suffix, new_folder
from fastdpm.data.record import RECORD, read_record

OutFolder = Annotated[Path, Panel.OUTPUT.option(help="Folder to write.")]
Overwrite = Annotated[
    bool, Panel.OUTPUT.option("--overwrite", help="Replace an earlier run in the folder.")
]


def results_folder(out: Path, overwrite: bool) -> AbstractContextManager[Path]:
    """Check that a folder can be written, before the work is done.

    Args:
        out: The folder.
        overwrite: Whether an earlier run of any of these commands in it may be replaced.

    Returns:
        A context with a folder to fill, which takes its place once it is complete.
    """
    from fastdpm.evaluation import reconstruction
    from fastdpm.output import figures_inverse, folder

    record = read_record(out)
    samples = [path.name for path in (record.paths(out) if record else ())]
    pictures = (*folder.PICTURES.values(), *figures_inverse.FILES)
    ours = {RECORD, *samples, *pictures, *reconstruction.FILES}
    check_new_folder(out, ours)
    if not overwrite:
        check_new_folder(out, advice=", or add `overwrite`")
    return new_folder(out, ours)


def check_output(
    path: Path | None, suffixes: tuple[str, ...] | None = None, inputs: Sequence[Path] = ()
) -> None:
    """Check that a file can be written, before the work is done.

    Args:
        path: The file; None if none is written.
        suffixes: What its name may end in; None for anything.
        inputs: Files that it must not replace.

    Raises:
        InvalidArgumentError: If it has another suffix, its folder does not exist, or it is an
            input.
    """
    if path is None:
        return
    check_place(path)
    if suffixes is not None:
        check_suffix(path, suffixes)
    if path.resolve() in [file.resolve() for file in inputs]:
        raise InvalidArgumentError(f"{path} is an input: choose another name")
