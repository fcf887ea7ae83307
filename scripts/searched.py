"""What the pages of scripts/solvers.py and scripts/tuned.py read from their results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdpm.evaluation.results import Cell, Comparison
from fastdpm.evaluation.scores import Metric


def section(
    head: str,
    part: Callable[[str, dict[str, Any], Comparison], str],
    files: dict[str, Path],
) -> str:
    """A head, and the part of each model that is measured; empty without any.

    Args:
        head: The head.
        part: Returns the part of a model from its name, its record and its comparison.
        files: The results, by the model's name.
    """
    parts = []
    for name, path in files.items():
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            parts.append(part(name, record, Comparison.from_dict(record["comparison"])))
    return "\n".join([head, *parts]) if parts else ""


def best(
    comparison: Comparison, metric: Metric, num_steps: int, wanted: Callable[[Cell], bool]
) -> Cell | None:
    """The best cell at S, of those that are wanted and take no more than S evaluations."""
    cells = [
        cell
        for cell in comparison.cells
        if cell.num_steps == num_steps
        and metric.key in cell.scores
        and not cell.costs_more
        and wanted(cell)
    ]
    sign = 1 if metric.lower_is_better else -1
    return min(cells, key=lambda cell: sign * cell.scores[metric.key].value, default=None)
