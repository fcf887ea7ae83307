"""Results of comparisons that no one measured, and readers of the reports on them."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdpm.evaluation.report.write import write_report
from fastdpm.evaluation.results import Comparison

CHOICES = ("STEP linear", "STEP quadratic", "VAR linear", "VAR quadratic")


FD, PRECISION = "frechet_distance", "precision"


HOSTILE = "</title><script>alert('x')</script> | **b** `c` [d](http://evil.example/e) $x$"


def make_cell(group, choice, steps, value, *, error=0.012, **changes: Any) -> dict[str, Any]:
    """A cell as a comparison records it; its identity is its name."""
    cell = {
        "id": f"{group}/{choice}/{steps}",
        "method": "some-method",
        "family": "paper",
        "group": group,
        "choice": choice,
        "num_steps": steps,
        "evaluations": steps,
        "n": 2000,
        "seconds": 0.4 * steps,
        "metrics": {
            FD: {"value": value, "error": error},
            PRECISION: {"value": 1 / (1 + value), "error": 0.01},
        },
        "notes": [],
        "plan": "0123456789abcdef",
        "failed": None,
    }
    return cell | changes


def make_results(cells, *, audio=False, floor=True) -> dict[str, Any]:
    features = "spoken-digits-features" if audio else "digits-features"
    score = {FD: {"value": 0.21, "error": 0.03}, PRECISION: {"value": 0.9, "error": 0.01}}
    return {
        "format": "fastdpm-comparison",
        "version": 1,
        "model": {
            "name": "spoken-digits" if audio else "digits",
            "weights_sha256": "ab" * 32,
            "T": 200 if audio else 1000,
            "modality": "audio" if audio else "image",
            "sample_rate": 8000 if audio else None,
        },
        "features": features,
        "against": "1,437 training rows of the digits",
        "n": 2000,
        "seed": 0,
        "clip": "none",
        "precision": "float32",
        "metrics": [
            {"key": FD, "name": f"FD ({features})", "better": "lower"},
            {"key": PRECISION, "name": f"precision ({features})", "better": "higher"},
        ],
        "left_out": [],
        "floor": {"label": "360 held-out digits", "n": 360, "metrics": score} if floor else None,
        "cells": cells,
        "seconds": 512.3,
        "versions": {"fastdpm": "0.1.0", "torch": "2.6.0"},
        "command": "fastdpm compare digits -S 5,10,20,50 -n 2000 --out report",
    }


def make_grid(kappas=(0.0, 1.0), steps=(5, 10, 20, 50), *, rivals=True) -> list[dict[str, Any]]:
    """A whole comparison with values as a small model gives them."""
    random = np.random.default_rng(0)
    cells = []

    def add(group, choices, weight, extra=0, **changes: Any) -> None:
        for i, choice in enumerate(choices):
            for s in steps:
                value = 0.4 + weight * (1 + 0.3 * i) / s**1.2 * random.uniform(0.9, 1.1)
                more = {"evaluations": s + extra} | changes
                cells.append(make_cell(group, choice, s, value, error=0.03 * value, **more))

    for kappa in kappas:
        name = {0.0: "DDIM-rev", 1.0: "DDPM-rev"}.get(kappa, f"DDIM-rev, kappa = {kappa:g}")
        add(name, CHOICES, 4 + 30 * kappa)
    if rivals:
        for name in ("DPM-Solver++ 2M", "DPM-Solver++ 3M", "third-order multistep"):
            add(name, CHOICES, 3, family="multistep")
        spacings = ("leading", "linspace", "trailing")
        for name in ("DDIM", "DDPM", "PLMS", "DEIS", "DPM-Solver++ 2M", "UniPC"):
            add(f"{name} (diffusers)", spacings, 5, family="diffusers", plan=None)
        add("PNDM (diffusers)", spacings, 2, extra=9, family="diffusers", plan=None)
    standard = {"family": "standard", "n": 1000}
    cells.append(make_cell("standard sampler", "", 1000, 0.42, **standard))
    return cells


def make_images(cells, count=8, side=8) -> dict[str, NDArray[Any]]:
    """Discs that fade with noise where the distance is large."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    radii = random.uniform(0.2, 0.45, (count, 1, 1))
    discs = 1.0 * (np.hypot(x, y) < radii)
    pictures = {}
    for cell in cells:
        noise = random.normal(0, 0.1 * cell["metrics"][FD]["value"], discs.shape)
        pixels = np.clip(discs + noise, 0, 1) * 255
        pictures[cell["id"]] = pixels.astype(np.uint8)[..., None]
    return pictures


def make_sounds(cells, count=8, length=8000) -> dict[str, NDArray[Any]]:
    """Rising tones in noise."""
    random = np.random.default_rng(1)
    t = np.arange(length) / 8000
    pitch = random.uniform(200, 900, (count, 1))
    tones = 0.5 * np.sin(2 * np.pi * (pitch * t + 600 * t**2)) * np.exp(-2 * t)
    return {
        c["id"]: (tones + random.normal(0, 0.02, tones.shape)).astype(np.float32) for c in cells
    }


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.classes: dict[str, list[str]] = {}
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.loaded += [v for k, v in attrs if k in ("src", "href", "data", "action", "srcset")]
        self._script = tag in ("script", "style")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._class = named.get("class") or ""

    def handle_endtag(self, tag) -> None:
        if tag in ("td", "th"):
            for name in self._class.split():
                self.classes.setdefault(name, []).append(self.tables[-1][-1][-1])
        self._script = False

    def handle_data(self, data) -> None:
        if self._script:
            return
        self.text += data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data


def write(out, results, pictures) -> list[Path]:
    """Write the report of a comparison that was read."""
    return write_report(out, replace(Comparison.from_dict(results), pictures=pictures))


def report(folder, cells, pictures=None, **changes: Any) -> dict[str, str]:
    """Write a report, and read back its texts by file name."""
    found = write(folder / "out", make_results(cells, **changes), pictures or {})
    return {path.name: path.read_text() for path in found if path.suffix != ".png"}


def table(markdown: str) -> dict[tuple[str, str], list[str]]:
    """The first table of a Markdown report: method -> entries; a blank group is the one above."""
    start = markdown.index("\n| ") + 1
    rows, group = {}, ""
    for line in markdown[start:].split("\n\n")[0].splitlines()[2:]:
        first, choice, *entries = line.removeprefix("| ").removesuffix(" |").split(" | ")
        group = first or group
        rows[group, choice] = entries
    return rows
