"""The cells of a comparison as records, for CSV and for pandas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastdpm.core.errors import MissingExtraError
from fastdpm.core.text import csv_table
from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Score, number

if TYPE_CHECKING:
    import pandas


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """One record per cell; each metric has a value and an error, None if it is missing.

    So do its differences from the best cell of the same S and from the standard sampler.
    """
    best = {
        (metric.key, s): comparison.best(metric, s)
        for metric in comparison.metrics
        for s in comparison.steps
    }
    return [_record(comparison, cell, best) for cell in comparison.cells]


def csv_text(comparison: Comparison) -> str:
    """A header and one line per cell."""
    lines = records(comparison)
    for line in lines:
        cost = line["evaluations"]
        line["evaluations"] = None if cost is None else f"{cost:.10g}"
    return csv_table(list(lines[0]) if lines else ["id"], lines)


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


def _record(
    comparison: Comparison, cell: Cell, best: Mapping[tuple[str, int], Cell | None]
) -> dict[str, Any]:
    names = ("method", "family", "group", "choice", "num_steps")
    record: dict[str, Any] = {name: getattr(cell, name) for name in names}
    record["evaluations"] = cell.num_evaluations if cell.failed is None else None
    record["n"] = cell.n
    for metric in comparison.metrics:
        rival = None if cell.takes_all_steps else best[metric.key, cell.num_steps]
        standard = comparison.reference(metric)
        record |= _columns(metric.key, cell.scores.get(metric.key))
        for name, other in (("best", rival), ("standard", standard)):
            apart = None if other is None else comparison.difference(cell, other, metric)
            record |= _columns(f"{metric.key}_minus_{name}", apart)
    for name in ("seconds", "seconds_per_sample", "plan", "id"):
        record[name] = getattr(cell, name)
    return record | {"failed": cell.reason, "notes": "; ".join(cell.notes)}


def _columns(name: str, score: Score | None) -> dict[str, float | None]:
    value, error = (score.value, score.error) if score else (None, None)
    return {name: number(value), f"{name}_error": number(error)}
