"""Reports of a comparison: tables for people and programs, two pictures, and one page.

Pure functions of the results; no torch, and no model or data is looked at.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastdpm.data.files import write_bytes, write_text
from fastdpm.evaluation.report.figures import write_distance
from fastdpm.evaluation.report.html import page
from fastdpm.evaluation.report.samples import write_samples
from fastdpm.evaluation.report.table import BEST, TIED, Cell, Comparison, Metric, Row, read_results
from fastdpm.evaluation.report.words import facts, legend, summary

_MARKED = re.compile(r"([\\`*_\[\]<>|#~&$])")


def write_report(
    out: Path, results: Mapping[str, Any], pictures: Mapping[str, NDArray[Any]]
) -> list[Path]:
    """Write a comparison as JSON, CSV, Markdown, pictures and a self-contained HTML page.

    Args:
        out: A folder, made if it does not exist; files of an earlier report are replaced.
        results: What was measured, the mapping that ``results.json`` holds.
        pictures: Cell id -> the cell's first samples, of the same seeds in every cell: uint8
            images of shape (k, H, W, C) or float sounds of shape (k, samples) in [-1, 1].
            Cells may be absent.

    Returns:
        The files: results.json, results.csv, results.md, distance.png, samples.png (where there
        are pictures) and report.html.

    Raises:
        DataError: If the results are of another format or version, or not whole.
        InvalidArgumentError: If the pictures are not as said.
    """
    comparison = read_results(results)
    out.mkdir(parents=True, exist_ok=True)
    samples = out / "samples.png"
    write_text(out / "results.json", json_text(comparison))
    write_bytes(out / "results.csv", csv_text(comparison).encode())
    write_text(out / "results.md", markdown(comparison))
    write_distance(out / "distance.png", comparison)
    caption = write_samples(samples, comparison, pictures)
    if caption is None:
        samples.unlink(missing_ok=True)
    write_text(out / "report.html", page(comparison, out, caption, pictures))
    names = ("results.json", "results.csv", "results.md", "distance.png", "samples.png")
    return [*(out / name for name in names if (out / name).exists()), out / "report.html"]


def json_text(comparison: Comparison) -> str:
    """The results as JSON; what is not finite is null."""
    return json.dumps(comparison.results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


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
        cost = f"{cell.evaluations:.10g}" if cell.failed is None else None
        writer.writerow(
            [cell.id, cell.family, cell.group, cell.choice, cell.num_steps, cost]
            + [cell.n, cell.seconds, cell.plan]
            + [number for s in scores for number in ((s.value, s.error) if s else (None, None))]
            + [cell.failed, "; ".join(cell.notes)]
        )
    return text.getvalue()


def markdown(comparison: Comparison) -> str:
    """The tables, laid out as the paper's: methods in rows, S in columns, a table a metric."""
    lines = [f"# Samplers compared on {_escaped(comparison.model)}", ""]
    lines += [f"- {name}: {_escaped(value)}" for name, value in facts(comparison)]
    lines += ["", *(f"- {_escaped(line)}" for line in summary(comparison)), ""]
    lines += [_escaped(" ".join(legend(comparison))), ""]
    for metric in comparison.metrics:
        lines += [f"## {_escaped(metric.name)}, {metric.direction}", ""]
        lines += _main_table(comparison, metric)
        lines += _reference_table(comparison, metric)
    if comparison.notes:
        lines += ["## Notes", ""]
        lines += [f"{i}. {_escaped(note)}" for i, note in enumerate(comparison.notes, 1)]
        lines.append("")
    return "\n".join(lines + _reproduction(comparison))


def _main_table(comparison: Comparison, metric: Metric) -> list[str]:
    if not comparison.rows:
        return []
    marks = {s: comparison.marks(metric, s) for s in comparison.steps}
    head = ["process or sampler", "levels or steps", *(f"S = {s}" for s in comparison.steps)]
    lines = [_line(head), _line(["---", "---", *["---:"] * len(comparison.steps)])]
    above: Row | None = None
    for row in comparison.rows:
        again = above is not None and (above.family, above.group) == (row.family, row.group)
        cells = [_entry(comparison, row.cells.get(s), metric, marks[s]) for s in comparison.steps]
        lines.append(_line(["" if again else _escaped(row.group), _escaped(row.choice), *cells]))
        above = row
    return [*lines, ""]


def _entry(
    comparison: Comparison, cell: Cell | None, metric: Metric, marks: Mapping[str, str]
) -> str:
    if cell is None:
        return "-"
    if metric.key not in cell.scores:
        return _escaped(cell.missing(metric))
    text = cell.scores[metric.key].text
    mark = marks.get(cell.id)
    text = f"**{text}**" if mark == BEST else f"{text} †" if mark == TIED else text
    if cell.evaluations != cell.num_steps:
        text += f" ({cell.cost})"
    if cell.n != comparison.n:
        text += f" (n = {cell.n:,})"
    return text + "".join(f" (note {i})" for i in comparison.note_numbers(cell))


def _reference_table(comparison: Comparison, metric: Metric) -> list[str]:
    lines = [
        _line(
            [
                _escaped(cell.name),
                f"{cell.evaluations:,.10g}",
                f"{cell.n:,}",
                _entry_alone(cell, metric),
            ]
        )
        for cell in comparison.references
    ]
    floor = comparison.floor
    if floor is not None and metric.key in floor.scores:
        name = f"real data: {floor.label}"
        lines.append(_line([_escaped(name), "-", f"{floor.n:,}", floor.scores[metric.key].text]))
    if not lines:
        return []
    head = ["for reference", "evaluations", "n", metric.name]
    return [_line(map(_escaped, head)), _line(["---", "---:", "---:", "---:"]), *lines, ""]


def _entry_alone(cell: Cell, metric: Metric) -> str:
    if metric.key in cell.scores:
        return cell.scores[metric.key].text
    return _escaped(cell.missing(metric))


def _reproduction(comparison: Comparison) -> list[str]:
    results = comparison.results
    lines = ["## To do it again", ""]
    if results.get("command"):
        lines += [f"    {_one_line(results['command'])}", ""]
    versions = results.get("versions") or {}
    if versions:
        lines += [_escaped(", ".join(f"{name} {value}" for name, value in versions.items())), ""]
    return lines


def _line(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def _escaped(text: Any) -> str:
    """Text that Markdown, and the HTML in it, shows as it stands."""
    return _MARKED.sub(r"\\\1", _one_line(text))
