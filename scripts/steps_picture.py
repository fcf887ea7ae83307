"""Draw docs/images/steps.png: the same seeds in 1,000, 50, 10 and 5 network evaluations.

    python scripts/steps_picture.py

The samples are drawn from the built-in model `digits` with DDIM-rev (kappa = 0) over STEP levels,
on one thread. The times are the best of three runs on the machine that drew the picture.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from fastdpm import load_model
from fastdpm.data.pixels import to_pixels
from fastdpm.output.figures import save_figure, subplots

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "steps.png"
CHOICES = ((1000, "linear"), (50, "quadratic"), (10, "quadratic"), (5, "quadratic"))
COUNT = 12


def main() -> None:
    """Sample, time and draw."""
    torch.set_num_threads(1)
    model = load_model("digits")
    figure, axes = subplots(len(CHOICES), COUNT, (0.62 * COUNT + 2.4, 0.68 * len(CHOICES)))
    for row, (num_steps, spacing) in zip(axes, CHOICES, strict=True):
        seconds = []
        for _ in range(1 if num_steps == CHOICES[0][0] else 3):
            began = time.perf_counter()
            images = model.sample(
                COUNT, num_steps=num_steps, levels="step", spacing=spacing, kappa=0.0, seed=3
            )
            seconds.append(time.perf_counter() - began)
        for panel, pixels in zip(row, to_pixels(images), strict=True):
            panel.imshow(pixels, cmap="gray", vmin=0, vmax=255)
            panel.set(xticks=[], yticks=[])
        label = f"{num_steps:,} evaluations\n{min(seconds):.2g} s"
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="medium")
    save_figure(figure, PICTURE)


if __name__ == "__main__":
    main()
