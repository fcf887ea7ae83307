"""Figures of interpolations, reconstructions and edits."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fastdpm.data.files import write_bytes
from fastdpm.data.pixels import Pixels, to_pixels, write_png
from fastdpm.data.sound import write_wav
from fastdpm.output.figures import (
    DOTS_PER_INCH,
    GAP,
    MAX_SOUNDS,
    draw_sounds,
    draw_spectrum,
    enlarged,
    magnified,
    pasted,
    save_figure,
    subplots,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fastdpm.data.spec import DataSpec

STRIP, ANIMATION, JOINED, EDITED = "strip.png", "animation.png", "joined.wav", "edited.png"
FILES = (STRIP, ANIMATION, JOINED, EDITED)
MAX_COLUMNS = 8
_MAX_ON_THE_WAY = 9  # odd, so that the middle can be among them
_STRIP_SIDE, _FRAME_SIDE = 96, 256
_FRAME_MS = 160
_PAUSE_SECONDS = 0.2
# A method looks the same in every figure.
_LOOKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "first": ("#0072B2", "o"),
        "second": ("#D55E00", "s"),
        "implicit": ("#009E73", "^"),
        "invertible": ("#AA4499", "D"),
    }
)
_OTHER_LOOK = ("0.3", "x")
_LABEL_WIDTH = 32
_EMPTY_DB = (0.0, 60.0)
_MAX_LEVEL_TICKS = 8
_MAX_DB = 200.0  # an exact reconstruction has no finite PSNR
_MAX_IMAGES = 16
_MIN_WIDTH = 800
_LEFT, _TOP = 84, 52
_STRIPE = 4
_STRIPES = np.array([(0xD5, 0x5E, 0x00), (0xFF, 0xE0, 0xC8)], dtype=np.uint8)

ValuesAtSteps = Mapping[int, Sequence[float]]
Sounds = NDArray[np.float32]


def write_way(folder: Path, samples: NDArray[Any], sample_rate: int) -> Path:
    """Draw the samples of an interpolation, and write an animation or a sound of it.

    Args:
        folder: Receives strip.png, and animation.png for images or joined.wav for sounds.
        samples: Images, shape (n, H, W, C), or sounds, shape (n, samples).
        sample_rate: Of sounds, in Hz.

    Returns:
        The path of strip.png.
    """
    picture = folder / STRIP
    if samples.ndim == 4:
        write_png(picture, pasted(enlarged(samples, _STRIP_SIDE), len(samples)))
        write_animation(folder / ANIMATION, samples)
    else:
        pause = np.zeros((len(samples), round(_PAUSE_SECONDS * sample_rate)), dtype=np.float32)
        joined = np.hstack([samples, pause]).reshape(-1)
        write_wav(folder / JOINED, joined, sample_rate)
        write_sound_strip(picture, samples, sample_rate)
    return picture


def write_animation(path: Path, pixels: Pixels) -> None:
    """Write images, shape (n, H, W, C), as an animated PNG that runs forth and back in a loop."""
    large = enlarged(pixels, _FRAME_SIDE)
    frames = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in large]
    frames += frames[-2:0:-1]
    buffer = io.BytesIO()
    rest = frames[1:]
    frames[0].save(buffer, "PNG", save_all=True, append_images=rest, duration=_FRAME_MS, loop=0)
    write_bytes(path, buffer.getbuffer())


def write_sound_strip(path: Path, sounds: Sounds, sample_rate: int) -> None:
    """Draw waveforms and spectrograms of an interpolation, shape (n, samples).

    At most nine are shown, evenly spaced and with both ends, and with the middle if there is one.
    """
    count = min(len(sounds), _MAX_ON_THE_WAY)
    shown = np.linspace(0, len(sounds) - 1, count).round().astype(int)
    columns = {f"{i / (len(sounds) - 1):.2f} of the way": sounds[i] for i in shown}
    figure, waves = draw_sounds(columns, sample_rate, (1.9, 4.0))
    for wave in waves:
        wave.title.set_fontsize("medium")
        wave.set_xticklabels([])
    save_figure(figure, path)


def write_psnr(path: Path, panels: Mapping[str, Mapping[str, ValuesAtSteps]]) -> None:
    """Draw the PSNR of reconstructions against S, one panel for each choice of levels.

    Lines are medians over the samples that converged, and bands reach from the 10th to the 90th
    percentile. The legend says how many did not converge.

    Args:
        path: A figure, .png, .pdf or .svg.
        panels: The PSNR of each sample in dB, by choice of levels, method (one of
            ``fastdpm.core.inverse.ENCODINGS``) and S. It is NaN if the sample did not converge.
    """
    steps = sorted({s for curves in panels.values() for values in curves.values() for s in values})
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = subplots(rows, columns, (3.9 * columns + 0.6, 3.6 * rows + 0.2))
    places = [panel for row in axes for panel in row]
    ends = []
    for panel, (title, curves) in zip(places, panels.items(), strict=False):
        drawn = [_draw_curve(panel, method, values) for method, values in curves.items()]
        ends += drawn
        if np.isnan(drawn).all():
            panel.text(0.5, 0.5, "none converged", transform=panel.transAxes, ha="center")
        _set_steps(panel, steps)
        panel.set_title(title, fontsize="medium")
        panel.grid(alpha=0.3)
        # Below, where it covers no line and no band.
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize="small")
    for panel in places[len(panels) :]:
        panel.remove()
    for panel in places[: len(panels)]:
        panel.set_ylim(_limits(np.concatenate(ends)))
    for row in axes:
        row[0].set_ylabel("PSNR (dB), median and 10 to 90 %", fontsize="small")
    save_figure(figure, path)


def write_pairs(path: Path, rows: Mapping[str, Tensor], data: DataSpec, title: str = "") -> None:
    """Draw named rows of images, or of spectrograms of sounds.

    Args:
        path: A figure, .png, .pdf or .svg.
        rows: The originals and the result of each method, each (n, C, H, W) or (n, 1, samples) in
            [-1, 1], NaN for a sample that the method lost. The first eight samples are shown.
        data: The kind of data.
        title: The title above the rows.
    """
    image, rate = data.modality == "image", data.sample_rate or 1
    height, length = next(iter(rows.values())).shape[-2:]
    columns = min(MAX_COLUMNS, max(len(samples) for samples in rows.values()))
    wide, high = (0.85, 0.85) if image else (1.7, 1.2)  # inches of a panel
    figure, axes = subplots(len(rows), columns, (wide * columns + 2.2, high * len(rows) + 0.6))
    for panels, (name, samples) in zip(axes, rows.items(), strict=True):
        panels[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize="small")
        for panel, sample in zip(panels, samples, strict=False):
            found = bool(torch.isfinite(sample).all())
            if not found:
                panel.text(0.5, 0.5, "lost", transform=panel.transAxes, ha="center", va="center")
            elif image:
                panel.imshow(to_pixels(sample[None])[0], cmap="gray", vmin=0, vmax=255)
            else:
                draw_spectrum(panel, sample[0].numpy(), rate)
            panel.set(xticks=[], yticks=[], box_aspect=height / length if image else None)
            for side in panel.spines.values():
                side.set(visible=not found, color="0.6", linestyle="--")
    figure.suptitle(title, fontsize="medium")
    if not image:
        below = f"spectrograms of {length / rate:.2g} s, 0 to {rate // 2} Hz"
        figure.supxlabel(below, fontsize="medium")
    save_figure(figure, path)


def _draw_curve(panel: Axes, method: str, values: ValuesAtSteps) -> NDArray[np.float64]:
    """Draw a method's medians and bands; returns the three percentiles at each S, shape (k, 3)."""
    (color, marker), steps = _LOOKS.get(method, _OTHER_LOOK), list(values)
    found = np.array([_percentiles(at) for at in values.values()])
    low, middle, high = found.T
    panel.plot(steps, middle, color=color, marker=marker, label=_label(method, values))
    panel.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    # A band has no width at a single S, or between two where nothing converged.
    panel.vlines(steps, low, high, color=color, alpha=0.4)
    return found


