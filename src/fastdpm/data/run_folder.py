"""A folder that one run fills: claimed before the first write, resumable, replaced as a whole.

A run holds a lock in its folder. Files are written in batches: into a folder inside, then into the
record with their SHA-256, then into place. A run that replaces another one is built beside it,
with a lock beside it, and takes its place when it is complete; the files of users move along.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import check_writable, sha256
from fastdpm.data.moves import exchange, link, remove_empty, remove_empty_of, same
from fastdpm.data.run_record import LOCK, OWN, PART, RunRecord, names_in


class RunFolder:
    """A folder that this run has claimed; use :meth:`open` and ``with``.

    Without an error, the end of the block completes the run. After an error or an interrupt, what
    was written stays, to be resumed; a run that has written nothing leaves nothing.

    Attributes:
        path: The folder, as it was passed.
        folder: Where its files are now: there, or beside it until the run is complete.
        record: What is made, and the files.
    """

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record
        self.folder = self._target = path.resolve()
        self._beside, self._aside, self._outer_lock = (
            self._target.with_name(f".{self._target.name}.{state}")
            for state in ("new", "old", "lock")
        )
        self._replaced: RunRecord | None = None
        self._locks: dict[Path, FileLock] = {}

    @classmethod
    def open(
        cls,
        path: Path,
        command: str,
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        overwrite: bool = False,
        inputs: Collection[Path] = (),
    ) -> Self:
        """Claim a folder.

        Args:
            path: The folder, created if it does not exist.
            command: What makes the folder, such as "sample".
            identity: Settings that determine the files, as values for JSON.
            resume: Continue a run of the same settings; start one if there is none.
            overwrite: Replace an earlier run of other settings, or of any unless ``resume`` is
                set, when the new one is complete.
            inputs: Files and folders that are read.

        Raises:
            InvalidArgumentError: See :func:`check_folder`; or if another run uses the folder, it
                holds a run that was made with other settings, or files that changed since.
            DataError: If the record of the folder is damaged.
        """
        check_folder(path, resume=resume, overwrite=overwrite, inputs=inputs)
        plain = json.loads(json.dumps(dict(identity)))
        run = cls(path, RunRecord(command, plain))
        try:
            run._recover()
            if run._is_beside(resume=resume, overwrite=overwrite):
                run._claim_beside()
            else:
                run._claim(resume=resume)
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open_free(cls, parent: Path, name: str, command: str, identity: Mapping[str, Any]) -> Self:
        """Claim ``parent/name``, or with the first number that makes it a new folder."""
        check_writable(parent)
        parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = parent / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                path.mkdir()
                return cls.open(path, command, identity)
        raise AssertionError

    @property
    def files(self) -> list[str]:
        """Names of the files of the run that are in place."""
        return [name for name in self.record.hashes if (self.folder / name).is_file()]

    @contextmanager
    def batch(self, remove: Collection[str] = ()) -> Iterator[Path]:
        """Yield an empty folder, whose files belong to the run when the block ends.

        They are moved into place one by one, those with the suffix .json last. After an error in
        the block, nothing has changed.

        Args:
            remove: Names of files of the run that are deleted after that.

        Raises:
            InvalidArgumentError: If a file that the run did not write is in the place of one.
        """
        part = self.folder / PART
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            yield part
            names = self._checked(part)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError) and str(part) in str(error.filename):
                error.filename = error.filename.replace(str(part), str(self.path))
            raise
        # If it is interrupted from here on, the next start goes on.
        self.record.append(self.folder, {name: sha256(part / name) for name in names})
        self._place(part, names)
        shutil.rmtree(part, ignore_errors=True)
        for name in remove:
            if self.record.owns(self.folder, name):
                (self.folder / name).unlink()
        remove_empty_of(self.folder, remove)

    @property
    def replaces(self) -> bool:
        """Whether another run is replaced when this one is complete."""
        return self.folder != self._target

    def finish(self) -> None:
        """Complete the run, and replace the earlier one if there is one."""
        self.record.finish(self.folder)
        if self._replaced is None:
            return
        _check_unchanged(self._target, self._replaced, self.path)
        for name in self.record.hashes:
            self._check_place(self._target, self._replaced, name)
        for name in sorted(set(names_in(self._target)) - self._replaced.hashes.keys()):
            link(self._target / name, self._beside / name)
        exchange(self._beside, self._target, self._aside)
        self.folder = self._target
        self._delete(self._beside, self._replaced)

    def close(self) -> None:
        """Give up the claim; the files stay."""
        for path in sorted(self._locks, key=lambda path: path == self._outer_lock):
            self._unlock(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            if kind is not None and not self.files:
                self._delete(self.folder, self.record)
            self.close()

    def _claim(self, *, resume: bool) -> None:
        """Write into the folder itself, or go on beside it."""
        foreign = _foreign(self._target)
        self._lock(self._target / LOCK)
        held = RunRecord.read(self._target)
        if held is None:
            self._begin(self._target, foreign)
        else:
            self._check_same(held, resume=resume)
            self._adopt(held)
        if self._beside.is_dir() or self._outer_lock.exists():
            self._lock(self._outer_lock)
            self._delete(self._beside, RunRecord.read(self._beside))
            self._unlock(self._outer_lock)

    def _is_beside(self, *, resume: bool, overwrite: bool) -> bool:
        """Whether the run is made beside the folder, which holds another one."""
        held, beside = RunRecord.read(self._target), RunRecord.read(self._beside)
        if held is None:
            return False
        begun = self._begun(beside, held)
        if resume and not begun and not held.differences(self.record):
            return False
        return overwrite or (resume and begun)

    def _begun(self, beside: RunRecord | None, held: RunRecord) -> bool:
        """Whether ``beside`` is this run, not yet in place, and not what it has replaced."""
        if beside is None or beside.differences(self.record):
            return False
        return (held.complete and not beside.complete) or bool(held.differences(self.record))

    def _claim_beside(self) -> None:
        """Write beside the folder, or go on there, to replace the run in it."""
        self._lock(self._outer_lock)
        if (self._target / LOCK).exists():
            self._lock(self._target / LOCK)
        self._replaced = RunRecord.read(self._target)
        if self._replaced is None:  # it was moved away in the meantime
            raise InvalidArgumentError(_in_use(self.path))
        _check_unchanged(self._target, self._replaced, self.path)
        beside = RunRecord.read(self._beside)
        if beside is not None and self._begun(beside, self._replaced):
            self.folder = self._beside
            self._adopt(beside)
            return
        self._delete(self._beside, beside)
        self._beside.mkdir(exist_ok=True)
        shutil.copymode(self._target, self._beside)
        self._begin(self._beside, next(names_in(self._beside), None))

    def _begin(self, folder: Path, foreign: str | None) -> None:
        if foreign is not None:
            raise InvalidArgumentError(_not_of_a_run(folder, foreign))
        self.folder = folder
        self.record.create(folder)

    def _adopt(self, held: RunRecord) -> None:
        """Go on with a run; what is left of a batch that its record lists is moved into place."""
        self.record = held
        _check_unchanged(self.folder, held, self.path)
        part = self.folder / PART
        names = _in_order(part)
        if all(sha256(part / name) in held.hashes.get(name, ()) for name in names):
            self._place(part, names)
        shutil.rmtree(part, ignore_errors=True)

    def _check_same(self, held: RunRecord, *, resume: bool) -> None:
        state = "a finished" if held.complete else "an unfinished"
        differences = held.differences(self.record)
        if differences:
            advice = "`overwrite` it, or choose another `out`"
            if not held.complete:
                advice = "resume it with the same settings, or choose another `out`"
            raise InvalidArgumentError(
                f"{self.path} holds {state} run that {'; '.join(differences[:3])}: {advice}"
            )
        if not resume:
            advice = (
                "choose another `out`, or add `overwrite`" if held.complete else "add `resume`"
            )
            extend = "with a larger `n` to extend it" if held.command == "sample" else "to keep it"
            more = f", or `resume` {extend}" if held.complete else " to continue it"
            raise InvalidArgumentError(f"{self.path} holds {state} run: {advice}{more}")

    def _recover(self) -> None:
        """Undo a replacement that was killed between its two renames."""
        if RunRecord.read(self._aside) is None:
            return
        self._lock(self._outer_lock)
        if self._target.is_dir():
            self._delete(self._aside, RunRecord.read(self._aside))
        else:
            self._aside.rename(self._target)
        self._unlock(self._outer_lock)

    def _lock(self, path: Path) -> None:
        """Lock a file, which is created with its folder if it does not exist."""
        if path in self._locks:
            return
        if path.is_symlink() or (path.exists() and (not path.is_file() or path.stat().st_size)):
            raise InvalidArgumentError(_not_of_a_run(self.path, path.name))
        for _ in range(10):  # another run that gives up deletes an empty folder
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                break
            except FileNotFoundError:
                continue
            self._locks[path] = lock
            return
        raise InvalidArgumentError(_in_use(self.path))

    def _unlock(self, path: Path) -> None:
        """Release a lock and delete its file; who has it open by then notices, and tries again."""
        lock = self._locks.pop(path, None)
        if lock is not None:
            path.unlink(missing_ok=True)
            lock.release()
        if path.name == LOCK:
            with suppress(OSError):
                path.parent.rmdir()  # if it is empty

    def _delete(self, folder: Path, record: RunRecord | None) -> None:
        """Delete what a record lists from a folder, and the folder if that was all.

        Files of users that are in the run's folder as well are only linked here.
        """
        for name in list(names_in(folder)):
            path, other = folder / name, self._target / name
            linked = folder != self._target and os.path.lexists(other) and same(path, other)
            if linked or (record is not None and record.owns(folder, name)):
                path.unlink()
        shutil.rmtree(folder / PART, ignore_errors=True)
        for name in OWN - {PART}:
            (folder / name).unlink(missing_ok=True)
        if folder != self._target:
            remove_empty(folder)
        elif record is not None:
            remove_empty_of(folder, record.hashes)

    def _checked(self, part: Path) -> list[str]:
        """Names of the files of a batch, which replace none but files of the run."""
        names = _in_order(part)
        for name in names:
            self._check_place(self.folder, self.record, name)
            if self._replaced is not None:
                self._check_place(self._target, self._replaced, name)
        return names

    def _place(self, part: Path, names: Collection[str]) -> None:
        for name in names:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).replace(self.folder / name)

    def _check_place(self, folder: Path, record: RunRecord, name: str) -> None:
        if os.path.lexists(folder / name) and not record.owns(folder, name):
            raise InvalidArgumentError(_not_of_a_run(self.path, name))


def check_folder(
    path: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Collection[Path] = (),
) -> None:
    """Check that a run can write a folder, before the work is done; see :meth:`RunFolder.open`.

    Raises:
        InvalidArgumentError: If it cannot be written, holds files of no run, is read itself, or
            is the current folder and would be replaced.
    """
    check_writable(path)
    target = path.resolve()
    for place in filter(Path.exists, inputs):
        if place.resolve().is_relative_to(target):
            raise InvalidArgumentError(f"{place} is an input: choose another `out`")
        if target.is_relative_to(place.resolve()):
            raise InvalidArgumentError(f"{path} is inside the input {place}: choose another `out`")
    if overwrite and Path.cwd().resolve().is_relative_to(target):
        raise InvalidArgumentError(f"the current folder is in {path}: choose another `out`")
    if RunRecord.read(target) is None and (foreign := _foreign(target)):
        raise InvalidArgumentError(_not_of_a_run(path, foreign))


def _in_order(part: Path) -> list[str]:
    """Names of the files of a batch, those that list others last."""
    found = (path for path in part.rglob("*") if path.is_file())
    names = sorted(path.relative_to(part).as_posix() for path in found)
    return sorted(names, key=lambda name: name.endswith(".json"))


def _foreign(folder: Path) -> str | None:
    """The first file of a folder that no run has claimed, not even a killed one; else None."""
    if (folder / LOCK).is_file() and not (folder / LOCK).is_symlink():
        return None
    part = folder / PART
    return PART if part.is_dir() and any(part.iterdir()) else next(names_in(folder), None)


def _in_use(path: Path) -> str:
    return f"{path} is in use by another run: wait for its end, or choose another `out`"


def _not_of_a_run(path: Path, name: str) -> str:
    return f"{path} holds {name}, which no recorded run wrote: choose another `out`"


def _check_unchanged(folder: Path, record: RunRecord, shown: Path) -> None:
    for name in record.hashes:
        if os.path.lexists(folder / name) and not record.owns(folder, name):
            raise InvalidArgumentError(
                f"{shown / name} has changed since a run wrote it: move it elsewhere, then repeat"
                " the command"
            )
