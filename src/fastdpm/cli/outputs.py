"""Output folders and files, checked before the work is done."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastdpm.cli.expand import Options
from fastdpm.cli.panels import Panel
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError
from fastdpm.data.files import check_place, check_suffix
from fastdpm.data.run_folder import RunFolder, check_folder

Overwrite = Annotated[
    bool,
    Panel.OUTPUT.option(
        "--overwrite", help="Replace an earlier run in the folder when this one is complete."
    ),
]
Resume = Annotated[
    bool,
    Panel.OUTPUT.option(
        "--resume", help="Continue an interrupted run; start one if there is none."
    ),
]


class Output(Options):
    """A folder to write, and what to do with an earlier run in it."""

    out: Path | None
    overwrite: bool
    resume: bool

    def check(self) -> None:
        """Check that the folder can be written, before the work is done.

        Raises:
            InvalidArgumentError: If it cannot.
        """
        if self.out is not None:
            check_folder(self.out, resume=self.resume, overwrite=self.overwrite)
            return
        for option in ("overwrite", "resume"):
            if getattr(self, option):
                raise InvalidArgumentError(f"--{option} needs the --out folder of the earlier run")

    @contextmanager
    def claim(
        self,
        command: str,
        identity: Mapping[str, Any],
        inputs: Collection[Path | None] = (),
        *,
        name: str = "",
    ) -> Iterator[RunFolder]:
        """Claim a folder; the run is complete when the block ends.

        Args:
            command: The command.
            identity: Settings that determine the files.
            inputs: Files and folders that are read.
            name: Of a new folder under samples/, if none was named.
        """
        if self.out is None:
            run = RunFolder.open_free(Path("samples"), name, command, identity)
        else:
            run = RunFolder.open(
                self.out,
                command,
                identity,
                resume=self.resume,
                overwrite=self.overwrite,
                inputs=[path for path in inputs if path is not None],
            )
        try:
            with run:
                yield run
        except KeyboardInterrupt:
            raise InterruptedRunError(f"interrupted: {_kept(run)}") from None


@dataclass(frozen=True)
class OutFolder(Output):
    """A folder that users name."""

    out: Annotated[Path, Panel.OUTPUT.option(help="Folder to write.")]
    overwrite: Overwrite = False
    resume: Resume = False


@dataclass(frozen=True)
class OptionalFolder(Output):
    """A folder that users may name."""

    out: Annotated[
        Path | None,
        Panel.OUTPUT.option(help="Folder to write; by default a new one under samples/."),
    ] = None
    overwrite: Overwrite = False
    resume: Resume = False


def _kept(run: RunFolder) -> str:
    """What an interrupted run has written, and how it goes on."""
    count = sum(not name.endswith(".json") for name in run.files)
    if not count:
        return "nothing was written"
    kept = f"{count} finished file{'' if count == 1 else 's'} kept"
    return f"{kept} for {run.path}: add --out {run.path} --resume to the same command to continue"


def check_output(
    path: Path | None, suffixes: tuple[str, ...] | None = None, inputs: Sequence[Path] = ()
) -> None:
    """Check that a file can be written, before the work is done.

    Args:
        path: The file; None if none is written.
        suffixes: What its name may end in; None for anything.
        inputs: Files that it must not replace, also those in folders.

    Raises:
        InvalidArgumentError: If it has another suffix, its folder does not exist, or it is an
            input.
    """
    if path is None:
        return
    check_place(path)
    if suffixes is not None:
        check_suffix(path, suffixes)
    if path.exists() and any(path.resolve().is_relative_to(one.resolve()) for one in inputs):
        raise InvalidArgumentError(f"{path} is an input: choose another name")
