"""A picture of images in rows and columns, for the scripts that draw samples of `cifar10`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from fastdpm.data.pixels import to_pixels
from fastdpm.output.figures import magnified, save_figure, subplots

SCALE = 4  # each pixel is drawn as 4 by 4


def draw(path: Path, rows: Mapping[str, Tensor], columns: Sequence[str]) -> None:
    """Draw named rows of images, (n, 3, 32, 32) each, under the names of the columns."""
    side = SCALE * 32 / 120  # inches
    size = (side * len(columns) * 1.04 + 1.3, side * len(rows) * 1.04 + 0.3)
    figure, axes = subplots(len(rows), len(columns), size)
    for panels, (title, samples) in zip(axes, rows.items(), strict=True):
        panels[0].set_ylabel(title.replace(", ", ",\n"), rotation=0, ha="right", va="center")
        for panel, pixels in zip(panels, magnified(to_pixels(samples), SCALE), strict=True):
            panel.imshow(pixels, interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            panel.set_frame_on(False)
    for panel, title in zip(axes[0], columns, strict=True):
        panel.set_title(title, fontsize="medium")
    save_figure(figure, path)
