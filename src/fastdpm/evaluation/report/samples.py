"""A picture of a comparison's samples: a row for each method, the same seeds in a column.

Nothing that a user named is written into a picture, so that any name can be given to a model.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.evaluation.results import BEST, Cell, Comparison, Row
from fastdpm.output.figures import LOUDEST_DB, QUIETEST_DB, magnified, power_in_db, save_figure

Tile = NDArray[np.uint8]
_DPI = 120
_TILE, _BLOCK, _SHEET = 56, 500, 2700
_SOUND_TILE, _WAVE, _MOST_SOUNDS = (64, 152), 26, 3
_SHADES = 48
_CHARACTER = 7.2  # pixels, on average and at the size of the caption


def write_samples(path: Path, comparison: Comparison) -> str | None:
    """Draw a row of samples for each method, at the smallest and at a middle S.

    Args:
        path: A .png file.
        comparison: What was measured; images in its pictures have one channel or three.

    Returns:
        A caption that says what is shown and what was left out, or None where no cell has
        pictures and nothing is written.

    Raises:
        InvalidArgumentError: If pictures have another shape or type, or differ in shape.
    """
    tiles = _all_tiles(comparison)
    if not tiles:
        return None
    sheet = _Sheet(comparison, tiles)
    caption = _caption(comparison, sheet.left_out)
    sheet.write(path, caption)
    return caption


def shown_steps(comparison: Comparison) -> tuple[int, ...]:
    """The smallest and a middle S, of which samples are shown."""
    steps = comparison.steps
    return tuple(sorted({steps[0], steps[len(steps) // 2]})) if steps else ()


class _Sheet:
    """Lines of tiles; a line is a name and, for each block, the cell and what it drew."""

    gap, head, under, label = 4, 34, 16, 205

    def __init__(self, comparison: Comparison, tiles: Mapping[str, list[Tile]]) -> None:
        self.tile = height, width = next(iter(tiles.values()))[0].shape[:2]
        self.columns = min(max(map(len, tiles.values())), max(3, _BLOCK // (width + self.gap)))
        room = max(8, _SHEET // (height + self.gap + self.under))
        steps = shown_steps(comparison)
        rows = _chosen_rows(comparison, steps, room)
        self.left_out = len(comparison.rows) - len(rows)
        self.blocks = [f"S = {s}" for s in steps] or [""]
        self.lines = [
            (row.name, [_block(comparison, row.cells.get(s), tiles) for s in steps])
            for row in rows
        ]
        for cell in comparison.references:
            block = _block(comparison, cell, tiles)
            if block[1]:
                self.lines.append((f"{cell.name}\n{cell.cost}", [block] * len(self.blocks)))

    def write(self, path: Path, caption: str) -> None:
        """Every pixel of a tile becomes a pixel of the picture: nothing is resampled."""
        from matplotlib.figure import Figure

        block = self.columns * (self.tile[1] + self.gap) + 3 * self.gap
        line = self.tile[0] + self.gap + self.under
        width = self.label + len(self.blocks) * block
        footer = textwrap.wrap(caption, int(width / _CHARACTER))
        height = self.head + len(self.lines) * line + self.under * (len(footer) + 1)
        canvas = np.full((height, width, 3), 255, dtype=np.uint8)
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

        def write(text: str, left: float, top: float, size: float, **style: Any) -> None:
            escaped = text.replace("$", r"\$")
            figure.text(left / width, 1 - top / height, escaped, fontsize=size, **style)

        for i, title in enumerate(self.blocks):
            write(title, self.label + i * block, 22, 10, weight="bold")
        for i, (name, blocks) in enumerate(self.lines):
            top = self.head + i * line
            middle = top + self.tile[0] / 2
            label = name.replace(", ", "\n", 1)
            write(label, 8, middle, 7.5, va="center", linespacing=1.25)
            for j, (value, tiles) in enumerate(blocks):
                left = self.label + j * block
                self._paste(canvas, tiles, top, left)
                write(value, left, top + self.tile[0] + 12, 6.5, color="#444444")
        for i, words in enumerate(reversed(footer)):
            write(words, 8, height - self.under * (i + 0.6), 7.5)
        figure.figimage(canvas, 0, 0, origin="upper")
        save_figure(figure, path)

    def _paste(self, canvas: Tile, tiles: Sequence[Tile], top: int, left: int) -> None:
        height, width = self.tile
        for i in range(self.columns):
            start = left + i * (width + self.gap)
            place = canvas[top : top + height, start : start + width]
            place[:] = tiles[i] if i < len(tiles) else 238


def _caption(comparison: Comparison, left_out: int) -> str:
    sample_rate = comparison.model.sample_rate
    text = (
        "Samples of the same seeds in a column, a row for each method, with its"
        f" {comparison.primary.name} below. A grey field: nothing was drawn."
    )
    if sample_rate:
        text += (
            f" Each sound as a spectrogram (0 to {sample_rate / 2000:g} kHz upwards,"
            f" {QUIETEST_DB} to {LOUDEST_DB} dB) above its waveform (-1 to 1)."
        )
    if left_out:
        shown = len(comparison.rows) - left_out
        text += f" The {shown} methods with the best values are shown; {left_out} are left out."
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
    """All rows, or as many as there is room for: the best by their best value at ``steps``."""
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
        raise InvalidArgumentError(f"pictures must be of one shape, got {got}")
    rate = comparison.model.sample_rate or 1
    return {name: _tiles(picture, rate) for name, picture in found.items()}


def _tiles(picture: NDArray[Any], sample_rate: int) -> list[Tile]:
    if picture.ndim == 2 and picture.dtype.kind == "f":
        return [sound_tile(sound, sample_rate) for sound in picture[:_MOST_SOUNDS]]
    if picture.ndim == 4 and picture.dtype == np.uint8 and picture.shape[-1] in (1, 3):
        large = magnified(picture, max(1, round(_TILE / max(picture.shape[1:3]))))
        return list(np.broadcast_to(large, (*large.shape[:3], 3)))
    raise InvalidArgumentError(
        "pictures must be uint8 images (k, H, W, 1 or 3) or float sounds (k, samples), got"
        f" {picture.dtype} of shape {picture.shape}"
    )


def sound_tile(sound: NDArray[Any], sample_rate: int) -> Tile:
    """A spectrogram above a waveform, (H, W, 3): both scales are fixed, not each sound's own."""
    from matplotlib import colormaps
    from PIL import Image

    clean = np.nan_to_num(np.asarray(sound, dtype=np.float64), posinf=1, neginf=-1)
    decibels = power_in_db(clean, sample_rate)[::-1]
    shade = np.clip((decibels - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB), 0, 1)
    height, width = _SOUND_TILE
    resized = Image.fromarray(shade.astype(np.float32)).resize(
        (width, height), Image.Resampling.BOX
    )
    # Few shades make a small file; each is two decibels wide.
    colours = colormaps["magma"].resampled(_SHADES)(np.asarray(resized))[..., :3]
    pixels = (colours * 255).astype(np.uint8)
    return np.concatenate([pixels, _wave_strip(clean, width)])


def _wave_strip(sound: NDArray[np.float64], width: int) -> Tile:
    """Each column is drawn from the least to the greatest value of its samples."""
    strip = np.full((_WAVE, width, 3), 250, dtype=np.uint8)
    edges = np.linspace(0, len(sound), width + 1).astype(int)
    rows = np.round((1 - np.clip(sound, -1, 1)) / 2 * (_WAVE - 1)).astype(int)
    for column, (start, stop) in enumerate(itertools.pairwise(edges)):
        part = rows[start : max(stop, start + 1)]
        if len(part):
            strip[part.min() : part.max() + 1, column] = (0, 90, 140)
    return strip
