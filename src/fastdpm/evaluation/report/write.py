"""Reports of a comparison: tables for people and programs, two figures, and one page.

A report needs the results alone: no torch, no model and no data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.core.limits import parse_json, read_text
from fastdpm.data.files import FIGURE_FORMATS, write_bytes, write_text
from fastdpm.evaluation.report.figures import distance_figure
from fastdpm.evaluation.report.frame import csv_text
from fastdpm.evaluation.report.html import page
from fastdpm.evaluation.report.markdown import markdown
from fastdpm.evaluation.report.samples import samples_figure
from fastdpm.evaluation.results import FORMAT, Comparison
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
    kept = [name for name in pictures if name.partition(".")[2] in formats]
    stale = _stale(out, kept, record + "\n")
    out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_text(out / name, text)
    for name in kept:
        write_bytes(out / name, pictures[name])
    write_text(out / "report.html", html)
    for path in stale:
        path.unlink(missing_ok=True)
    return [out / name for name in (*texts, *kept, "report.html")]


def _stale(out: Path, kept: Sequence[str], record: str) -> list[Path]:
    """Figures of an earlier report in the folder that the new one does not replace.

    The samples of the same comparison stay, if this one was read from a file and has none.
    """
    try:
        earlier = read_text(out / "results.json")
        ours = parse_json(earlier).get("format") == FORMAT
    except (OSError, ValueError, AttributeError, DataError):
        return []  # not a report: its files are someone else's
    redrawn = any(name.startswith("samples") for name in kept)
    unchanged = earlier == record and not redrawn
    names = ("distance",) if unchanged else ("distance", "samples")
    figures = [f"{name}.{kind}" for name in names for kind in FIGURE_FORMATS]
    return [out / name for name in figures if ours and name not in kept]
