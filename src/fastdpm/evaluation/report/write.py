"""Reports of a comparison: tables for people and programs, two figures, and one page.

A report needs the results alone: no torch, no model and no data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.limits import read_text
from fastdpm.core.methods import OWN
from fastdpm.core.recipes import recipes_text
from fastdpm.core.samplers import TUNED
from fastdpm.core.structure import plain
from fastdpm.data.files import FIGURE_FORMATS, write_bytes, write_text
from fastdpm.data.run_folder import RunFolder
from fastdpm.data.run_record import RunRecord
from fastdpm.evaluation.recommendation import Recommendation
from fastdpm.evaluation.report.figures import distance_figure
from fastdpm.evaluation.report.frame import csv_text
from fastdpm.evaluation.report.front import front_figure
from fastdpm.evaluation.report.html import page
from fastdpm.evaluation.report.markdown import markdown
from fastdpm.evaluation.report.samples import samples_figure
from fastdpm.evaluation.results import Comparison
from fastdpm.output.figures import figure_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMMAND, RECOMMEND = "compare", "recommend"


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
        InvalidArgumentError: If a format is unknown, if the samples are neither images nor
            sounds or differ in shape, or if the folder holds other files than a report.
    """
    with _claimed(out, COMMAND, report_identity(comparison)) as run:
        return fill_report(run, comparison, formats=formats)


def write_recommendation(
    out: Path, found: Recommendation, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write a recommendation to a folder; see :func:`write_report` and the next function."""
    with _claimed(out, RECOMMEND, report_identity(found.comparison)) as run:
        return fill_recommendation(run, found, formats=formats)


def _claimed(out: Path, command: str, identity: Mapping[str, Any]) -> RunFolder:
    """A folder to write to, or to write again."""
    earlier = RunRecord.read(out)
    same = earlier is not None and earlier.identity == identity
    replaced = earlier is not None and not same
    return RunFolder.open(out, command, identity, resume=same, overwrite=replaced)


def fill_recommendation(
    run: RunFolder, found: Recommendation, *, formats: Sequence[str] = ("png",)
) -> list[Path]:
    """Write the report of a recommendation's comparison, and what it adds, into a folder.

    Returns:
        The files of :func:`write_report`, recommendation.txt with its three lines, recipes.toml
        with the recipes of the Pareto front, screening.json (if there was one), and front.*.
    """
    more = {"recommendation.txt": f"{found}\n", "recipes.toml": recipes_text(found.recipes)}
    if found.screening is not None:
        screened = json.dumps(found.screening.comparison.results, indent=1, ensure_ascii=False)
        more["screening.json"] = screened + "\n"
    figures = {"front": front_figure(found)}
    return fill_report(run, found.comparison, formats=formats, more=more, figures=figures)


def report_identity(comparison: Comparison) -> dict[str, Any]:
    """What determines a comparison, measured or not, for the record of its folder."""
    cells = comparison.cells
    own = {cell.method: plain(cell.recipe) for cell in cells if cell.family == OWN}
    tuned = {str(cell.num_steps): cell.plan for cell in cells if cell.family == TUNED}
    return {
        "model": comparison.model.name,
        "weights_sha256": comparison.model.weights_sha256,
        "features": comparison.features,
        "against": comparison.against,
        "methods": list(dict.fromkeys(cell.method for cell in cells)),
        "steps": sorted({cell.num_steps for cell in cells}),
        "guidance": list(dict.fromkeys(cell.guidance for cell in cells)),
        "n": comparison.n,
        "seed": comparison.seed,
        "clip": comparison.clip,
        "precision": comparison.precision,
    } | {name: held for name, held in (("recipes", own), ("tuned", tuned)) if held}


def fill_report(
    run: RunFolder,
    comparison: Comparison,
    *,
    formats: Sequence[str] = ("png",),
    more: Mapping[str, str] | None = None,
    figures: Mapping[str, Figure] | None = None,
) -> list[Path]:
    """Write a report into a folder that is claimed; see :func:`write_report`.

    Args:
        run: The folder.
        comparison: The results.
        formats: Formats of the figures.
        more: Further files, as text by name.
        figures: Further figures by name.
    """
    if isinstance(formats, str) or not set(formats) <= set(FIGURE_FORMATS):
        raise InvalidArgumentError(
            f"`formats` must be a list of {', '.join(FIGURE_FORMATS)}, got {formats!r}"
        )
    distance = distance_figure(comparison.select(metrics=[comparison.primary.key]))
    sheet = samples_figure(comparison)
    drawings = {"distance": distance} | ({"samples": sheet[0]} if sheet else {})
    pictures = {
        f"{name}.{kind}": figure_bytes(figure, kind)
        for name, figure in (drawings | dict(figures or {})).items()
        for kind in dict.fromkeys([*formats, "png"])
    }
    record = json.dumps(comparison.results, indent=1, ensure_ascii=False, allow_nan=False)
    texts = {
        "results.json": record + "\n",
        "results.csv": csv_text(comparison),
        "results.md": markdown(comparison),
    } | dict(more or {})
    html = page(
        comparison,
        pictures["distance.png"],
        pictures.get("samples.png"),
        sheet[1] if sheet else None,
    )
    kept = [name for name in pictures if name.partition(".")[2] in formats]
    earlier = run.folder / "results.json"
    unchanged = earlier.is_file() and read_text(earlier) == texts["results.json"]
    # The samples of a comparison that was read from its folder stay, as there are none to draw.
    drawn = (*(figures or ()), "distance", *(() if unchanged and not sheet else ("samples",)))
    possible = [f"{name}.{kind}" for name in drawn for kind in FIGURE_FORMATS]
    with run.batch(remove=[name for name in possible if name not in kept]) as folder:
        for name, text in texts.items():
            write_text(folder / name, text)
        for name in kept:
            write_bytes(folder / name, pictures[name])
        write_text(folder / "report.html", html)
    return [run.path / name for name in (*texts, *kept, "report.html")]
