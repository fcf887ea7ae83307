"""Figures of likelihoods: the bits that each level costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastdpm.output.figures import save_figure, subplots

if TYPE_CHECKING:
    from fastdpm.inverse.likelihood import Bound

_SMALLEST = 1e-6


def write_terms(path: Path, bounds: Mapping[str, Bound]) -> None:
    """Draw the terms of likelihood bounds, and their running sums from noise to data.

    Args:
        path: A figure, .png, .pdf or .svg.
        bounds: Bounds by their names in the legend.
    """
    figure, axes = subplots(1, 2, (9.0, 4.2))
    each, total = axes[0]
    for i, (name, bound) in enumerate(bounds.items()):
        terms = bound.terms.mean(dim=0).numpy()
        level, color = bound.levels.level, f"C{i}"
        noise = np.sqrt((1 - level[:-1]) * (1 + level[:-1])) / level[:-1]
        said = f"{name}: {bound.mean:.3f}"
        if bound.error is not None:
            said += f" ± {bound.error:.3f}"
        rows = np.maximum(terms[1:-1], _SMALLEST)
        each.plot(noise[:-1], rows, ".-", color=color, linewidth=1, label=said)
        each.plot(noise[0], max(terms[0], _SMALLEST), "^", color=color, fillstyle="none")
        each.plot(noise[-1], max(terms[-1], _SMALLEST), "s", color=color, fillstyle="none")
        # A row's bits are spent on the way from its level to the next cleaner one.
        total.step(np.append(noise, noise[-1]), np.cumsum(terms), ".-", color=color, linewidth=1)
    each.plot([], [], "k^", fillstyle="none", label="prior (start from pure noise)")
    each.plot([], [], "ks", fillstyle="none", label="decoder (gray levels)")
    each.set(yscale="log", ylabel="bits per dimension of a row", title="terms")
    keys = each.get_legend_handles_labels()  # below, where they cover no curve
    figure.legend(*keys, loc="outside lower center", ncols=3, fontsize="small")
    total.set(ylabel="bits per dimension so far", ylim=(0, None), title="sum from noise to data")
    for panel in (each, total):
        panel.set(xscale="log", xlabel="noise to signal of the row, sqrt(1 - r²) / r")
        panel.invert_xaxis()
        panel.grid(alpha=0.3)
    save_figure(figure, path)
