"""Runs a command in a forked process, counts its operations on files, and stops it at one of them.

Counted, in one folder: opening a file for writing, every write that reaches the system, fsync,
truncate, rename, link, unlink, mkdir, rmdir, chmod, utime and locks. Python's audit events report
those that carry a path; writes and fsync are replaced by versions that count. A write is two
points: before it, and after half of its bytes.

What a compiled library writes by itself is not counted. `Outcome.unseen` lists files that came to
be that way, so that such a command fails the harness instead of passing unseen.
"""

from __future__ import annotations

import gc
import io
import json
import mmap
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

TIMEOUT = 60
PATHS = {  # events of Python and which of their arguments is the path that changes
    "open": 0,
    "os.rename": 1,
    "os.remove": 0,
    "os.mkdir": 0,
    "os.rmdir": 0,
    "os.link": 1,
    "os.symlink": 1,
    "os.truncate": 0,
    "os.chmod": 0,
    "os.utime": 0,
    "fcntl.flock": 0,
    "fcntl.lockf": 0,
}
FOLDER_ARGUMENT = {"os.remove": 1, "os.mkdir": 2, "os.rmdir": 1, "os.rename": 3}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Stop:
    """A signal that a command gets at one of its points, counted from 1."""

    at: int
    signal: signal.Signals = signal.SIGKILL


@dataclass
class Outcome:
    """How a command ended.

    Attributes:
        code: Exit status, or minus the signal that ended it.
        text: What it printed.
        operations: Its operations on files, one for each point.
        evaluations: Samples that networks evaluated.
        seconds: How long it took.
        written: Bytes written to each file, by inode.
        modules: What the process imported.
    """

    code: int
    text: str
    operations: list[str]
    evaluations: int
    seconds: float
    written: dict[int, int] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def unseen(self, folder: Path, old: set[int]) -> list[str]:
        """New files whose content was not written through operations that are counted."""
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        stats = [(path, path.stat()) for path in files]
        return [
            str(path.relative_to(folder))
            for path, stat in stats
            if stat.st_ino not in old and stat.st_size > self.written.get(stat.st_ino, 0)
        ]


class Counter:
    """Counts the points of this process, and stops it at one of them."""

    def __init__(self, root: Path, stop: Stop | None, log: int, shared: mmap.mmap) -> None:
        self.root, self.stop, self.log, self.shared = str(root), stop, log, shared
        self.count = self.evaluations = self.depth = 0
        self.write_fd, self.kill = os.write, os.kill

    def path(self, name: Any, folder: Any = -1) -> str | None:
        """The path of a name or a file descriptor, relative to the root; None outside of it."""
        links = Path("/proc/self/fd")
        if isinstance(name, int):
            full = str((links / str(name)).readlink())
        else:
            base = (links / str(folder)).readlink() if (folder or -1) > 0 else Path.cwd()
            full = os.path.normpath(base / os.fsdecode(name))
        return full[len(self.root) + 1 :] if full.startswith(self.root + "/") else None

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count an event of Python that changes a file."""
        if event not in PATHS or (event == "open" and not arguments[2] & WRITING):
            return
        if event == "open" and isinstance(arguments[0], int):
            return  # opened before
        folder = arguments[FOLDER_ARGUMENT[event]] if event in FOLDER_ARGUMENT else -1
        path = self.path(arguments[PATHS[event]], folder)
        if path is not None:
            self.reach(f"{event.removeprefix('os.')} {path}")

    def reach(self, operation: str) -> bool:
        """Count a point; returns True if its signal was sent and did not end the process."""
        self.count += 1
        self.write_fd(self.log, json.dumps(operation).encode() + b"\n")
        if self.stop is None or self.count != self.stop.at:
            return False
        self.kill(os.getpid(), self.stop.signal)
        return True

    def write(self, real: Callable[[Any], int], file: int, data: Any) -> int:
        """Write, as two points; the second is after half of the bytes."""
        path = self.path(file)
        if path is None:
            return real(data)
        view = memoryview(data).cast("B")
        self.reach(f"write {path}")
        if len(view) > 1 and self.stop is not None and self.stop.at == self.count + 1:
            done = real(view[: len(view) // 2])
            self.reach(f"write {path}, half")
        else:
            if len(view) > 1:
                self.reach(f"write {path}, half")
            done = real(view)
        self.write_fd(self.log, json.dumps([os.fstat(file).st_ino, done]).encode() + b"\n")
        return done

    def enter(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Count the samples that a network is asked about.

        Not those of feature networks, which get no steps, nor zeros, which only try a network.
        """
        asked = len(inputs) > 1 and inputs[0].device.type != "meta" and inputs[0].any()
        if self.depth == 0 and asked:
            self.evaluations += len(inputs[0])
            self.shared[:8] = struct.pack("q", self.evaluations)
        self.depth += 1

    def leave(self, *_: Any) -> None:
        """Leave a module."""
        self.depth -= 1


