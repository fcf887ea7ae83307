"""The report as one HTML page, which loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.data.sound import wav_bytes
from fastdpm.evaluation.report.figures import FAMILY_TITLES
from fastdpm.evaluation.report.samples import shown_steps
from fastdpm.evaluation.report.table import BEST, TIED, Cell, Comparison, Metric, Row
from fastdpm.evaluation.report.words import facts, legend, summary

_SOUNDS_EACH = 2
_MOST_SOUND_BYTES = 6_000_000


@dataclass(frozen=True)
class Entry:
    """One cell of a table: what it says, what it sorts by, and its mark."""

    text: str
    value: str = ""
    mark: str = ""
    remark: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Table:
    """The methods by S under one metric."""

    metric: Metric
    lines: tuple[tuple[Row, tuple[Entry, ...]], ...]
    references: tuple[tuple[str, str, str, Entry], ...]


@dataclass(frozen=True)
class Sounds:
    """What one method drew, to listen to."""

    name: str
    sources: tuple[str, ...]


def page(
    comparison: Comparison,
    folder: Path,
    caption: str | None,
    pictures: Mapping[str, NDArray[Any]],
) -> str:
    """The whole page as text.

    Args:
        comparison: What was measured.
        folder: Holds distance.png and, if there is a ``caption``, samples.png.
        caption: Of the picture of samples.
        pictures: Cell id -> samples; of these only sounds are used, to be played.
    """
    from jinja2 import Environment, StrictUndefined

    # Everything is escaped: names come from model folders, which anyone may have written.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (
        files("fastdpm.evaluation.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    results = comparison.results
    sounds, left_out = _sounds(comparison, pictures)
    return environment.from_string(source).render(
        comparison=comparison,
        titles=FAMILY_TITLES,
        facts=facts(comparison),
        summary=summary(comparison),
        legend=legend(comparison),
        tables=[_table(comparison, metric) for metric in comparison.metrics],
        every=_every_cell(comparison),
        distance=_data_uri("image/png", (folder / "distance.png").read_bytes()),
        samples=_data_uri("image/png", (folder / "samples.png").read_bytes()) if caption else None,
        caption=caption,
        sounds=sounds,
        sounds_left_out=left_out,
        sounds_step=_step_of_sounds(comparison),
        command=results.get("command"),
        versions=results.get("versions") or {},
        seconds=results.get("seconds"),
    )


def _table(comparison: Comparison, metric: Metric) -> Table:
    marks = {s: comparison.marks(metric, s) for s in comparison.steps}
    lines = tuple(
        (
            row,
            tuple(_entry(comparison, row.cells.get(s), metric, marks[s]) for s in marks),
        )
        for row in comparison.rows
    )
    references = [
        (
            cell.name,
            f"{cell.evaluations:,.10g}",
            f"{cell.n:,}",
            _entry(comparison, cell, metric, {}),
        )
        for cell in comparison.references
    ]
    floor = comparison.floor
    if floor is not None and metric.key in floor.scores:
        entry = Entry(floor.scores[metric.key].text)
        references.append((f"real data: {floor.label}", "-", f"{floor.n:,}", entry))
    return Table(metric, lines, tuple(references))


def _entry(
    comparison: Comparison, cell: Cell | None, metric: Metric, marks: Mapping[str, str]
) -> Entry:
    if cell is None:
        return Entry("-")
    notes = [f"note {i}" for i in comparison.note_numbers(cell)]
    if metric.key not in cell.scores:
        return Entry(cell.missing(metric), remark=", ".join(notes), failed=True)
    score = cell.scores[metric.key]
    remarks = [cell.cost] if cell.evaluations != cell.num_steps else []
    # The table of references has a column for n.
    remarks += [f"n = {cell.n:,}"] if cell.n != comparison.n and marks else []
    mark = {BEST: "best", TIED: "tied"}.get(marks.get(cell.id, ""), "")
    return Entry(score.text, repr(score.value), mark, ", ".join(remarks + notes))


def _every_cell(comparison: Comparison) -> list[tuple[Cell, list[Entry]]]:
    return [
        (
            cell,
            [
                Entry(score.text, repr(score.value)) if score is not None else Entry("-")
                for metric in comparison.metrics
                for score in [cell.scores.get(metric.key)]
            ],
        )
        for cell in comparison.cells
    ]


def _step_of_sounds(comparison: Comparison) -> int | None:
    return max(shown_steps(comparison), default=None)


def _sounds(
    comparison: Comparison, pictures: Mapping[str, NDArray[Any]]
) -> tuple[list[Sounds], int]:
    """The first sounds of each method at a middle S, as many methods as the page can carry."""
    rate = comparison.results["model"].get("sample_rate")
    step = _step_of_sounds(comparison)
    if not rate:
        return [], 0
    cells = [
        *comparison.references,
        *(row.cells[step] for row in comparison.rows if step in row.cells),
    ]
    cells = [cell for cell in cells if cell.id in pictures and pictures[cell.id].ndim == 2]
    found: list[Sounds] = []
    room = _MOST_SOUND_BYTES
    for cell in cells:
        sources = tuple(_wav_uri(sound, rate) for sound in pictures[cell.id][:_SOUNDS_EACH])
        room -= sum(map(len, sources))
        if room < 0 and found:
            break
        found.append(Sounds(f"{cell.name} ({cell.cost})", sources))
    return found, len(cells) - len(found)


def _wav_uri(sound: NDArray[Any], sample_rate: int) -> str:
    clean = np.nan_to_num(sound, posinf=1, neginf=-1)
    return _data_uri("audio/wav", wav_bytes(clean, sample_rate))


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
