"""A figure of a comparison's samples: a row for each method, the same seeds in a column.

Nothing that a user named is written into a figure, so that a model can have any name.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.evaluation.cells import Cell, Row
from fastdpm.evaluation.report.looks import escaped
from fastdpm.evaluation.results import BEST, Comparison
from fastdpm.evaluation.select import find_steps
from fastdpm.output.figures import LOUDEST_DB, QUIETEST_DB, magnified, power_in_db, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tile = NDArray[np.uint8]
_DPI = 120
_TILE, _BLOCKS, _SHEET = 56, 780, 2700  # pixels
_SOUND_TILE, _WAVE, _MAX_SOUNDS = (64, 152), 26, 3
_SHADES = 48
_NAME, _VALUE, _HEAD = 9.0, 8.0, 10.5  # points
_CHARACTER = 8.6  # pixels, on average and at the size of a name


def draw_samples(
    path: Path,
    comparison: Comparison,
    *,
    num_steps: Iterable[int] | int | None = None,
    methods: Iterable[str] | str | None = None,
) -> None:
    """Write the figure of samples; see :meth:`Comparison.plot_samples`.

    Raises:
        InvalidArgumentError: If there are no samples, or if a name is unknown.
    """
    found = samples_figure(comparison, num_steps=num_steps, methods=methods)
    if found is None:
        raise InvalidArgumentError(
            "this comparison has no samples to draw, because results.json does not contain them:"
            " run `compare` again and draw the samples of what it returns"
        )
    save_figure(found[0], path)


def samples_figure(
    comparison: Comparison,
    *,
    num_steps: Iterable[int] | int | None = None,
    methods: Iterable[str] | str | None = None,
) -> tuple[Figure, str] | None:
    """The figure of samples and its caption, or None if there are no samples.

    Args:
        comparison: The results; images in its pictures have one channel or three.
        num_steps: Values of S; the smallest and a middle one by default.
        methods: See :meth:`Comparison.select`; as many as fit by default, the best ones first.

    Raises:
        InvalidArgumentError: If a name is unknown, or if pictures have another shape or type, or
            differ in shape.
    """
    shown = comparison.select(methods)
    steps = shown_steps(shown) if num_steps is None else find_steps(shown.steps, num_steps)
    tiles = _all_tiles(comparison)
    if not tiles:
        return None
    sheet = _Sheet(shown, tiles, steps)
    title, caption = _title(comparison, steps, sheet), _caption(comparison, sheet)
    return sheet.draw(title, caption), f"{title}. {caption}"


def shown_steps(comparison: Comparison) -> tuple[int, ...]:
    """The smallest S above 1 and a middle one, whose samples are shown by default."""
    steps = [s for s in comparison.steps if s > 1] or comparison.steps  # one step is mostly noise
    return tuple(sorted({steps[0], steps[len(steps) // 2]})) if steps else ()


class _Sheet:
    """Lines of tiles; a line is a name and, for each block, the cell and its samples."""

    gap, under, label = 4, 19, 245

    def __init__(
        self, comparison: Comparison, tiles: Mapping[str, list[Tile]], steps: Sequence[int]
    ) -> None:
        self.tile = height, width = next(iter(tiles.values()))[0].shape[:2]
        fitting = _BLOCKS // max(1, len(steps)) // (width + self.gap)
        self.columns = min(max(map(len, tiles.values())), max(2, fitting))
        room = max(8, _SHEET // (height + self.gap + self.under))
        self.rows = _chosen_rows(comparison, steps, room)
        self.left_out = len(comparison.rows) - len(self.rows)
        self.blocks = [f"S = {s}" for s in steps] or [""]
        self.lines = [
            (row.name, [_block(comparison, row.cells.get(s), tiles) for s in steps])
            for row in self.rows
        ]
        for cell in comparison.references:
            drawn = _block(comparison, cell, tiles)
            if drawn[1]:
                self.lines.append((f"{cell.name}, {cell.cost}", [drawn] * len(self.blocks)))

    def draw(self, title: str, caption: str) -> Figure:
        """Every pixel of a tile becomes a pixel of the figure: nothing is resampled."""
        from matplotlib.figure import Figure

        block = self.columns * (self.tile[1] + self.gap) + 3 * self.gap
        width = self.label + len(self.blocks) * block
        head = textwrap.wrap(title, int(width / _CHARACTER * 0.8))
        foot = textwrap.wrap(caption, int(width / _CHARACTER))
        line = self.tile[0] + self.gap + self.under
        top = self.under * (len(head) + 2)
        height = top + len(self.lines) * line + self.under * (len(foot) + 1)
        canvas = np.full((height, width, 3), 255, dtype=np.uint8)
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

        def write(text: str, left: float, down: float, size: float, **style: Any) -> None:
            figure.text(left / width, 1 - down / height, escaped(text), fontsize=size, **style)

        for i, words in enumerate(head):
            write(words, 8, self.under * (i + 1.1), _HEAD, weight="bold")
        for i, name in enumerate(self.blocks):
            write(name, self.label + i * block, top - 7, _HEAD, weight="bold")
        for i, (name, blocks) in enumerate(self.lines):
            down = top + i * line
            label = name.replace(", ", "\n", 1)
            write(label, 8, down + self.tile[0] / 2, _NAME, va="center", linespacing=1.25)
            for j, (value, tiles) in enumerate(blocks):
                left = self.label + j * block
                self._paste(canvas, tiles, down, left)
                write(value, left, down + self.tile[0] + 14, _VALUE, color="#444444")
        for i, words in enumerate(reversed(foot)):
            write(words, 8, height - self.under * (i + 0.6), _NAME)
        panel = figure.add_axes((0, 0, 1, 1), zorder=-1)
        panel.set_axis_off()
        panel.imshow(canvas, aspect="auto", interpolation="none")
        return figure

    def _paste(self, canvas: Tile, tiles: Sequence[Tile], top: int, left: int) -> None:
        height, width = self.tile
        for i in range(self.columns):
            start = left + i * (width + self.gap)
            place = canvas[top : top + height, start : start + width]
            place[:] = tiles[i] if i < len(tiles) else 238


def _title(comparison: Comparison, steps: Sequence[int], sheet: _Sheet) -> str:
    """Which S and which methods are shown."""
    count, whole = len(sheet.rows), len(comparison.rows)
    values = " and ".join(filter(None, [", ".join(map(str, steps[:-1])), *map(str, steps[-1:])]))
    at = f" at S = {values}" if steps else ""
    if not whole:
        return "Samples of the standard sampler"
    if count == whole:
        return f"Samples{at}: {'all ' if count > 1 else ''}{count} method{'s' * (count > 1)}"
    best = "the best " if sheet.left_out else ""
    return f"Samples{at}: {best}{count} of {whole} methods"


def _caption(comparison: Comparison, sheet: _Sheet) -> str:
    sample_rate = comparison.model.sample_rate
    text = f"A column shows samples with the same seed. Below each row: {comparison.primary.name}."
    if any(len(drawn) < sheet.columns for _, blocks in sheet.lines for _, drawn in blocks):
        text += " Gray: there is no sample."
    if sample_rate:
        text += (
            f" Each sound is a spectrogram (0 to {sample_rate / 2000:g} kHz upwards,"
            f" {QUIETEST_DB} to {LOUDEST_DB} dB) above its waveform (-1 to 1)."
        )
    return text


def _block(
    comparison: Comparison, cell: Cell | None, tiles: Mapping[str, list[Tile]]
) -> tuple[str, list[Tile]]:
    if cell is None:
        return "", []
    metric = comparison.primary
    if metric.key not in cell.scores:
        return ("failed" if cell.failed is not None else ""), tiles.get(cell.id, [])
    value = cell.scores[metric.key].text
    best = comparison.marks(metric, cell.num_steps).get(cell.id) == BEST
    cost = f", {cell.cost}" if cell.num_evaluations != cell.num_steps else ""
    return f"{value}{' (best)' if best else ''}{cost}", tiles.get(cell.id, [])


def _chosen_rows(comparison: Comparison, steps: Sequence[int], room: int) -> list[Row]:
    """All rows, or as many as fit: those with the best values at ``steps``."""
    metric = comparison.primary
    sign = 1 if metric.lower_is_better else -1

    def rank(row: Row) -> float:
        cells = (row.cells[s] for s in steps if s in row.cells)
        scores = [c.scores[metric.key].value for c in cells if metric.key in c.scores]
        return min((sign * value for value in scores), default=math.inf)

    kept = sorted(range(len(comparison.rows)), key=lambda i: rank(comparison.rows[i]))[:room]
    return [comparison.rows[i] for i in sorted(kept)]


def _all_tiles(comparison: Comparison) -> dict[str, list[Tile]]:
    known = {cell.id for cell in comparison.cells}
    pictures = comparison.pictures.items()
    found = {name: np.asarray(p) for name, p in pictures if name in known and len(p)}
    shapes = {name: picture.shape[1:] for name, picture in found.items()}
    if len(set(shapes.values())) > 1:
        got = ", ".join(map(str, sorted(set(shapes.values()))))
        raise InvalidArgumentError(f"all pictures must have the same shape, got {got}")
    rate = comparison.model.sample_rate or 1
    return {name: _tiles(picture, rate) for name, picture in found.items()}


def _tiles(picture: NDArray[Any], sample_rate: int) -> list[Tile]:
    if picture.ndim == 2 and picture.dtype.kind == "f":
        return [sound_tile(sound, sample_rate) for sound in picture[:_MAX_SOUNDS]]
    if picture.ndim == 4 and picture.dtype == np.uint8 and picture.shape[-1] in (1, 3):
        large = magnified(picture, max(1, round(_TILE / max(picture.shape[1:3]))))
        return list(np.broadcast_to(large, (*large.shape[:3], 3)))
    raise InvalidArgumentError(
        "pictures must be uint8 images (k, H, W, 1 or 3) or float sounds (k, samples), got"
        f" {picture.dtype} of shape {picture.shape}"
    )


def sound_tile(sound: NDArray[Any], sample_rate: int) -> Tile:
    """A spectrogram above a waveform, (H, W, 3), on the same scales for all sounds."""
    from matplotlib import colormaps
    from PIL import Image

    clean = np.nan_to_num(np.asarray(sound, dtype=np.float64), posinf=1, neginf=-1)
    decibels = power_in_db(clean, sample_rate)[::-1]
    shade = np.clip((decibels - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB), 0, 1)
    height, width = _SOUND_TILE
    resized = Image.fromarray(shade.astype(np.float32)).resize(
        (width, height), Image.Resampling.BOX
    )
    # Few shades make a small file; each covers two decibels.
    colors = colormaps["magma"].resampled(_SHADES)(np.asarray(resized))[..., :3]
    pixels = (colors * 255).astype(np.uint8)
    return np.concatenate([pixels, _wave_strip(clean, width)])


def _wave_strip(sound: NDArray[np.float64], width: int) -> Tile:
    """A column reaches from the smallest to the largest value of its samples."""
    strip = np.full((_WAVE, width, 3), 250, dtype=np.uint8)
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    rows = np.round((1 - np.clip(sound, -1, 1)) / 2 * (_WAVE - 1)).astype(int)
    for column, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = rows[start : max(stop, start + 1)]
        if len(part):
            strip[part.min() : part.max() + 1, column] = (0, 90, 140)
    return strip
