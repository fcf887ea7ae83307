"""Measure the inverse direction on real held-out data: scripts/inversion.py [--sounds FILE].

Writes docs/results/inversion.json, which `scripts/generate_docs.py` turns into a part of the page
of results, and docs/results/digits-terms.png. FILE is a Parquet file of spoken digits; without it,
the earlier results for sounds are kept. Every result is written as soon as it is measured, and
existing ones are kept, so an interrupted run continues. To measure again, delete the file. Needs
the extras `train` and `diffusers`. Takes about two hours on two CPU cores, mostly for sounds.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdpm import (
    Model,
    NoiseLevels,
    bits_per_dimension,
    decode,
    encode,
    levels_step,
    levels_var,
    load_model,
)
from fastdpm.core import levels_all
from fastdpm.data.files import write_text
from fastdpm.data.inputs import read_samples
from fastdpm.inverse.likelihood import Bound, grey_levels_of
from fastdpm.output.figures_likelihood import write_terms

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CHOICES: dict[str, Callable[..., NoiseLevels]] = {"step": levels_step, "var": levels_var}
ALL = tuple(product(CHOICES, ("linear", "quadratic")))
QUADRATIC = ("step", "quadratic")
WITHIN = 1e-4

Row = dict[str, Any]


class Figures:
    """Results, written to a file after each measurement."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[str, list[Row]] = {}
        if path.is_file():
            self.tables = json.loads(path.read_text(encoding="utf-8"))

    def add(self, table: str, settings: Row, measure: Callable[..., Row], *arguments: Any) -> None:
        """Add ``measure(*arguments)`` unless the table has a row with these settings."""
        rows = self.tables.setdefault(table, [])
        if any(row | settings == row for row in rows):
            return
        rows.append(settings | measure(*arguments))
        print(table, rows[-1], flush=True)
        write_text(self.path, json.dumps(self.tables, indent=1) + "\n")


