"""Pictures of the inverse direction: interpolations, and originals beside reconstructions."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastdpm.data.files import write_bytes
from fastdpm.data.pixels import Pixels, to_pixels, write_png
from fastdpm.inverse.encode import METHODS
from fastdpm.output.figures import draw_spectrum, draw_wave, magnified, save_figure, subplots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 8
_MOST_ON_THE_WAY = 9  # odd, so that the middle can be among them
_STRIP_SIDE, _FRAME_SIDE, _GAP = 96, 256, 2
_FRAME_MS = 160
# A method looks the same in every picture, whichever others are beside it.
_COLOURS = dict(zip(METHODS, ("#0072B2", "#D55E00", "#009E73", "#AA4499"), strict=True))
_MARKERS = dict(zip(METHODS, "os^D", strict=True))
_LABEL_WIDTH = 32
_EMPTY_DB = (0.0, 60.0)
_MOST_LEVEL_TICKS = 8

Sounds = NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """Values over samples at several numbers of steps.

    Attributes:
        method: One of ``fastdpm.inverse.encode.METHODS``.
        samples: How many were encoded.
        steps: S, shape (k,).
        lost: How many of them did not converge, at each S.
        middle: The median of the others, NaN where there are none, shape (k,).
        low: Their 10th percentile, shape (k,).
        high: Their 90th percentile, shape (k,).
    """

    method: str
    samples: int
    steps: Sequence[int]
    lost: Sequence[int]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def label(self) -> str:
        """The method, and how many it lost: in one number if it is the same at every S."""
        if not any(self.lost):
            return self.method
        if len(set(self.lost)) > 1:
            places = zip(self.lost, self.steps, strict=True)
            told = [f"{lost} at S = {step}" for lost, step in places if lost]
            said = ", ".join(one.replace(" ", "\u00a0") for one in told)  # lines break between
            return fill(f"{self.method} (of {self.samples} lost: {said})", _LABEL_WIDTH)
        if self.lost[0] == self.samples:
            return f"{self.method} (none converged)"
        return f"{self.method} ({self.lost[0]} of {self.samples} lost)"


def write_strip(path: Path, pixels: Pixels) -> None:
    """Write images, shape (n, H, W, C), side by side, each magnified by a whole number."""
    large = _to_side(pixels, _STRIP_SIDE)
    count, height, width, channels = large.shape
    sheet = np.full(
        (height + 2 * _GAP, count * (width + _GAP) + _GAP, channels), 255, dtype=np.uint8
    )
    for i, image in enumerate(large):
        left = _GAP + i * (width + _GAP)
        sheet[_GAP : _GAP + height, left : left + width] = image
    write_png(path, sheet)


def write_animation(path: Path, pixels: Pixels) -> None:
    """Write images, shape (n, H, W, C), as an animated PNG that runs there and back for ever."""
    large = _to_side(pixels, _FRAME_SIDE)
    frames = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in large]
    frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    rest = frames[1:]
    frames[0].save(buffer, "PNG", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)
    write_bytes(path, buffer.getbuffer())


def write_sound_strip(path: Path, sounds: Sounds, sample_rate: int) -> None:
    """Draw waveforms and spectrograms on the way from a sound to another, shape (n, samples).

    Of more than nine, nine that are spread evenly, both ends among them, and the middle if there
    is one.
    """
    count = min(len(sounds), _MOST_ON_THE_WAY)
    shown = np.linspace(0, len(sounds) - 1, count).round().astype(int)
    figure, axes = subplots(2, len(shown), (1.9 * len(shown) + 0.8, 4.0))
    for column, index in enumerate(shown):
        wave, spectrum = axes[0][column], axes[1][column]
        draw_wave(wave, sounds[index], sample_rate)
        wave.set_title(f"{index / (len(sounds) - 1):.2f} of the way", fontsize="medium")
        wave.set_xticklabels([])
        draw_spectrum(spectrum, sounds[index], sample_rate)
        spectrum.set_xlabel("seconds")
        if column > 0:
            wave.set_yticklabels([])
            spectrum.set_yticklabels([])
    axes[0][0].set_ylabel("amplitude")
    axes[1][0].set_ylabel("frequency (Hz)")
    save_figure(figure, path)


def write_psnr(path: Path, panels: Mapping[str, Sequence[Curve]]) -> None:
    """Draw the PSNR of reconstructions against S, one panel for each choice of levels.

    Lines are medians over the samples that converged, bands reach from the 10th to the 90th
    percentile; the legend says how many did not converge.
    """
    curves = [curve for drawn in panels.values() for curve in drawn]
    steps = sorted({s for curve in curves for s in curve.steps})
    figure, axes = subplots(1, len(panels), (4.6 * len(panels) + 0.6, 4.8))
    for panel, (title, drawn) in zip(axes[0], panels.items(), strict=True):
        for curve in drawn:
            _draw_curve(panel, curve)
        if all(np.isnan(curve.middle).all() for curve in drawn):
            panel.text(0.5, 0.5, "none converged", transform=panel.transAxes, ha="center")
        _set_steps(panel, steps)
        panel.set_ylim(_limits([v for c in curves for v in (*c.low, *c.high)]))
        panel.set_title(title, fontsize="medium")
        panel.grid(alpha=0.3)
        panel.label_outer()
        # below, where it covers no line and no band
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize="small")
    axes[0][0].set_ylabel("PSNR (dB), median and 10 to 90 %")
    save_figure(figure, path)


def write_image_pairs(path: Path, rows: Mapping[str, Tensor], title: str = "") -> None:
    """Draw rows of images, each (n, C, H, W) in [-1, 1], below one another under their names.

    Args:
        path: Where.
        rows: The originals, and what each method made of them, NaN for a sample that it lost; the
            first eight are shown.
        title: What stands above them.
    """
    height, width = next(iter(rows.values())).shape[-2:]

    def draw(panel: Axes, image: Tensor) -> None:
        panel.imshow(to_pixels(image[None])[0], cmap="gray", vmin=0, vmax=255)

    _write_pairs(path, rows, draw, title, size=(0.85, 0.85), aspect=height / width)


def write_sound_pairs(
    path: Path, rows: Mapping[str, Tensor], sample_rate: int, title: str = ""
) -> None:
    """Draw rows of spectrograms of sounds, each (n, samples), as :func:`write_image_pairs`."""
    seconds = max(sounds.shape[1] for sounds in rows.values()) / sample_rate

    def draw(panel: Axes, sound: Tensor) -> None:
        draw_spectrum(panel, sound.numpy(), sample_rate)

    below = f"spectrograms of {seconds:.2g} s, 0 to {sample_rate // 2} Hz"
    _write_pairs(path, rows, draw, title, size=(1.7, 1.2), below=below)


def _write_pairs(
    path: Path,
    rows: Mapping[str, Tensor],
    draw: Callable[[Axes, Tensor], None],
    title: str,
    *,
    size: tuple[float, float],
    aspect: float | None = None,
    below: str = "",
) -> None:
    """Draw each sample of each row into a panel of this size in inches."""
    columns = min(MOST_COLUMNS, max(len(samples) for samples in rows.values()))
    inches = (size[0] * columns + 2.2, size[1] * len(rows) + 0.6)
    figure, axes = subplots(len(rows), columns, inches)
    for panels, (name, samples) in zip(axes, rows.items(), strict=True):
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
        for panel, sample in zip(panels, samples, strict=False):
            found = bool(torch.isfinite(sample).all())
            if found:
                draw(panel, sample)
            else:
                panel.text(0.5, 0.5, "lost", transform=panel.transAxes, ha="center", va="center")
            panel.set(xticks=[], yticks=[], box_aspect=aspect)
            for side in panel.spines.values():
                side.set(visible=not found, color="0.6", linestyle="--")
    figure.suptitle(title, fontsize="medium")
    figure.supxlabel(below, fontsize="medium")
    save_figure(figure, path)


def _to_side(pixels: Pixels, side: int) -> Pixels:
    scale = max(1, side // max(pixels.shape[1:3]))
    return magnified(pixels, scale)


def _draw_curve(panel: Axes, curve: Curve) -> None:
    colour, marker = _COLOURS[curve.method], _MARKERS[curve.method]
    panel.plot(curve.steps, curve.middle, color=colour, marker=marker, label=curve.label)
    panel.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    # a band has no width at a single S, or between two where nothing converged
    panel.vlines(curve.steps, curve.low, curve.high, color=colour, alpha=0.4)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """The range of values, NaN aside, with a margin."""
    there = [value for value in values if not np.isnan(value)]
    if not there:
        return _EMPTY_DB
    margin = max(2.0, 0.12 * (max(there) - min(there)))
    return min(there) - margin, max(there) + margin


def _set_steps(panel: Axes, steps: Sequence[int]) -> None:
    panel.set_xscale("log")
    panel.set_xlim(steps[0] / 1.3, steps[-1] * 1.3)
    many = len(steps) > _MOST_LEVEL_TICKS
    panel.set_xticks(steps, [str(s) for s in steps], rotation=90 if many else 0)
    panel.minorticks_off()
    panel.set_xlabel("sampling steps S")
