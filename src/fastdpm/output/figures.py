"""Figures: image grids, sounds, series, loss curves and plans.

Images are clamped to [-1, 1] and mapped to 0 ... 255; none is stretched to its own extremes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastdpm.core.plan import Plan
from fastdpm.data.files import FIGURE_SUFFIXES, check_suffix, write_bytes
from fastdpm.data.pixels import Pixels, write_png
from fastdpm.data.stft import magnitudes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_SOUNDS = 8
DOTS_PER_INCH = 120
GAP = 2
_GRID_SIDE = 512
_WINDOW, _HOP = 256, 64
QUIETEST_DB, LOUDEST_DB = -120, -30


def magnified(images: NDArray[Any], scale: int) -> NDArray[Any]:
    """Images, shape (..., H, W, C), with each pixel drawn as ``scale`` by ``scale`` pixels."""
    return images.repeat(scale, axis=-3).repeat(scale, axis=-2)


def enlarged(pixels: Pixels, side: int) -> Pixels:
    """Images, shape (n, H, W, C), magnified by a whole number to at most ``side`` pixels."""
    return magnified(pixels, max(1, side // max(pixels.shape[1:3])))


def pasted(pixels: Pixels, columns: int) -> Pixels:
    """Images, shape (n, H, W, C), row by row on a white sheet, ``GAP`` pixels apart."""
    count, height, width, channels = pixels.shape
    high, wide = height + GAP, width + GAP
    rows = math.ceil(count / columns)
    sheet = np.full((rows * high + GAP, columns * wide + GAP, channels), 255, dtype=np.uint8)
    for i, image in enumerate(pixels):
        top, left = GAP + i // columns * high, GAP + i % columns * wide
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_picture(path: Path, samples: NDArray[Any], sample_rate: int | None) -> None:
    """Draw samples by their shape: a grid of images, or the first eight sounds or series.

    Args:
        path: A figure; a .png file if the samples are images.
        samples: Images, uint8 of shape (n, H, W, C), sounds of shape (n, samples) in [-1, 1], or
            series of shape (n, channels, length).
        sample_rate: Sample rate of sounds in Hz.
    """
    if samples.ndim == 4:
        columns = math.ceil(math.sqrt(len(samples)))
        write_png(path, pasted(enlarged(samples, _GRID_SIDE // columns), columns))
    elif samples.ndim == 3:
        _write_series(path, samples[:MAX_SOUNDS])
    else:
        shown = {f"sample {i}": sound for i, sound in enumerate(samples[:MAX_SOUNDS])}
        figure, _ = draw_sounds(shown, sample_rate or 1, (2.6, 4.4))
        save_figure(figure, path)


def draw_sounds(
    sounds: Mapping[str, NDArray[np.float32]], sample_rate: int, size: tuple[float, float]
) -> tuple[Figure, list[Axes]]:
    """Draw the waveform and the spectrogram of each sound, shape (samples,), under its title.

    Args:
        sounds: Sounds by title.
        sample_rate: In Hz.
        size: Width of a sound and height of the figure in inches.

    Returns:
        The figure, and the panels of the waveforms.
    """
    figure, (waves, spectra) = subplots(2, len(sounds), (size[0] * len(sounds) + 0.8, size[1]))
    for i, (title, sound) in enumerate(sounds.items()):
        waves[i].plot(np.arange(len(sound)) / sample_rate, sound, linewidth=0.5)
        waves[i].set(xlim=(0, len(sound) / sample_rate), ylim=(-1, 1), title=title)
        draw_spectrum(spectra[i], sound, sample_rate)
        spectra[i].set_xlabel("seconds")
        if i > 0:
            waves[i].set_yticklabels([])
            spectra[i].set_yticklabels([])
    waves[0].set_ylabel("amplitude")
    spectra[0].set_ylabel("frequency (Hz)")
    return figure, waves


def _write_series(path: Path, shown: NDArray[np.float32]) -> None:
    """Draw the channels of series, shape (n, channels, length), as lines."""
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = subplots(rows, columns, (2.6 * columns + 0.8, 2.2 * rows + 0.4))
    panels = [panel for row in axes for panel in row]
    for i, panel in enumerate(panels):
        if i >= len(shown):
            panel.set_axis_off()
            continue
        panel.plot(shown[i].T, linewidth=0.8)
        panel.set(xlim=(0, max(1, shown.shape[2] - 1)), ylim=(-1.05, 1.05), title=f"sample {i}")
        if i % columns > 0:
            panel.set_yticklabels([])
    figure.supxlabel("position")
    figure.supylabel("value of each channel")
    save_figure(figure, path)


def write_loss(path: Path, name: str, steps: Sequence[int], losses: Sequence[float]) -> None:
    """Draw a training loss against the step; ``name`` labels the loss.

    An axis is logarithmic if its values span a factor of 10 or more.
    """
    figure, axes = subplots(1, 1, (7.0, 4.0))
    axes[0][0].plot(steps, losses, linewidth=1)
    axes[0][0].set(xlabel="training step", ylabel=name)
    axes[0][0].set(xscale=_axis_scale(steps), yscale=_axis_scale(losses))
    axes[0][0].grid(alpha=0.3, which="both")
    save_figure(figure, path)


def _axis_scale(values: Sequence[float]) -> str:
    return "log" if max(values) >= 10 * min(values) > 0 else "linear"


def write_plan(path: Path, plan: Plan) -> None:
    """Draw a plan: its levels against the network steps, and the coefficients of each row."""
    figure, axes = subplots(1, 2, (8.8, 3.7))
    levels, weights = axes[0]
    levels.plot(plan.t, plan.level[:-1], "o-", markersize=4)
    levels.invert_xaxis()
    levels.set(xlabel="network step", ylabel="level r (1 is clean)", ylim=(0, 1.02))
    levels.set_title(f"{plan.num_rows} rows, {plan.fingerprint}")
    rows = np.arange(plan.num_rows)
    for name, table in (("a", plan.a), ("b", plan.b)):
        for column in range(table.shape[1]):
            weights.plot(rows, table[:, column], ".-", label=f"{name}[{column}]")
    weights.plot(rows, plan.c, "k.--", label="c", linewidth=1)
    weights.set(xlabel="row", ylabel="coefficient", title="a: state, b: prediction, c: noise")
    weights.legend(ncols=2, fontsize="small")
    for panel in (levels, weights):
        panel.grid(alpha=0.3)
    figure.suptitle(plan.label)
    save_figure(figure, path)


def draw_spectrum(panel: Axes, sound: NDArray[np.float32], sample_rate: int) -> None:
    """Draw the spectrogram of a sound, shape (samples,): in s, Hz and (as colors) dB."""
    power = power_in_db(sound, sample_rate)
    panel.imshow(
        power,
        extent=(0, power.shape[1] * _HOP / sample_rate, 0, sample_rate / 2),
        origin="lower",
        aspect="auto",
        vmin=QUIETEST_DB,
        vmax=LOUDEST_DB,
    )
    panel.set_xlim(0, len(sound) / sample_rate)


def power_in_db(sound: NDArray[np.floating[Any]], sample_rate: int) -> NDArray[np.float64]:
    """Power per Hz of a sound, shape (samples,), in decibels, at least -120.

    Returns:
        Shape (frequencies from 0 to half the sample rate, ceil(samples / 64)). Each column is a
        Hann window of 256 samples around 64 of them.
    """
    columns = math.ceil(len(sound) / _HOP)
    before = (_WINDOW - _HOP) // 2
    padded = torch.zeros((columns - 1) * _HOP + _WINDOW, dtype=torch.float64, device="cpu")
    padded[before : before + len(sound)] = torch.from_numpy(sound)
    window = torch.hann_window(_WINDOW, periodic=False, dtype=torch.float64, device="cpu")
    power = magnitudes(padded, window, _HOP) ** 2 / (sample_rate * window.square().sum())
    power[1:-1] *= 2  # the other half of the spectrum, which is the same
    return np.asarray(10 * power.clamp_min(10 ** (QUIETEST_DB / 10)).log10())


def subplots(
    rows: int, columns: int, size: tuple[float, float]
) -> tuple[Figure, list[list[Axes]]]:
    """A figure made without pyplot, so it needs no display and no global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [list(row) for row in axes]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix decides the format: .png, .pdf or .svg."""
    check_suffix(path, FIGURE_SUFFIXES)
    write_bytes(path, figure_bytes(figure, path.suffix[1:]))


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as "png", "pdf" or "svg", the same bytes every time; text stays text."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "fastdpm"}):
        figure.savefig(buffer, format=kind, dpi=DOTS_PER_INCH, metadata=undated)
    return buffer.getvalue()
