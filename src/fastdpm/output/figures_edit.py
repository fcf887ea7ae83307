"""Pictures of edits: originals, what was kept of them, and results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdpm.data.pixels import Pixels, to_pixels
from fastdpm.output.figures import DOTS_PER_INCH, MOST_SOUNDS, magnified, save_figure, subplots

if TYPE_CHECKING:
    from torch import Tensor

MOST_IMAGES = 16
_LEAST_WIDTH = 800
_LEFT, _TOP, _GAP = 84, 52, 2
_STRIPE = 4
_STRIPES = np.array([(0xD5, 0x5E, 0x00), (0xFF, 0xE0, 0xC8)], dtype=np.uint8)


def write_edited_images(
    path: Path, rows: Sequence[Tensor], painted: NDArray[np.bool_] | None
) -> None:
    """Draw images below each other, one column a sample and at most 16 of them.

    Pixels are magnified by a whole number. Orange stripes mark what was not kept.

    Args:
        path: A figure, .png, .pdf or .svg.
        rows: Originals, what was kept if there was a mask, results, each (n, C, H, W) in [-1, 1].
        painted: What was painted, shape (n, H, W), which is striped; None for everything.
    """
    shown = [row[:MOST_IMAGES] for row in rows]
    count, _, height, width = shown[0].shape
    scale = max(1, _LEAST_WIDTH // (count * width))
    scale = min(scale, max(1, 256 // max(height, width)))
    images = [magnified(to_pixels(row), scale) for row in shown]
    if painted is not None:
        where = magnified(painted[:MOST_IMAGES, ..., None], scale)
        images[1] = _striped(images[1], where)
    high, wide = height * scale + _GAP, width * scale + _GAP
    sheet = np.full((len(rows) * high + _GAP, count * wide + _GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            top, left = _GAP + i * high, _GAP + j * wide
            sheet[top : top + high - _GAP, left : left + wide - _GAP] = image
    _write_sheet(path, sheet, _names(rows), count)


def write_edited_lines(
    path: Path,
    rows: Sequence[Tensor],
    painted: NDArray[np.bool_] | None,
    sample_rate: int | None,
) -> None:
    """Draw sounds or series below each other, one column a sample and at most eight of them.

    Args:
        path: A figure, .png, .pdf or .svg.
        rows: Originals, what was kept, results, each (n, channels, length).
        painted: What was painted, shape (n, length), which is shaded; None for everything.
        sample_rate: In Hz, of sound; None for series.
    """
    shown = [row[:MOST_SOUNDS].float().cpu().numpy() for row in rows]
    count, _, length = shown[0].shape
    figure, axes = subplots(len(rows), count, (2.8 * count + 1.6, 1.9 * len(rows) + 0.5))
    place = np.arange(length) / (sample_rate or 1)
    for i, row in enumerate(shown):
        for j, sample in enumerate(row):
            panel = axes[i][j]
            panel.plot(place, sample.T, linewidth=0.5)
            if painted is not None:
                panel.fill_between(
                    place, -1.05, 1.05, where=painted[j], color="0.85", linewidth=0, zorder=0
                )
            panel.set(xlim=(0, place[-1] or 1), ylim=(-1.05, 1.05))
            panel.label_outer()
        axes[i][0].set_ylabel(_names(rows)[i])
    for j, panel in enumerate(axes[0]):
        panel.set_title(f"sample {j}")
    figure.supxlabel("seconds" if sample_rate else "position")
    save_figure(figure, path)


def _names(rows: Sequence[Tensor]) -> list[str]:
    return ["original", "kept", "result"] if len(rows) == 3 else ["original", "result"]


def _striped(images: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """Images, (n, H, W, C), with slanted stripes there, (n, H, W, 1); of three colours."""
    down, right = np.indices(where.shape[1:3])
    stripes = _STRIPES[(down + right) // _STRIPE % 2]
    return np.where(where, stripes, images)


def _write_sheet(path: Path, sheet: Pixels, names: Sequence[str], count: int) -> None:
    """Write a sheet with the names of its rows and the numbers of its columns, dot by dot."""
    from matplotlib.figure import Figure

    height, width = sheet.shape[0] + _TOP, sheet.shape[1] + _LEFT
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH))
    place = (_LEFT / width, 0, sheet.shape[1] / width, sheet.shape[0] / height)
    panel = figure.add_axes(place)
    panel.imshow(sheet, interpolation="nearest", aspect="auto")
    high, wide = (sheet.shape[0] - _GAP) / len(names), (sheet.shape[1] - _GAP) / count
    panel.set_yticks(_GAP + high * (np.arange(len(names)) + 0.5), names)
    panel.set_xticks(_GAP + wide * (np.arange(count) + 0.5), [str(j) for j in range(count)])
    panel.tick_params(length=0, labelsize="small", top=True, labeltop=True, labelbottom=False)
    panel.xaxis.set_label_position("top")
    panel.set_xlabel("sample", fontsize="small")
    for side in panel.spines.values():
        side.set_visible(False)
    save_figure(figure, path)