def main() -> None:
    """Measure the missing results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sounds", type=Path, help="Parquet file of spoken digits")
    stated = parser.parse_args()
    figures = Figures(RESULTS / "inversion.json")
    measure_digits(figures)
    if stated.sounds is not None:
        measure_sounds(figures, stated.sounds)


def measure_digits(figures: Figures) -> None:
    """Measure images: approximate and exact encoders, and the likelihood."""
    model = load_model("digits")
    x = read_samples(Path("sklearn:digits-test"), model.config.data).x
    for method, num_steps in (("first", 50), ("second", 33)):
        for choice, levels in chosen_levels(model, (num_steps,), ALL):
            settings = {"method": method, **choice, "n": 256}
            figures.add("psnr", settings, approximate, model, x[:256], levels, method)
    for spacing in ("leading", "trailing"):
        settings = {"method": "diffusers", "levels": "", "spacing": spacing, "S": 50, "n": 256}
        figures.add("psnr", settings, by_diffusers, model, x[:256], spacing)
    for method in ("invertible", "implicit"):
        add_round_trips(figures, model, x, method, (10, 50), ALL)
    add_round_trips(figures, model, x, "implicit", (10, 50), ALL, last_row=False)
    add_likelihoods(figures, model, x)


def measure_sounds(figures: Figures, path: Path) -> None:
    """Measure sounds, which are padded with silence, where the last row has no inverse."""
    model = load_model("spoken-digits")
    x = read_samples(path, model.config.data, resize=True, n=100).x
    add_round_trips(figures, model, x, "implicit", (10, 50), (QUADRATIC,), last_row=False)
    add_round_trips(figures, model, x[:30], "invertible", (10, 50), ALL)
    add_round_trips(figures, model, x[:4], "implicit", (10,), (QUADRATIC,))
    rest = [choice for choice in ALL if choice != QUADRATIC]
    add_round_trips(figures, model, x[:10], "implicit", (50,), rest, last_row=False)


def chosen_levels(
    model: Model, steps: tuple[int, ...], choices: Any
) -> Iterator[tuple[Row, NoiseLevels]]:
    """Yield levels and the settings that name them in a row."""
    for num_steps, (levels, spacing) in product(steps, choices):
        settings = {"levels": levels, "spacing": spacing, "S": num_steps}
        yield settings, CHOICES[levels](model.schedule, num_steps, spacing)


def add_round_trips(
    figures: Figures,
    model: Model,
    x: Tensor,
    method: str,
    steps: tuple[int, ...],
    choices: Any,
    *,
    last_row: bool = True,
) -> None:
    """Measure the error of decode(encode(x)) for each choice of levels."""
    for choice, levels in chosen_levels(model, steps, choices):
        settings = {"method": method, **choice, "last_row": last_row, "n": len(x)}
        chosen = levels if last_row else levels[:-1]
        figures.add(model.config.name, settings, round_trip, model, x, chosen, method)


def round_trip(model: Model, x: Tensor, levels: NoiseLevels, method: str) -> Row:
    """Encode and decode x over one choice of levels."""
    began = time.perf_counter()
    latents = encode(model, x, levels, method)
    done = latents.row < 0
    back = decode(model, latents)
    error = (back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    return {
        "within": float((done & (error <= WITHIN)).float().mean()),
        "largest": float(error[done].max()) if done.any() else None,
        "evaluations": float(latents.evaluations.float().mean()),
        "std": float(latents.noise[done].std()) if done.any() else None,
        "failed": [
            {"sample": i, "row": int(latents.row[i]), "residual": float(latents.residual[i])}
            for i in torch.nonzero(~done).flatten().tolist()
        ],
        "seconds": round(time.perf_counter() - began, 1),
    }


def approximate(model: Model, x: Tensor, levels: NoiseLevels, method: str) -> Row:
    """Measure an approximate encoder; evaluations count both directions."""
    latents = encode(model, x, levels, method)
    evaluations = int(latents.evaluations[0]) + latents.plan.num_rows
    return psnr(decode(model, latents), x) | {"evaluations": evaluations}


def psnr(y: Tensor, x: Tensor) -> Row:
    """Return the mean PSNR in dB and its standard error, for data in [-1, 1]."""
    error = (y.clamp(-1, 1) - x).square().flatten(1).mean(1).clamp_min(1e-12)
    values = 10 * torch.log10(4 / error)
    return {"psnr": float(values.mean()), "error": float(values.std() / len(values) ** 0.5)}


@torch.no_grad()
def by_diffusers(model: Model, x: Tensor, spacing: str, num_steps: int = 50) -> Row:
    """Encode with DDIMInverseScheduler and decode with DDIMScheduler on the same network."""
    import diffusers

    settings: dict[str, Any] = {
        "num_train_timesteps": model.schedule.num_train_steps,
        "trained_betas": model.schedule.betas.tolist(),
        "timestep_spacing": spacing,
        "clip_sample": False,
    }
    network = model.noise_predictor()
    state = x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of diffusers
        for name in ("DDIMInverseScheduler", "DDIMScheduler"):
            scheduler: Any = getattr(diffusers, name)(**settings)
            scheduler.set_timesteps(num_steps)
            for t in scheduler.timesteps:
                eps = network(state, t.float().repeat(len(state)))  # type: ignore[call-arg]
                state = scheduler.step(eps, t, state).prev_sample
    return psnr(state, x) | {"evaluations": 2 * num_steps}


def add_likelihoods(figures: Figures, model: Model, x: Tensor) -> None:
    """Measure bits per dimension for each choice of levels, and draw the terms at S = 20."""
    drawn: dict[str, Bound] = {}
    for settings, levels in chosen_levels(model, (10, 20, 50), ALL):
        figures.add("likelihood", settings | {"n": len(x)}, bits, model, x, levels)
        if settings["S"] == 20:
            drawn[levels.label] = bound(model, x, levels)
    write_terms(RESULTS / "digits-terms.png", drawn)
    every = levels_all(model.schedule)
    settings = {"levels": "all", "spacing": "", "S": every.num_steps, "n": len(x)}
    figures.add("likelihood", settings, bits, model, x, every)


def bits(model: Model, x: Tensor, levels: NoiseLevels) -> Row:
    """Return the mean over samples and its standard error."""
    found = bound(model, x, levels)
    return {"evaluations": levels.num_steps, "bits": found.mean, "error": found.error}


def bound(model: Model, x: Tensor, levels: NoiseLevels) -> Bound:
    """Compute the bound with the forward variance."""
    return bits_per_dimension(model, x, levels, grey_levels_of(model.config.data)[0])


if __name__ == "__main__":
    main()
