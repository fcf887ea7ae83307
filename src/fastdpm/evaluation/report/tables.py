"""The entries of a comparison's tables, in any format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastdpm.evaluation.cells import Cell, Row
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Metric, Score, duration

TIME = Metric("seconds_per_sample", "Time per sample", "lower")
FAMILY_TITLES = {
    "paper": "FastDPM: levels by VAR or STEP",
    "multistep": "Multistep plans",
    "diffusers": "Samplers of diffusers",
}


@dataclass(frozen=True)
class Entry:
    """One cell of a table: its text, what it sorts by, its mark (BEST or TIED) and remarks."""

    text: str
    value: str = ""
    mark: str = ""
    remarks: tuple[str, ...] = ()
    failed: bool = False

    @classmethod
    def of(cls, score: Score | None) -> Entry:
        """A score without remarks."""
        return cls("-") if score is None else cls(score.text, repr(score.value))


@dataclass(frozen=True)
class Table:
    """One metric: the methods by S, and the references: name, evaluations, n and entry.

    ``subject`` is what the numbers are, if not the values of the metric.
    """

    metric: Metric
    lines: tuple[tuple[Row, tuple[Entry, ...]], ...]
    references: tuple[tuple[str, str, str, Entry], ...]
    subject: str = ""

    @classmethod
    def of(cls, comparison: Comparison, metric: Metric) -> Table:
        """Lay out the values of a metric, or of TIME."""
        if metric == TIME:
            return cls._of_time(comparison)
        marks = {s: comparison.marks(metric, s) for s in comparison.steps}
        lines = tuple(
            (row, tuple(_entry(comparison, row.cells.get(s), metric, marks[s]) for s in marks))
            for row in comparison.rows
        )
        references = [
            (*_reference(cell), _entry(comparison, cell, metric, None))
            for cell in comparison.references
        ]
        floor, score = comparison.floor, comparison.floor_score(metric)
        if floor is not None and score is not None:
            name = f"real data: {floor.label}"
            references.append((name, "-", f"{floor.n:,}", Entry(score.text)))
        return cls(metric, lines, tuple(references))

    @classmethod
    def all_of(cls, comparison: Comparison) -> list[Table]:
        """A table for each metric, and one of times if they were recorded."""
        timed = any(cell.seconds_per_sample is not None for cell in comparison.cells)
        first, *others = comparison.metrics
        tables = [cls.of(comparison, first), *cls.differences(comparison, first)]
        tables += [cls.of(comparison, metric) for metric in others]
        return [*tables, *([cls.of(comparison, TIME)] if timed else [])]

    @classmethod
    def differences(cls, comparison: Comparison, metric: Metric) -> list[Table]:
        """Differences from the best method at each S, and from the standard sampler if it fits."""
        if not comparison.paired:
            return []
        steps = comparison.steps
        best = {s: comparison.best(metric, s) for s in steps}
        standard = dict.fromkeys(steps, comparison.reference(metric))
        tables = []
        for others, name in ((best, "the best at each S"), (standard, "the standard sampler")):
            lines = tuple(
                (
                    row,
                    tuple(_apart(comparison, row.cells.get(s), others[s], metric) for s in steps),
                )
                for row in comparison.rows
            )
            if any(entry.value for _, entries in lines for entry in entries):
                tables.append(cls(metric, lines, (), f"difference from {name}"))
        return tables

    @classmethod
    def _of_time(cls, comparison: Comparison) -> Table:
        steps = comparison.steps
        lines = [(row, tuple(_time(row.cells.get(s)) for s in steps)) for row in comparison.rows]
        references = [(*_reference(cell), _time(cell)) for cell in comparison.references]
        return cls(TIME, tuple(lines), tuple(references))

    @property
    def title(self) -> str:
        """The metric and which way is better."""
        if self.subject:
            return f"{self.metric.name}: {self.subject}"
        return f"{self.metric.name}, {self.metric.direction}"


def _reference(cell: Cell) -> tuple[str, str, str]:
    return cell.name, f"{cell.num_evaluations:,.10g}", f"{cell.n:,}"


def _apart(comparison: Comparison, cell: Cell | None, other: Cell | None, metric: Metric) -> Entry:
    if cell is None or other is None:
        return Entry("-")
    if cell is other:
        return Entry("best", "0.0")
    return Entry.of(comparison.difference(cell, other, metric))


def _time(cell: Cell | None) -> Entry:
    seconds = None if cell is None else cell.seconds_per_sample
    return Entry("-") if seconds is None else Entry(duration(seconds), repr(seconds))


def _entry(
    comparison: Comparison, cell: Cell | None, metric: Metric, marks: Mapping[str, str] | None
) -> Entry:
    """An entry; that of a reference has no ``marks`` and no remark on n, which has a column."""
    if cell is None:
        return Entry("-")
    notes = tuple(f"note {i}" for i in comparison.note_numbers(cell))
    if metric.key not in cell.scores:
        return Entry(cell.missing, remarks=notes, failed=True)
    score = cell.scores[metric.key]
    cost = [cell.cost] if cell.num_evaluations != cell.num_steps else []
    count = [f"n = {cell.n:,}"] if cell.n != comparison.n and marks is not None else []
    mark = (marks or {}).get(cell.id, "")
    return Entry(score.text, repr(score.value), mark, (*cost, *count, *notes))
