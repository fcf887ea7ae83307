"""Pictures of the inverse direction: interpolations, and originals beside reconstructions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastdpm.figures import MOST_SOUNDS, Pixels, save_figure, subplots, write_png
from fastdpm.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_COLUMNS = 8
_STRIP_SIDE, _FRAME_SIDE, _GAP = 96, 256, 2
_FRAME_MS = 160
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#B8860B", "#56B4E9")
_MARKERS = "os^DvP"

Sounds = NDArray[np.float32]


@dataclass(frozen=True)
class Curve:
    """Values over samples at several numbers of steps.

    Attributes:
        name: What the legend calls it.
        steps: S, shape (k,).
        middle: The median at each, shape (k,).
        low: The 10th percentile, shape (k,).
        high: The 90th percentile, shape (k,).
    """

    name: str
    steps: Sequence[int]
    middle: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def write_strip(path: Path, pixels: Pixels) -> None:
    """Write images, shape (n, H, W, C), side by side, each magnified by a whole number."""
    large = _magnified(pixels, _STRIP_SIDE)
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
    large = _magnified(pixels, _FRAME_SIDE)
    frames = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in large]
    frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    rest = frames[1:]
    frames[0].save(buffer, "PNG", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)
    write_bytes(path, buffer.getbuffer())


def write_sound_strip(path: Path, sounds: Sounds, sample_rate: int) -> None:
    """Draw waveforms and spectrograms on the way from a sound to another, shape (n, samples).

    Of more than eight, eight that are spread evenly, both ends among them.
    """
    shown = np.unique(np.linspace(0, len(sounds) - 1, MOST_SOUNDS).round().astype(int))
    shown = shown if len(sounds) > MOST_SOUNDS else np.arange(len(sounds))
    figure, axes = subplots(2, len(shown), (1.9 * len(shown) + 0.8, 4.0))
    for column, index in enumerate(shown):
        wave, spectrum = axes[0][column], axes[1][column]
        _draw_wave(wave, sounds[index], sample_rate)
        wave.set_title(f"{index / (len(sounds) - 1):.2f} of the way", fontsize="medium")
        wave.set_xticklabels([])
        _draw_spectrum(spectrum, sounds[index], sample_rate)
        spectrum.set_xlabel("seconds")
        if column > 0:
            wave.set_yticklabels([])
            spectrum.set_yticklabels([])
    axes[0][0].set_ylabel("amplitude")
    axes[1][0].set_ylabel("frequency (Hz)")
    save_figure(figure, path)


def write_psnr(path: Path, panels: Mapping[str, Sequence[Curve]]) -> None:
    """Draw the PSNR of reconstructions against S, one panel for each choice of levels.

    Lines are medians over samples, bands reach from the 10th to the 90th percentile.
    """
    names = sorted({curve.name for curves in panels.values() for curve in curves})
    figure, axes = subplots(1, len(panels), (4.6 * len(panels) + 0.6, 4.2))
    for panel, (title, curves) in zip(axes[0], panels.items(), strict=True):
        for curve in curves:
            style = names.index(curve.name)
            colour = _COLOURS[style % len(_COLOURS)]
            marker = _MARKERS[style % len(_MARKERS)]
            panel.plot(curve.steps, curve.middle, color=colour, marker=marker, label=curve.name)
            panel.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15)
        _set_steps(panel, sorted({s for curve in curves for s in curve.steps}))
        panel.set_title(title, fontsize="medium")
        panel.grid(alpha=0.3)
        panel.sharey(axes[0][0])
    axes[0][0].set_ylabel("PSNR (dB), median and 10 to 90 %")
    axes[0][0].legend(fontsize="small")
    save_figure(figure, path)


def write_image_pairs(path: Path, rows: Mapping[str, Pixels]) -> None:
    """Draw rows of images, each (n, H, W, C), below one another under their names.

    Args:
        path: Where.
        rows: The originals, and what each method made of them; the first eight are shown.
    """
    columns = min(MOST_COLUMNS, max(len(pixels) for pixels in rows.values()))
    figure, axes = subplots(len(rows), columns, (0.85 * columns + 2.2, 0.85 * len(rows) + 0.2))
    for panels, (name, pixels) in zip(axes, rows.items(), strict=True):
        _name_row(panels[0], name)
        for column, panel in enumerate(panels):
            if column < len(pixels):
                panel.imshow(pixels[column], cmap="gray", vmin=0, vmax=255)
            _bare(panel)
    save_figure(figure, path)


def write_sound_pairs(path: Path, rows: Mapping[str, Sounds], sample_rate: int) -> None:
    """Draw rows of spectrograms of sounds, each (n, samples), as :func:`write_image_pairs`."""
    columns = min(MOST_COLUMNS, max(len(sounds) for sounds in rows.values()))
    figure, axes = subplots(len(rows), columns, (1.7 * columns + 2.2, 1.2 * len(rows) + 0.4))
    for panels, (name, sounds) in zip(axes, rows.items(), strict=True):
        _name_row(panels[0], name)
        for column, panel in enumerate(panels):
            if column < len(sounds):
                _draw_spectrum(panel, sounds[column], sample_rate)
            _bare(panel)
    seconds = max(sounds.shape[1] for sounds in rows.values()) / sample_rate
    figure.supxlabel(
        f"spectrograms of {seconds:.2g} s, 0 to {sample_rate // 2} Hz", fontsize="medium"
    )
    save_figure(figure, path)


def _magnified(pixels: Pixels, side: int) -> Pixels:
    scale = max(1, side // max(pixels.shape[1:3]))
    return pixels.repeat(scale, axis=1).repeat(scale, axis=2)


def _draw_wave(panel: Axes, sound: Sounds, sample_rate: int) -> None:
    seconds = np.arange(len(sound)) / sample_rate
    panel.plot(seconds, sound, linewidth=0.5)
    panel.set(xlim=(0, seconds[-1]), ylim=(-1, 1))


def _draw_spectrum(panel: Axes, sound: Sounds, sample_rate: int) -> None:
    # a little above zero, for silence has no logarithm
    panel.specgram(sound + 1e-9, NFFT=256, noverlap=192, Fs=sample_rate, vmin=-120, vmax=-30)
    panel.set_xlim(0, len(sound) / sample_rate)


def _name_row(panel: Axes, name: str) -> None:
    panel.set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")


def _bare(panel: Axes) -> None:
    panel.set(xticks=[], yticks=[])
    for side in panel.spines.values():
        side.set_visible(False)


def _set_steps(panel: Axes, steps: Sequence[int]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(steps, [str(s) for s in steps])
    panel.minorticks_off()
    panel.set_xlabel("sampling steps S")
