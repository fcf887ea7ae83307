"""Draw docs/images/steps.png and guidance.png: samples of the built-in model `cifar10`.

    python scripts/cifar10_pictures.py [steps] [guidance]

Both have one sample of each class in a row, with the same seeds in every row. In steps.png, the
first row is DDIM with all 1,000 steps, and the others are the model's recommended recipe with
fewer steps, all with the guidance of that recipe. The times are the best of three runs in bf16 on
the machine that drew the picture. In guidance.png, only the scale of the guidance differs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from picture_grid import draw
from torch import Tensor

from fastdpm import Model, load_model

IMAGES = Path(__file__).parent.parent / "docs" / "images"
STEPS = (1000, 20, 10, 5)
SCALES = (0.0, 1.0, 2.0, 4.0)
SEED = 0


def main() -> None:
    """Draw the pictures that are named, or both."""
    model = load_model("cifar10")
    classes = model.config.data.class_names or ()
    names = sys.argv[1:] or ["steps", "guidance"]
    if "steps" in names:
        rows = {}
        for num_steps in STEPS:
            images, seconds = timed(model, num_steps)
            rows[f"{num_steps:,} steps\n{seconds:.{0 if seconds >= 10 else 1}f} s"] = images
        draw(IMAGES / "steps.png", rows, classes)
    if "guidance" in names:
        guided = {f"guidance {scale:g}": sampled(model, guidance_scale=scale) for scale in SCALES}
        draw(IMAGES / "guidance.png", guided, classes)


def timed(model: Model, num_steps: int) -> tuple[Tensor, float]:
    """Samples, and the shortest time of three runs in seconds; of one run with all steps."""
    if num_steps == model.schedule.num_train_steps:
        standard = {"method": "ddim-rev", "levels": "step", "spacing": "linear", "kappa": 0.0}
        began = time.perf_counter()
        return sampled(model, num_steps=num_steps, **standard), time.perf_counter() - began
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        images = sampled(model, num_steps=num_steps)
        seconds.append(time.perf_counter() - began)
    return images, min(seconds)


def sampled(model: Model, **options: object) -> Tensor:
    """One sample of each class."""
    count = model.config.data.classes
    return model.sample(count, seed=SEED, precision="bf16", **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