def install(counter: Counter) -> None:
    """Count the operations and network evaluations of this process from now on."""
    from torch.nn.modules import module

    real_open, real_write = io.open, os.write

    class CountedFile(io.FileIO):
        def write(self, data: Any) -> int:
            return counter.write(super().write, self.fileno(), data)

    def opened(
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = CountedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered: Any = kind(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    def before(name: str) -> None:
        real = getattr(os, name)

        def counted(file: int, *arguments: Any) -> Any:
            path = counter.path(file)
            if path is not None:
                counter.reach(f"{name} {path}")
            return real(file, *arguments)

        setattr(os, name, counted)

    import builtins

    builtins.open = io.open = opened
    os.write = lambda file, data: counter.write(lambda part: real_write(file, part), file, data)
    for name in ("fsync", "fdatasync", "ftruncate", "sendfile", "copy_file_range"):
        before(name)
    module.register_module_forward_pre_hook(counter.enter)
    module.register_module_forward_hook(counter.leave, always_call=True)
    sys.addaudithook(counter.audit)


def stand_still(counter: Counter) -> None:
    """Let the clocks that commands measure themselves by move only as networks are evaluated.

    Two to the power of -30 seconds for each sample, which floats hold exactly: what a command
    records of its time is the same in every run.
    """
    time.perf_counter = time.monotonic = lambda: 1024 + counter.evaluations * 2.0**-30


def run(
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    stop: Stop | None = None,
    kill_after: float | None = None,
) -> Outcome:
    """Run a command of the command line in ``folder``, in a forked process.

    Args:
        arguments: What follows ``fastdpm``.
        folder: The current folder of the command; operations in it are counted.
        log: Where the process notes what it does; a file outside of ``folder``.
        stop: Where it is stopped, if at all.
        kill_after: Seconds after which it is killed, if at all.
    """
    shared = mmap.mmap(-1, 8)
    log.write_bytes(b"")
    printed = log.with_suffix(".txt")
    began = time.perf_counter()
    process = os.fork()
    if process == 0:
        _child(arguments, folder, log, printed, stop, shared)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    seconds = time.perf_counter() - began
    entries = [json.loads(line) for line in log.read_bytes().split(b"\n")[:-1]]
    written: dict[int, int] = {}
    for inode, size in (entry for entry in entries if isinstance(entry, list)):
        written[inode] = written.get(inode, 0) + size
    return Outcome(
        os.waitstatus_to_exitcode(status),
        printed.read_text(errors="replace"),
        [entry for entry in entries if isinstance(entry, str)],
        struct.unpack("q", shared[:8])[0],
        seconds,
        written,
        [name for entry in entries if isinstance(entry, dict) for name in entry["modules"]],
    )


def _child(
    arguments: Sequence[str],
    folder: Path,
    log: Path,
    printed: Path,
    stop: Stop | None,
    shared: mmap.mmap,
) -> NoReturn:
    code = 70
    try:
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
        out = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        notes = os.open(log, os.O_WRONLY | os.O_APPEND)
        gc.disable()
        known = set(sys.modules)
        counter = Counter(folder, stop, notes, shared)
        stand_still(counter)
        install(counter)
        from fastdpm.__main__ import main

        sys.argv = ["fastdpm", *arguments]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        os.write(notes, json.dumps({"modules": sorted(set(sys.modules) - known)}).encode() + b"\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
