"""The tables of a comparison as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from fastdpm.core.text import markdown_text, one_line
from fastdpm.evaluation.cells import Row
from fastdpm.evaluation.report.tables import TIME, Entry, Table
from fastdpm.evaluation.report.words import facts, legend, marks_legend, summary
from fastdpm.evaluation.results import BEST, TIED, Comparison
from fastdpm.evaluation.select import find_metric


def table_text(comparison: Comparison, metric: str | None = None) -> str:
    """The table of one metric, then that of the references, its legend and its notes.

    Args:
        comparison: What was measured.
        metric: A key or a short name, or "seconds_per_sample"; the primary one by default.

    Raises:
        InvalidArgumentError: If there is no such metric.
    """
    known = [*comparison.metrics, TIME]
    found = comparison.primary if metric is None else find_metric(known, metric, "metric")
    table = Table.of(comparison, found)
    lines = _tables(comparison, table)
    entries = [entry for _, row in table.lines for entry in row]
    if any(entry.mark for entry in entries):
        lines += [markdown_text(marks_legend(comparison)), ""]
    entries += [line[-1] for line in table.references]
    shown = {remark for entry in entries if not entry.failed for remark in entry.remarks}
    shared = len(comparison.shared_notes)
    lines += [line for i, line in _notes(comparison) if f"note {i}" in shown or i <= shared]
    return "\n".join(lines)


def markdown(comparison: Comparison) -> str:
    """The whole report: a table per metric as in the paper, with methods in rows, S in columns."""
    lines = [f"# Samplers compared on {markdown_text(comparison.model.name)}", ""]
    lines += [f"- {name}: {markdown_text(value)}" for name, value in facts(comparison)]
    lines += ["", *(f"- {markdown_text(line)}" for line in summary(comparison)), ""]
    lines += [markdown_text(" ".join(legend(comparison))), ""]
    for table in Table.all_of(comparison):
        lines += [f"## {markdown_text(table.title)}", ""]
        lines += _tables(comparison, table)
    if comparison.notes:
        lines += ["## Notes", ""]
        lines += [line for _, line in _notes(comparison)]
        lines.append("")
    return "\n".join(lines + _reproduction(comparison))


def _notes(comparison: Comparison) -> list[tuple[int, str]]:
    """The number of each note, and its line."""
    of_all = comparison.shared_notes
    return [
        (i, f"{i}. {markdown_text(note)}{' (all cells)' if note in of_all else ''}")
        for i, note in enumerate(comparison.notes, 1)
    ]


def _tables(comparison: Comparison, table: Table) -> list[str]:
    return [*_main_table(comparison, table), *_reference_table(table)]


def _main_table(comparison: Comparison, table: Table) -> list[str]:
    if not table.lines:
        return []
    head = ["sampler", "levels", *(f"S = {s}" for s in comparison.steps)]
    lines = [_line(head), _line(["---", "---", *["---:"] * len(comparison.steps)])]
    above: Row | None = None
    for row, entries in table.lines:
        again = above is not None and (above.family, above.group) == (row.family, row.group)
        names = ["" if again else markdown_text(row.group), markdown_text(row.choice)]
        lines.append(_line([*names, *map(_marked, entries)]))
        above = row
    return [*lines, ""]


def _marked(entry: Entry) -> str:
    text = markdown_text(entry.text)
    if entry.failed:
        return text
    text = f"**{text}**" if entry.mark == BEST else f"{text} †" if entry.mark == TIED else text
    return text + "".join(f" ({remark})" for remark in entry.remarks)


def _reference_table(table: Table) -> list[str]:
    if not table.references:
        return []
    head = ["reference", "evaluations", "n", table.metric.name]
    lines = [
        _line([*map(markdown_text, names), _marked(entry)]) for *names, entry in table.references
    ]
    return [_line(map(markdown_text, head)), _line(["---", "---:", "---:", "---:"]), *lines, ""]


def _reproduction(comparison: Comparison) -> list[str]:
    lines = ["## Reproduce", ""]
    if comparison.command:
        lines += [f"    {one_line(comparison.command)}", ""]
    versions = [f"{name} {value}" for name, value in comparison.versions.items()]
    return [*lines, markdown_text(", ".join(versions)), ""] if versions else lines


def _line(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"
