"""Draw and measure the inverse direction on CIFAR-10.

    python scripts/inversion_cifar10.py --data cifar10-test.parquet [FIGURE ...]

Encodes real test images with the built-in model `cifar10`, and writes docs/images/cifar10-*.png:
FIGURE is `reconstruction`, `interpolation`, `painting` or `classes`, and by default each of them.
The images are the first ones of their class in the file. The four figures take about four minutes
on one idle CPU core.

FIGURE `errors`, also by default, measures reconstruction errors, and writes
docs/results/cifar10-inversion.json, which `scripts/generate_docs.py` turns into a table, and
docs/results/cifar10-reconstruction.png. This takes about 15 minutes more. Existing results are
kept, so an interrupted run continues; delete the file to measure again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from inversion import Figures, Row
from picture_grid import draw
from torch import Tensor, nn

from fastdpm import Model, decode, edit, encode, interpolate, levels_step, load_model
from fastdpm.data.inputs import read_samples
from fastdpm.evaluation.reconstruction import reconstruct
from fastdpm.output.figures_inverse import write_psnr

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results" / "cifar10-inversion.json"
READ = 60  # these rows hold at least two images of every class
STEPS = (10, 20, 50, 100)
SPACING = "quadratic"


class Images:
    """The first images of the test set, by class."""

    def __init__(self, path: Path, model: Model) -> None:
        self.model, self.names = model, list(model.config.data.class_names or ())
        samples = read_samples(path, model.config.data, n=READ)
        if samples.labels is None:
            raise SystemExit(f"{path} has no column `label`")
        self.x, self.labels = samples.x, samples.labels.tolist()

    def of(self, name: str, place: int = 0) -> Tensor:
        """Image number ``place`` of a class, shape (1, 3, 32, 32)."""
        label = self.names.index(name)
        row = [i for i, found in enumerate(self.labels) if found == label][place]
        return self.x[row : row + 1]

    def first(self, names: Sequence[str]) -> Tensor:
        """The first image of each class."""
        return torch.cat([self.of(name) for name in names])


def draw_reconstruction(images: Images) -> None:
    """The first image of each class, and what decode(encode(x)) returns."""
    model, names = images.model, images.names[:8]
    x = images.first(names)
    rows = {"original": x}
    for method, num_steps in (("first", 10), ("first", 50), ("invertible", 10)):
        levels = levels_step(model.schedule, num_steps, SPACING)
        latents = encode(model, x, levels, method, class_labels=names)
        rows[f"{method}, S = {num_steps}"] = decode(model, latents)
    draw(picture("reconstruction"), rows, names)


def draw_interpolation(images: Images) -> None:
    """Between two images of a class, and between two classes without a class."""
    model, n = images.model, 8
    levels = levels_step(model.schedule, 50, SPACING)
    ends = {
        "horse": ("horse", images.of("horse"), images.of("horse", 1)),
        "automobile": ("automobile", images.of("automobile"), images.of("automobile", 1)),
        "cat to dog": ("none", images.of("cat"), images.of("dog")),
    }
    rows = {
        title: interpolate(model, a[0], b[0], levels, n, class_labels=label)
        for title, (label, a, b) in ends.items()
    }
    columns = ["original", *(f"{i / (n - 1):.2f}" for i in range(1, n - 1)), "original"]
    draw(picture("interpolation"), rows, columns)


def draw_painting(images: Images) -> None:
    """Paint the right half of images or their middle, once, and again with less and less noise."""
    model, names = images.model, ["cat", "horse", "ship", "dog", "automobile", "airplane"]
    x = images.first(names)
    mask = torch.zeros(len(x), 1, 32, 32, dtype=torch.bool)
    mask[:3, :, :, 16:] = True
    mask[3:, :, 8:24, 8:24] = True
    levels = levels_step(model.schedule, 20, SPACING)
    paint = partial(edit, model, mask=mask, levels=levels, kappa=1.0, class_labels=names)
    painted = [paint(x, guidance_scale=2.0)]
    for seed, strength in enumerate((0.8, 0.7, 0.6, 0.5, 0.4, 0.3), 1):
        again = paint(painted[-1], strength=strength, seed=seed, guidance_scale=2.0)
        painted.append(again)
    rows = {"original": x, "kept": x.masked_fill(mask, 0.0)}
    draw(picture("painting"), rows | {"painted": painted[0], "painted, again": painted[-1]}, names)


def draw_classes(images: Images) -> None:
    """Encode with one class, and decode with others."""
    model, names = images.model, ["cat", "dog", "horse", "automobile"]
    x = images.first(names)
    levels = levels_step(model.schedule, 50, SPACING)
    latents = encode(model, x, levels, "invertible", class_labels=names)
    columns = {"original": x}
    for target in ("cat", "dog", "horse", "automobile", "ship"):
        columns[target] = decode(model, latents, class_labels=target, guidance_scale=3.0)
    found = torch.stack(list(columns.values()), dim=1)
    draw(picture("classes"), dict(zip(names, found, strict=True)), list(columns))


def picture(name: str) -> Path:
    """The file of a figure."""
    return DOCS / "images" / f"cifar10-{name}.png"


def measure(images: Images) -> None:
    """Measure reconstruction errors, by method, S, precision and guidance."""
    figures, x = Figures(RESULTS), images.first(images.names)
    usual = {"precision": "float32", "guidance": 1.0}
    for method in ("first", "invertible", "second"):
        for num_steps in STEPS:
            settings = {"method": method, "S": num_steps, **usual, "n": len(x)}
            figures.add("cifar10", settings, errors, images.model, x, images.names, settings)
    for method, num_steps, change in (
        ("first", 20, {"guidance": 3.0}),
        ("invertible", 20, {"guidance": 3.0}),
        ("first", 20, {"precision": "bf16"}),
        ("invertible", 10, {"precision": "bf16"}),
        ("invertible", 20, {"precision": "bf16"}),
        ("invertible", 20, {"precision": "float64"}),
    ):
        count = 4 if change.get("precision") == "float64" else len(x)
        settings = {"method": method, "S": num_steps, **usual, **change, "n": count}
        model = computing_in(images.model, str(settings["precision"]))
        shown = x[:count], images.names[:count]
        figures.add("cifar10", settings, errors, model, *shown, settings)
    curves: dict[str, dict[int, list[float]]] = {}
    for row in figures.tables["cifar10"]:
        if row | usual == row:
            curves.setdefault(row["method"], {})[row["S"]] = row["psnr"]
    title = "cifar10, STEP quadratic"
    write_psnr(RESULTS.with_name("cifar10-reconstruction.png"), {title: curves})


def errors(model: Model, x: Tensor, names: Sequence[str], settings: Row) -> Row:
    """Encode and decode images; errors of each, of values clipped to [-1, 1]."""
    began = time.perf_counter()
    levels = levels_step(model.schedule, settings["S"], SPACING)
    found = reconstruct(
        model,
        x,
        levels,
        settings["method"],
        class_labels=names,
        guidance_scale=settings["guidance"],
    )
    error = (found.x.clamp(-1, 1) - x).abs().flatten(1).mean(dim=1) * 127.5
    summary = found.summary
    return {
        "evaluations": found.total_evaluations,
        "std": None if summary is None else summary.deviation,
        "psnr": list(found.psnr),
        "absolute_error": error.tolist(),
        "seconds": round(time.perf_counter() - began, 1),
    }


class Autocast(nn.Module):
    """A network that computes in bfloat16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Predict in the type of ``x``."""
        with torch.autocast(x.device.type, torch.bfloat16):
            out: Tensor = self.network(x, t, condition)
        return out.to(x)


def computing_in(model: Model, precision: str) -> Model:
    """The model with its network in another precision."""
    if precision == "float32":
        return model
    config = model.config
    double = precision == "float64"
    network = deepcopy(model.network).double() if double else Autocast(model.network).eval()
    return Model.wrap(
        network,
        model.schedule,
        config.data.shape,
        classes=config.data.classes,
        class_names=config.data.class_names,
        null_class=True,
        prediction=config.prediction,
        time_scale=config.time_scale,
    )


FIGURES = {
    "reconstruction": draw_reconstruction,
    "interpolation": draw_interpolation,
    "painting": draw_painting,
    "classes": draw_classes,
    "errors": measure,
}


def main() -> None:
    """Draw the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Parquet file of the test images")
    names = ", ".join(FIGURES)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{names}; by default all")
    stated = parser.parse_args()
    if unknown := set(stated.figures) - set(FIGURES):
        parser.error(f"no figure {' or '.join(sorted(unknown))}: choose among {names}")
    images = Images(stated.data, load_model("cifar10"))
    for name in stated.figures or FIGURES:
        began = time.perf_counter()
        FIGURES[name](images)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
