"""The entries of a comparison's tables, whatever they are printed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastdpm.evaluation.results import Cell, Comparison, Row
from fastdpm.evaluation.scores import Metric, Score


@dataclass(frozen=True)
class Entry:
    """One cell of a table: what it says, what it sorts by, its mark (BEST or TIED), remarks."""

    text: str
    value: str = ""
    mark: str = ""
    remarks: tuple[str, ...] = ()
    failed: bool = False

    @classmethod
    def of(cls, score: Score | None) -> Entry:
        """A score alone."""
        return cls("-") if score is None else cls(score.text, repr(score.value))


@dataclass(frozen=True)
class Table:
    """One metric: the methods by S, and the references: name, evaluations, n and entry."""

    metric: Metric
    lines: tuple[tuple[Row, tuple[Entry, ...]], ...]
    references: tuple[tuple[str, str, str, Entry], ...]

    @classmethod
    def of(cls, comparison: Comparison, metric: Metric) -> Table:
        """Lay out the values of a metric."""
        marks = {s: comparison.marks(metric, s) for s in comparison.steps}
        lines = tuple(
            (row, tuple(_entry(comparison, row.cells.get(s), metric, marks[s]) for s in marks))
            for row in comparison.rows
        )
        references = [
            (cell.name, f"{cell.num_evaluations:,.10g}", f"{cell.n:,}", entry)
            for cell in comparison.references
            for entry in [_entry(comparison, cell, metric, None)]
        ]
        floor, score = comparison.floor, comparison.floor_score(metric)
        if floor is not None and score is not None:
            name = f"real data: {floor.label}"
            references.append((name, "-", f"{floor.n:,}", Entry(score.text)))
        return cls(metric, lines, tuple(references))


def _entry(
    comparison: Comparison, cell: Cell | None, metric: Metric, marks: Mapping[str, str] | None
) -> Entry:
    """An entry; the table of references, which has no ``marks``, has a column for n."""
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
