"""Pictures of edits: originals, what was kept of them, and results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fastdpm.figures import MOST_SOUNDS, save_figure, subplots, to_pixels, write_png

if TYPE_CHECKING:
    from torch import Tensor

MOST_IMAGES = 16
_LEAST_WIDTH = 800


def write_edited_images(path: Path, rows: Sequence[Tensor]) -> None:
    """Draw images below each other, one column a sample and at most 16 of them.

    Args:
        path: A PNG file.
        rows: Originals, what was kept, results, each (n, C, H, W) in [-1, 1].
    """
    pixels = [to_pixels(row[:MOST_IMAGES]) for row in rows]
    count, height, width, channels = pixels[0].shape
    scale, gap = max(1, _LEAST_WIDTH // (count * width)), 2
    scale = min(scale, max(1, 256 // max(height, width)))
    sheet = np.full(
        (
            len(rows) * (height * scale + gap) + gap,
            count * (width * scale + gap) + gap,
            channels,
        ),
        255,
        dtype=np.uint8,
    )
    for i, row in enumerate(pixels):
        top = gap + i * (height * scale + gap)
        for j, image in enumerate(row):
            left = gap + j * (width * scale + gap)
            large = image.repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + height * scale, left : left + width * scale] = large
    write_png(path, sheet)


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
    names = ["original", "kept", "result"] if len(rows) == 3 else ["original", "result"]
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
            panel.set(xlim=(0, place[-1]), ylim=(-1.05, 1.05))
            panel.label_outer()
        axes[i][0].set_ylabel(names[i])
    for j, panel in enumerate(axes[0]):
        panel.set_title(f"sample {j}")
    figure.supxlabel("seconds" if sample_rate else "position")
    save_figure(figure, path)
