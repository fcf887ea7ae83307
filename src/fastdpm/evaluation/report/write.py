"""Reports of a comparison: tables for people and programs, two figures, and one page.

A report needs the results alone: no torch, no model and no data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import FIGURE_FORMATS, write_bytes, write_text
from fastdpm.evaluation.report.figures import distance_figure
from fastdpm.evaluation.report.frame import csv_text
from fastdpm.evaluation.report.html import page
from fastdpm.evaluation.report.markdown import markdown
from fastdpm.evaluation.report.samples import samples_figure
from fastdpm.evaluation.results import Comparison
from fastdpm.output.figures import figure_bytes


def write_report(
    out: Path, comparison: Comparison, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write a comparison as JSON, CSV, Markdown, figures and a self-contained HTML page.

    Args:
        out: A folder, created if it does not exist; an earlier report in it is replaced.
        comparison: The results, and samples if there are any.
        formats: Formats of the figures: "png", "pdf" and "svg".

    Returns:
        The files: results.json, results.csv, results.md, in each format distance.* and samples.*
        (if there are samples), and report.html.

    Raises:
        InvalidArgumentError: If a format is unknown, or if the samples are neither images nor
            sounds or differ in shape.
    """
    if isinstance(formats, str) or not set(formats) <= set(FIGURE_FORMATS):
        raise InvalidArgumentError(
            f"`formats` must be a list of {', '.join(FIGURE_FORMATS)}, got {formats!r}"
        )
    distance = distance_figure(comparison.select(metrics=[comparison.primary.key]))
    sheet = samples_figure(comparison)
    figures = {"distance": distance} | ({"samples": sheet[0]} if sheet else {})
    pictures = {
        f"{name}.{kind}": figure_bytes(figure, kind)
        for name, figure in figures.items()
        for kind in dict.fromkeys([*formats, "png"])
    }
    record = json.dumps(comparison.results, indent=1, ensure_ascii=False, allow_nan=False)
    texts = {
        "results.json": record + "\n",
        "results.csv": csv_text(comparison),
        "results.md": markdown(comparison),
    }
    html = page(
        comparison,
        pictures["distance.png"],
        pictures.get("samples.png"),
        sheet[1] if sheet else None,
    )
    out.mkdir(parents=True, exist_ok=True)
    for name in (f"{name}.{kind}" for name in ("distance", "samples") for kind in FIGURE_FORMATS):
        (out / name).unlink(missing_ok=True)
    for name, text in texts.items():
        write_bytes(out / name, text.encode())
    kept = [name for name in pictures if name.partition(".")[2] in formats]
    for name in kept:
        write_bytes(out / name, pictures[name])
    write_text(out / "report.html", html)
    return [out / name for name in (*texts, *kept, "report.html")]