def _percentiles(values: Sequence[float]) -> NDArray[np.float64]:
    """The 10th, 50th and 90th percentile of the values that are not NaN; NaN if there is none."""
    there = [min(value, _MAX_DB) for value in values if not np.isnan(value)]
    return np.percentile(there, (10, 50, 90)) if there else np.full(3, np.nan)


def _label(method: str, values: ValuesAtSteps) -> str:
    """The method and how many samples it lost, in one number if it is the same at every S."""
    samples = len(next(iter(values.values())))
    lost = {steps: int(np.isnan(at).sum()) for steps, at in values.items()}
    counts = set(lost.values())
    if counts == {0}:
        return method
    if len(counts) > 1:
        parts = [f"{count} at S = {steps}" for steps, count in lost.items() if count]
        said = ", ".join(part.replace(" ", "\u00a0") for part in parts)  # lines break between
        return fill(f"{method} (of {samples} lost: {said})", _LABEL_WIDTH)
    (count,) = counts
    return f"{method} ({'none converged' if count == samples else f'{count} of {samples} lost'})"


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of the values that are not NaN, with a margin."""
    there = values[~np.isnan(values)]
    if not len(there):
        return _EMPTY_DB
    margin = max(2.0, 0.12 * float(np.ptp(there)))
    return float(there.min()) - margin, float(there.max()) + margin


def _set_steps(panel: Axes, steps: Sequence[int]) -> None:
    panel.set_xscale("log")
    panel.set_xlim(steps[0] / 1.3, steps[-1] * 1.3)
    many = len(steps) > _MAX_LEVEL_TICKS
    panel.set_xticks(steps, [str(s) for s in steps], rotation=90 if many else 0)
    panel.minorticks_off()
    panel.set_xlabel("sampling steps S")


def write_edits(path: Path, x: Tensor, found: Tensor, mask: Tensor | None, data: DataSpec) -> None:
    """Draw originals, the part that a mask kept, and results, in three rows.

    Shows the first 16 images, with orange stripes where nothing was kept, or the first eight
    sounds or series, shaded there. A column is a sample.

    Args:
        path: A figure, .png, .pdf or .svg.
        x: The originals, in [-1, 1], shape (n, *data shape).
        found: The results, of the same shape.
        mask: True where a sample was painted, broadcast to the data; None for everywhere.
        data: The kind of data.
    """
    rows, painted = {"original": x, "result": found}, None
    if mask is not None:
        rows = {"original": x, "kept": x.masked_fill(mask, 0.0), "result": found}
        painted = torch.broadcast_to(mask, x.shape).any(dim=1).numpy()
    if data.modality == "image":
        _write_edited_images(path, rows, painted)
    else:
        _write_edited_lines(path, rows, painted, data.sample_rate)


def _write_edited_images(
    path: Path, rows: Mapping[str, Tensor], painted: NDArray[np.bool_] | None
) -> None:
    shown = {name: row[:_MAX_IMAGES] for name, row in rows.items()}
    count, _, height, width = next(iter(shown.values())).shape
    scale = max(1, min(_MIN_WIDTH // (count * width), _FRAME_SIDE // max(height, width)))
    images = {name: magnified(to_pixels(row), scale) for name, row in shown.items()}
    if painted is not None:
        where = magnified(painted[:_MAX_IMAGES, ..., None], scale)
        down, right = np.indices(where.shape[1:3])
        stripes = _STRIPES[(down + right) // _STRIPE % 2]  # slanted, of three colors
        images["kept"] = np.where(where, stripes, images["kept"])
    colored = [np.broadcast_to(row, (*row.shape[:-1], 3)) for row in images.values()]
    _write_sheet(path, pasted(np.concatenate(colored), count), list(rows), count)


def _write_edited_lines(
    path: Path,
    rows: Mapping[str, Tensor],
    painted: NDArray[np.bool_] | None,
    sample_rate: int | None,
) -> None:
    shown = {name: row[:MAX_SOUNDS].float().cpu().numpy() for name, row in rows.items()}
    count, _, length = next(iter(shown.values())).shape
    figure, axes = subplots(len(rows), count, (2.8 * count + 1.6, 1.9 * len(rows) + 0.5))
    place = np.arange(length) / (sample_rate or 1)
    for panels, (name, row) in zip(axes, shown.items(), strict=True):
        for j, (panel, sample) in enumerate(zip(panels, row, strict=True)):
            panel.plot(place, sample.T, linewidth=0.5)
            if painted is not None:
                panel.fill_between(
                    place, -1.05, 1.05, where=painted[j], color="0.85", linewidth=0, zorder=0
                )
            panel.set(xlim=(0, place[-1] or 1), ylim=(-1.05, 1.05))
            panel.label_outer()
        panels[0].set_ylabel(name)
    for j, panel in enumerate(axes[0]):
        panel.set_title(f"sample {j}")
    figure.supxlabel("seconds" if sample_rate else "position")
    save_figure(figure, path)


def _write_sheet(path: Path, sheet: Pixels, names: Sequence[str], count: int) -> None:
    """Write a sheet with names of rows and numbers of columns, without resampling."""
    from matplotlib.figure import Figure

    height, width = sheet.shape[0] + _TOP, sheet.shape[1] + _LEFT
    figure = Figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH))
    place = (_LEFT / width, 0, sheet.shape[1] / width, sheet.shape[0] / height)
    panel = figure.add_axes(place)
    panel.imshow(sheet, interpolation="nearest", aspect="auto")
    high, wide = (sheet.shape[0] - GAP) / len(names), (sheet.shape[1] - GAP) / count
    panel.set_yticks(GAP + high * (np.arange(len(names)) + 0.5), names)
    panel.set_xticks(GAP + wide * (np.arange(count) + 0.5), [str(j) for j in range(count)])
    panel.tick_params(length=0, labelsize="small", top=True, labeltop=True, labelbottom=False)
    panel.xaxis.set_label_position("top")
    panel.set_xlabel("sample", fontsize="small")
    for side in panel.spines.values():
        side.set_visible(False)
    save_figure(figure, path)
