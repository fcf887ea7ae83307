"""One stopped run: the stop, what follows, and what is wrong at the end."""

from __future__ import annotations

import random
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM

from tests.soak import judge
from tests.soak.cases import Case, resumes
from tests.soak.stops import Outcome, Stop, run

# A user's files beside the outputs; the folder has the name of what a stopped run might leave.
GUESTS = ("notes.txt", "README.md", ".out-mine.part/notes.txt")
SIGNALS = {"term": SIGTERM, "int": SIGINT}
KINDS = ("kill", "again", "twice", "visit", *SIGNALS, "time")
Faults = dict[str, list[str]]


@dataclass(frozen=True)
class Point:
    """Where a run of a case is stopped, and how it goes on.

    The kinds: "kill" (killed, then continued with --resume), "again" (killed, then started again
    as it was, then as the message says), "twice" (killed, and killed again while it continues),
    "visit" (a user puts files into the folder of the killed run), "term" and "int" (the signals,
    then what the message says), and "time" (killed at a random time instead of an operation).
    """

    case: str
    at: int
    kind: str

    def __str__(self) -> str:
        return f"{self.case}:{self.at}:{self.kind}"


@dataclass
class Reference:
    """The uninterrupted run of a case.

    Attributes:
        case: The case.
        start: A copy of the folder as it is before the run.
        old: The files before the run.
        new: The files after it.
        outcome: How it went.
    """

    case: Case
    start: Path
    old: judge.Tree
    new: judge.Tree
    outcome: Outcome

    @property
    def guests(self) -> list[str]:
        """The user's files from the start."""
        return [*GUESTS, *(f"out/{name}" for name in self.case.guests)]


@dataclass
class Trial:
    """A point that is tried in a folder of its own."""

    reference: Reference
    point: Point
    place: Path
    log: Path
    faults: Faults = field(default_factory=dict)
    visitors: dict[str, bytes] = field(default_factory=dict)
    evaluations: int = 0
    starts: int = 0

    def fault(self, kind: str, what: str) -> None:
        """Note a fault."""
        self.faults.setdefault(kind, []).append(what)

    def run(self, line: list[str], **stop: Stop | float) -> Outcome:
        """Run a command in the folder."""
        outcome = run(line, self.place, self.log, **stop)  # type: ignore[arg-type]
        self.evaluations += outcome.evaluations
        self.starts += 1
        if "Traceback" in outcome.text:
            self.fault("unclear", f"a traceback: {_last(outcome)}")
        return outcome

    def try_it(self) -> Faults:
        """Stop the run, let it go on, and return what went wrong."""
        reference, point = self.reference, self.point
        shutil.copytree(reference.start, self.place, symlinks=True)
        older = judge.finished(self.place)
        stopped = self._stop()
        self._check_stopped(stopped)
        before = judge.finished(self.place)
        if point.kind == "visit":
            self._visit()
        if point.kind == "twice":
            chooser = random.Random(str(point))  # noqa: S311
            left = len(reference.outcome.operations) - point.at
            self.run(self._resumed(), stop=Stop(chooser.randint(1, left + 4)))
            self._check_guests("after the second stop")
            before = judge.finished(self.place)
        if self._go_on(stopped):
            self._check_end({mark: name for mark, name in before.items() if mark not in older})
        self._check_guests("at the end")
        return self.faults

    def _resumed(self) -> list[str]:
        """The command that goes on with a run."""
        line = self.reference.case.arguments
        if not resumes(line[0]):
            return line
        return [*line, "--resume"]

    def _stop(self) -> Outcome:
        """Run the command until it is stopped."""
        point, line = self.point, self.reference.case.arguments
        if point.kind == "time":
            return self.run(line, kill_after=point.at / 1000 * self.reference.outcome.seconds)
        return self.run(line, stop=Stop(point.at, SIGNALS.get(point.kind, SIGKILL)))

    def _check_stopped(self, stopped: Outcome) -> None:
        """Check what a stopped run leaves."""
        point, reference = self.point, self.reference
        self._check_guests("after the stop")
        if point.kind in SIGNALS and stopped.code not in (0, 130, 143):
            self.fault("unclear", f"{point.kind} ended it with {stopped.code}: {_last(stopped)}")
        now, old, new = map(judge.outputs, (judge.tree(self.place), reference.old, reference.new))
        if "--overwrite" in reference.case.arguments and now not in (old, new):
            self.fault("lost", "the output is neither the old one nor the new one as a whole")

    def _visit(self) -> None:
        """Put a user's files into the folder of a stopped run."""
        out = self.place / "out"
        if not out.is_dir() or not any(out.iterdir()):
            return
        for name in ("notes.txt", "README.md"):
            if f"out/{name}" not in self.reference.new:
                (out / name).write_text("added by the user\n")
                self.visitors[f"out/{name}"] = (out / name).read_bytes()

    def _go_on(self, stopped: Outcome) -> bool:
        """Go on as a user would; whether that ended well."""
        case, kind = self.reference.case, self.point.kind
        if stopped.code == 0:
            return True
        again = kind == "again" or (kind in SIGNALS and "--resume" not in stopped.text)
        again = again or not resumes(case.arguments[0])
        outcome = self.run(case.arguments if again else self._resumed())
        if again and outcome.code:
            if "--resume" in outcome.text:
                outcome = self.run(self._resumed())
            elif judge.tree(self.place) == self.reference.new:
                return True  # it was done, and the command refuses to do it again
        overwrites = "--overwrite" in case.arguments  # which may spare a user's files by refusing
        if outcome.code and overwrites and any(name[4:] in outcome.text for name in self.visitors):
            return False
        if outcome.code:
            self.fault("dead ends", f"exit status {outcome.code}: {_last(outcome)}")
        return outcome.code == 0

    def _check_end(self, before: judge.Marks) -> None:
        """Check the outcome against that of the uninterrupted run."""
        reference = self.reference
        found = judge.tree(self.place)
        for name in self.visitors:
            found.pop(name, None)
        for kind, names in judge.compare(reference.new, found).items():
            for name in names:
                self.fault(kind, name)
        case, restarts = reference.case, self.point.kind in ("again", *SIGNALS)
        if case.lost is None or ("--overwrite" in case.arguments and restarts):
            return  # it starts from the beginning again
        for name in judge.repeated(before, judge.finished(self.place)):
            self.fault("repeated", name)
        stops = 2 if self.point.kind == "twice" else 1
        more = self.evaluations - reference.outcome.evaluations
        more -= case.estimate * (self.starts - 1)
        if more > case.lost * stops:
            self.fault("repeated", f"{more} network evaluations")

    def _check_guests(self, when: str) -> None:
        """Check that the user's files are what they were."""
        start = self.reference.start
        names = {name: (start / name).read_bytes() for name in self.reference.guests}
        for name, content in {**names, **self.visitors}.items():
            path = self.place / name
            if not path.is_file() or path.read_bytes() != content:
                self.fault("foreign", f"{name} {when}")


def _last(outcome: Outcome) -> str:
    """The last line that a command printed."""
    lines = [line for line in outcome.text.splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1])[:200] if lines else "nothing was printed"
