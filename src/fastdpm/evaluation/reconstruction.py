"""Reconstruction errors: encode data, decode it, and compare, sample by sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdpm.core.arguments import checked
from fastdpm.core.choices import find_choice
from fastdpm.core.guidance import NO_GUIDANCE, GuidanceLike, GuidanceScale
from fastdpm.core.levels import NoiseLevels
from fastdpm.core.recipe import Recipe
from fastdpm.core.text import csv_table
from fastdpm.data.condition import ClassLabels, Condition
from fastdpm.data.files import write_json, write_text
from fastdpm.evaluation.speech import LEAST_RATE, compare_sounds, least_length
from fastdpm.inverse.encoding import decode, encode
from fastdpm.inverse.latents_file import select
from fastdpm.models.model import Model
from fastdpm.output.figures_inverse import MAX_COLUMNS, write_pairs, write_psnr
from fastdpm.output.folder import made_by
from fastdpm.sampling.implicit import ImplicitOptions
from fastdpm.sampling.state import Callback

RECORD, TABLE = "reconstruct.json", "reconstruct.csv"
CURVES, SAMPLES = "psnr.png", "samples.png"
FILES = (RECORD, TABLE, CURVES, SAMPLES)

Values = tuple[float, ...]


class Summary(NamedTuple):
    """Summary over all samples that have a latent.

    Attributes:
        psnr: Median PSNR in dB.
        relative: Largest relative error.
        deviation: Standard deviation of all latents together.
    """

    psnr: float
    relative: float
    deviation: float


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """Reconstructions of n samples. Tuples hold one value per sample; NaN if it has no latent.

    Attributes:
        method: The encoding method.
        plan: Label of the plan that decoded the samples.
        fingerprint: Fingerprint of that plan.
        x: Reconstructions, shape (n, *data shape), float32; not clipped to [-1, 1].
        psnr: Peak signal-to-noise ratio in dB, 10 log10(4 / mean squared error), of values clipped
            to [-1, 1]; infinite if nothing differs. For a latent model, of the decoded data.
        relative: Norm of the error divided by the norm of the data, both not clipped; infinite
            for data that is 0 everywhere if its reconstruction is not.
        evaluations: Network evaluations of encoding.
        decoding: Network evaluations of decoding.
        residual: Largest relative residual of a row; 0 for methods that solve nothing.
        row: The row of the plan that did not converge; -1 if all rows did.
        deviation: Standard deviation of the latent; near 1 for data like the training data.
        snr: For sounds, the signal-to-noise ratio in dB, NaN for silence that is reconstructed
            exactly; None for other data.
        log_mel: For sounds, the mean absolute difference of log-mel spectrograms in nepers; None
            for other data, and for sounds that are too short or whose sample rate is too low.
        guidance: The guidance of encoding and decoding.
    """

    method: str
    plan: str
    fingerprint: str
    x: Tensor
    psnr: Values
    relative: Values
    evaluations: tuple[int, ...]
    decoding: int
    residual: Values
    row: tuple[int, ...]
    deviation: Values
    snr: Values | None
    log_mel: Values | None
    guidance: GuidanceScale = NO_GUIDANCE

    @property
    def summary(self) -> Summary | None:
        """Summary over all samples; None if none has a latent."""
        kept = ~np.isnan(self.psnr)
        if not kept.any():
            return None
        psnr, relative, deviation = (
            np.array(values)[kept] for values in (self.psnr, self.relative, self.deviation)
        )
        together = float(np.sqrt(np.mean(np.square(deviation))))
        return Summary(float(np.median(psnr)), float(np.max(relative)), together)

    @property
    def total_evaluations(self) -> float:
        """Network evaluations per sample: of encoding, and of decoding if there is a latent."""
        return float(np.mean(self.evaluations) + self.decoding * np.mean(~np.isnan(self.psnr)))

    def records(self) -> list[dict[str, Any]]:
        """Values of each sample for JSON; None for NaN, "inf" and "-inf" as text."""
        columns: dict[str, Iterable[float] | None] = {
            "psnr_db": self.psnr,
            "relative_error": self.relative,
            "encoding_evaluations": self.evaluations,
            "total_evaluations": [encoding + self.decoding for encoding in self.evaluations],
            "residual": self.residual,
            "row_not_converged": [row if row >= 0 else math.nan for row in self.row],
            "latent_std": self.deviation,
            "snr_db": self.snr,
            "log_mel_nepers": self.log_mel,
        }
        used = {name: values for name, values in columns.items() if values is not None}
        rows = zip(*used.values(), strict=True)
        return [{name: _plain(v) for name, v in zip(used, row, strict=True)} for row in rows]

    def not_converged(self, names: list[str]) -> list[str]:
        """One line for each sample with a row that did not converge: name, row and residual."""
        return [
            f"{name}: row {row}, residual {residual:.2g}"
            for name, row, residual in zip(names, self.row, self.residual, strict=True)
            if row >= 0
        ]


@checked
def reconstruct(
    model: Model,
    x: Tensor,
    levels: NoiseLevels,
    method: str = "invertible",
    *,
    solver: ImplicitOptions | None = None,
    class_labels: ClassLabels | None = None,
    condition: Condition | None = None,
    guidance_scale: GuidanceLike | None = None,
    batch_size: int | None = None,
    callback: Callback | None = None,
) -> Reconstruction:
    """Encode data, decode it, and measure the reconstruction error.

    Args:
        model: The model that encodes and decodes.
        x: Data in [-1, 1], shape (n, *data shape); latent states of a latent model.
        levels: S + 1 levels in sampling order.
        method: Encoding method; see :func:`fastdpm.inverse.encoding.encode`.
        solver: How implicit rows are solved; for the method "implicit" only.
        class_labels: For models with classes, labels from 0 or names: one for all samples, or m of
            them; sample i uses label i mod m.
        condition: Condition of any other model; see :func:`fastdpm.inverse.encoding.encode`.
        guidance_scale: Scale of classifier-free guidance; see there.
        batch_size: Samples at a time.
        callback: Called with a :class:`fastdpm.sampling.state.SamplingState` after each row of
            encoding.

    Raises:
        InvalidArgumentError: If the data does not fit the model, or an argument does not fit.
        SamplingError: If the network returns something unusable.
    """
    latents = encode(
        model,
        x,
        levels,
        method,
        solver=solver,
        class_labels=class_labels,
        condition=condition,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        callback=callback,
    )
    kept = latents.usable
    back = torch.full(x.shape, torch.nan, device="cpu")
    if kept.any():
        back[kept] = decode(model, select(latents, kept), batch_size)
    real = x.detach().float().cpu()
    size = model.batch_size(batch_size, latents.condition)
    shown, cut = _finished(model, real, size), _finished(model, back, size)
    error = _power(cut - shown)
    data, sound = model.config.data, model.config.data.modality == "audio"
    return Reconstruction(
        method=method,
        plan=latents.plan.label,
        fingerprint=latents.plan.fingerprint,
        x=back,
        psnr=tuple((10 * torch.log10(4 / error)).tolist()),
        relative=tuple((_power(back - real) / _power(real)).sqrt().tolist()),
        evaluations=tuple(latents.evaluations.tolist()),
        decoding=latents.decoding_evaluations,
        residual=tuple(latents.residual.double().tolist()),
        row=tuple(latents.row.tolist()),
        deviation=tuple(latents.noise.double().flatten(1).std(dim=1).tolist()),
        snr=tuple((10 * torch.log10(_power(shown) / error)).tolist()) if sound else None,
        log_mel=_log_mel(shown, cut, kept, data.sample_rate or 0) if sound else None,
        guidance=latents.guidance,
    )


def recipe_grid(
    recipe: Recipe,
    counts: Iterable[int],
    levels: Iterable[str] = (),
    spacings: Iterable[str] = (),
) -> dict[tuple[str, int], Recipe]:
    """Recipes for every choice of levels at every S, by the title of the choice and S.

    Args:
        recipe: Provides everything else.
        counts: Values of S.
        levels: Ways to choose levels, such as "var" and "step"; by default the recipe's.
        spacings: Ways to space them, such as "linear"; by default the recipe's.

    Raises:
        InvalidArgumentError: If a choice does not exist.
    """
    pairs = product(tuple(levels) or (recipe.levels,), tuple(spacings) or (recipe.spacing,))
    return {
        (find_choice(kind, space).title, count): recipe.replace(
            num_steps=count, levels=kind, spacing=space
        )
        for (kind, space), count in product(pairs, sorted(set(counts)))
    }


class Found(NamedTuple):
    """A reconstruction, with its choice of levels and its S."""

    choice: str
    num_steps: int
    result: Reconstruction


def write_reconstructions(
    folder: Path, model: Model, x: Tensor, inputs: Sequence[str], found: Sequence[Found]
) -> None:
    """Write the record, the table and the figures of reconstructions of the same data.

    Args:
        folder: ``RECORD``, ``TABLE``, ``CURVES`` and ``SAMPLES`` are written here.
        model: The model that made the reconstructions.
        x: The data, shape (n, *data shape).
        inputs: Name of each sample in the files.
        found: The reconstructions. The figure of samples shows the first choice of levels at the
            smallest and the largest S.
    """
    results = [
        {
            "levels": one.choice,
            "S": one.num_steps,
            "by": one.result.method,
            "plan": {"label": one.result.plan, "fingerprint": one.result.fingerprint},
            "guidance": one.result.guidance.record,
            "samples": [
                {"input": name, **record}
                for name, record in zip(inputs, one.result.records(), strict=True)
            ],
        }
        for one in found
    ]
    head = {"format": "fastdpm-reconstruction", "version": 1}
    write_json(folder / RECORD, head | made_by(model.config) | {"results": results})
    write_text(folder / TABLE, _csv(results))
    panels: dict[str, dict[str, dict[int, Values]]] = {}
    for one in found:
        methods = panels.setdefault(one.choice, {})
        methods.setdefault(one.result.method, {})[one.num_steps] = one.result.psnr
    write_psnr(folder / CURVES, panels)
    first, counts = found[0].choice, [one.num_steps for one in found]
    rows = {"original": x[:MAX_COLUMNS]}
    for one in found:
        if one.choice == first and one.num_steps in (min(counts), max(counts)):
            name = f"{one.result.method}, S = {one.num_steps}"
            rows[name] = one.result.x[:MAX_COLUMNS].clamp(-1, 1)
    write_pairs(folder / SAMPLES, rows, model.config.data, first)


def _csv(results: Sequence[Mapping[str, Any]]) -> str:
    """One line for each sample of each reconstruction."""
    lines = [
        {"levels": result["levels"], "S": result["S"], "by": result["by"], **sample}
        for result in results
        for sample in result["samples"]
    ]
    return csv_table(list(lines[0]), lines)


def _finished(model: Model, x: Tensor, size: int) -> Tensor:
    """Decode the states of a latent model, and clip to [-1, 1]; on the CPU."""
    return torch.cat(
        [model.finished(part.to(model.device)).cpu() for part in torch.split(x, size)]
    )


def _power(x: Tensor) -> Tensor:
    """Mean square of each sample, shape (n,), float64."""
    return x.double().square().flatten(1).mean(dim=1)


def _log_mel(real: Tensor, back: Tensor, kept: Tensor, sample_rate: int) -> Values | None:
    if sample_rate < LEAST_RATE or real.shape[-1] < least_length(sample_rate):
        return None
    found = torch.full((len(real),), torch.nan, dtype=torch.float64, device="cpu")
    if kept.any():
        pairs = (real[kept, 0].numpy(), back[kept, 0].numpy())
        scores = compare_sounds(*pairs, sample_rate, metrics=["log_mel_error"])
        found[kept] = torch.from_numpy(scores["log_mel_error"])
    return tuple(found.tolist())


def _plain(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)
