"""The cells of a comparison as records, for CSV and for pandas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from fastdpm.core.errors import MissingExtraError
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import plain

if TYPE_CHECKING:
    import pandas


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """One record per cell; each metric has a value and an error, None if it is missing."""
    return [_record(comparison, cell) for cell in comparison.cells]


def csv_text(comparison: Comparison) -> str:
    """A header and one line per cell."""
    lines = records(comparison)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["id"], lineterminator="\n")
    writer.writeheader()
    for line in lines:
        cost = line["evaluations"]
        writer.writerow(line | {"evaluations": None if cost is None else f"{cost:.10g}"})
    return text.getvalue()


def data_frame(comparison: Comparison) -> pandas.DataFrame:
    """One row per cell; a missing number is NaN.

    Raises:
        MissingExtraError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise MissingExtraError("pandas", "eval") from None
    return pandas.DataFrame.from_records(records(comparison))


def _record(comparison: Comparison, cell: Cell) -> dict[str, Any]:
    names = ("id", "method", "family", "group", "choice", "num_steps")
    record: dict[str, Any] = {name: getattr(cell, name) for name in names}
    record["evaluations"] = cell.num_evaluations if cell.failed is None else None
    for name in ("n", "seconds", "seconds_per_sample", "plan"):
        record[name] = getattr(cell, name)
    for metric in comparison.metrics:
        score = cell.scores.get(metric.key)
        value, error = plain(score).values() if score else (None, None)
        record |= {metric.key: value, f"{metric.key}_error": error}
    return record | {"failed": cell.reason, "notes": "; ".join(cell.notes)}
