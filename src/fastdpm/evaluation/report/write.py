"""Reports of a comparison: tables for people and programs, two pictures, and one page.

Pure functions of the results; no torch, and no model or data is looked at.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastdpm.data.files import write_bytes, write_text
from fastdpm.evaluation.report.figures import write_distance
from fastdpm.evaluation.report.html import page
from fastdpm.evaluation.report.samples import write_samples
from fastdpm.evaluation.report.tables import Entry, Table
from fastdpm.evaluation.report.words import facts, legend, summary
from fastdpm.evaluation.results import BEST, TIED, Comparison, Row
from fastdpm.evaluation.scores import plain

_MARKED = re.compile(r"([\\`*_\[\]<>|#~&$])")


def write_report(out: Path, comparison: Comparison) -> list[Path]:
    """Write a comparison as JSON, CSV, Markdown, pictures and a self-contained HTML page.

    Args:
        out: A folder, made if it does not exist; files of an earlier report are replaced.
        comparison: What was measured, and pictures of it.

    Returns:
        The files: results.json, results.csv, results.md, distance.png, samples.png (where there
        are pictures) and report.html.

    Raises:
        InvalidArgumentError: If the pictures are neither images nor sounds, or differ in shape.
    """
    out.mkdir(parents=True, exist_ok=True)
    samples = out / "samples.png"
    record = json.dumps(comparison.results, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "results.json", record + "\n")
    write_bytes(out / "results.csv", csv_text(comparison).encode())
    write_text(out / "results.md", markdown(comparison))
    write_distance(out / "distance.png", comparison)
    caption = write_samples(samples, comparison)
    if caption is None:
        samples.unlink(missing_ok=True)
    write_text(out / "report.html", page(comparison, out, caption))
    pictures = ["distance.png"] if caption is None else ["distance.png", "samples.png"]
    names = ["results.json", "results.csv", "results.md", *pictures, "report.html"]
    return [out / name for name in names]


def csv_text(comparison: Comparison) -> str:
    """A line for each cell; each metric has a column for its value and one for its error."""
    text = io.StringIO()
    keys = [metric.key for metric in comparison.metrics]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "family", "group", "choice", "num_steps", "evaluations", "n", "seconds", "plan"]
        + [name for key in keys for name in (key, f"{key}_error")]
        + ["failed", "notes"]
    )
    for cell in comparison.cells:
        scores = [cell.scores.get(key) for key in keys]
        cost = f"{cell.num_evaluations:.10g}" if cell.failed is None else None
        writer.writerow(
            [cell.id, cell.family, cell.group, cell.choice, cell.num_steps, cost]
            + [cell.n, cell.seconds, cell.plan]
            + [number for s in scores for number in (plain(s).values() if s else (None, None))]
            + [cell.reason, "; ".join(cell.notes)]
        )
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    """The tables, laid out as the paper's: methods in rows, S in columns, a table a metric."""
    lines = [f"# Samplers compared on {_escaped(comparison.model.name)}", ""]
    lines += [f"- {name}: {_escaped(value)}" for name, value in facts(comparison)]
    lines += ["", *(f"- {_escaped(line)}" for line in summary(comparison)), ""]
    lines += [_escaped(" ".join(legend(comparison))), ""]
    for metric in comparison.metrics:
        lines += [f"## {_escaped(metric.name)}, {metric.direction}", ""]
        table = Table.of(comparison, metric)
        lines += _main_table(comparison, table)
        lines += _reference_table(table)
    if comparison.notes:
        lines += ["## Notes", ""]
        lines += [f"{i}. {_escaped(note)}" for i, note in enumerate(comparison.notes, 1)]
        lines.append("")
    return "\n".join(lines + _reproduction(comparison))


def _main_table(comparison: Comparison, table: Table) -> list[str]:
    if not table.lines:
        return []
    head = ["process or sampler", "levels or steps", *(f"S = {s}" for s in comparison.steps)]
    lines = [_line(head), _line(["---", "---", *["---:"] * len(comparison.steps)])]
    above: Row | None = None
    for row, entries in table.lines:
        again = above is not None and (above.family, above.group) == (row.family, row.group)
        names = ["" if again else _escaped(row.group), _escaped(row.choice)]
        lines.append(_line([*names, *map(_marked, entries)]))
        above = row
    return [*lines, ""]


def _marked(entry: Entry) -> str:
    text = _escaped(entry.text)
    if entry.failed:
        return text
    text = f"**{text}**" if entry.mark == BEST else f"{text} †" if entry.mark == TIED else text
    return text + "".join(f" ({remark})" for remark in entry.remarks)


def _reference_table(table: Table) -> list[str]:
    if not table.references:
        return []
    head = ["for reference", "evaluations", "n", table.metric.name]
    lines = [_line(map(_escaped, (*names, entry.text))) for *names, entry in table.references]
    return [_line(map(_escaped, head)), _line(["---", "---:", "---:", "---:"]), *lines, ""]


def _reproduction(comparison: Comparison) -> list[str]:
    lines = ["## To do it again", ""]
    if comparison.command:
        lines += [f"    {_one_line(comparison.command)}", ""]
    versions = [f"{name} {value}" for name, value in comparison.versions.items()]
    return [*lines, _escaped(", ".join(versions)), ""] if versions else lines


def _line(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _escaped(text: Any) -> str:
    """Text that Markdown, and the HTML in it, shows as it stands."""
    return _MARKED.sub(r"\\\1", _one_line(text))
