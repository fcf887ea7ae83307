"""The report as one HTML page that loads no other file."""

from __future__ import annotations

import base64
from importlib.resources import files

import numpy as np

from fastdpm.core.text import visible
from fastdpm.data.sound import wav_bytes
from fastdpm.evaluation.report.figures import MAX_LABELED
from fastdpm.evaluation.report.samples import shown_steps
from fastdpm.evaluation.report.tables import FAMILY_TITLES, Entry, Table
from fastdpm.evaluation.report.words import facts, legend, summary
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import duration

_SOUNDS_EACH = 2
_MAX_SOUND_BYTES = 6_000_000


def page(
    comparison: Comparison, distance: bytes, samples: bytes | None, caption: str | None
) -> str:
    """The whole page as text.

    Args:
        comparison: The results; sounds in its pictures can be played on the page.
        distance: The figure of the primary metric, a PNG file.
        samples: The figure of samples, a PNG file, if there are samples.
        caption: The caption of ``samples``.
    """
    from jinja2 import Environment, StrictUndefined

    # Everything is escaped: names come from model folders, which anyone can have written.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    source = (
        files("fastdpm.evaluation.report").joinpath("report.html.j2").read_text(encoding="utf-8")
    )
    sounds, left_out = _sounds(comparison)
    return environment.from_string(source).render(
        comparison=comparison,
        titles=FAMILY_TITLES,
        facts=facts(comparison),
        summary=summary(comparison),
        legend=legend(comparison),
        tables=Table.all_of(comparison),
        every=[
            (cell, [Entry.of(cell.scores.get(metric.key)) for metric in comparison.metrics])
            for cell in comparison.cells
        ],
        duration=duration,
        grouped=len(comparison.rows) > MAX_LABELED,
        distance=_data_uri("image/png", distance),
        samples=None if samples is None else _data_uri("image/png", samples),
        caption=caption,
        sounds=sounds,
        sounds_left_out=left_out,
        sounds_step=max(shown_steps(comparison), default=None),
    )


def _sounds(comparison: Comparison) -> tuple[list[tuple[str, list[str]]], int]:
    """The first sounds of each method at a middle S, and how many methods have no room."""
    rate, pictures = comparison.model.sample_rate, comparison.pictures
    step = max(shown_steps(comparison), default=None)
    if not rate:
        return [], 0
    cells = [
        *comparison.references,
        *(row.cells[step] for row in comparison.rows if step in row.cells),
    ]
    cells = [cell for cell in cells if cell.id in pictures and pictures[cell.id].ndim == 2]
    found: list[tuple[str, list[str]]] = []
    room = _MAX_SOUND_BYTES
    for cell in cells:
        clean = np.nan_to_num(pictures[cell.id][:_SOUNDS_EACH], posinf=1, neginf=-1)
        sources = [_data_uri("audio/wav", wav_bytes(sound, rate)) for sound in clean]
        room -= sum(map(len, sources))
        if room < 0 and found:
            break
        found.append((f"{cell.name} ({cell.cost})", sources))
    return found, len(cells) - len(found)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
