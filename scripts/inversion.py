"""Measure the inverse direction on real held-out data: scripts/inversion.py [--sounds FILE].

Writes docs/results/inversion.json, of which `scripts/generate_docs.py` makes a part of the page of
results, and docs/results/digits-terms.png. FILE is a Parquet file of spoken digits; without it the
earlier figures of sounds stay. Every figure is written as soon as it is measured, and those that
stand there are kept, so a killed run goes on: delete the file to measure anew. Needs
fastdpm[train,diffusers]; some two hours on two CPU cores, nearly all of it for sounds.
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
from fastdpm.core.choices import spacing_names
from fastdpm.data.files import write_text
from fastdpm.data.inputs import read_samples
from fastdpm.inverse.likelihood import Bound, grey_levels_of
from fastdpm.output.figures_likelihood import write_terms

RESULTS = Path(__file__).parent.parent / "docs" / "results"
CHOICES = {"step": levels_step, "var": levels_var}
ALL = tuple(product(CHOICES, spacing_names()))
QUADRATIC = ("step", "quadratic")
WITHIN = 1e-4

Row = dict[str, Any]


class Figures:
    """What was measured, in the file that is written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tables: dict[str, list[Row]] = {}
        if path.is_file():
            self.tables = json.loads(path.read_text(encoding="utf-8"))

    def add(self, table: str, asked: Row, measure: Callable[..., Row], *given: Any) -> None:
        """Measure what is asked, ``measure(*given)``, unless it stands there."""
        rows = self.tables.setdefault(table, [])
        if any(row | asked == row for row in rows):
            return
        rows.append(asked | measure(*given))
        print(table, rows[-1], flush=True)
        write_text(self.path, json.dumps(self.tables, indent=1) + "\n")


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sounds", type=Path, help="Parquet file of spoken digits")
    stated = parser.parse_args()
    figures = Figures(RESULTS / "inversion.json")
    measure_digits(figures)
    if stated.sounds is not None:
        measure_sounds(figures, stated.sounds)


def measure_digits(figures: Figures) -> None:
    """Images: the approximate encoders, the exact ones and the likelihood."""
    model = load_model("digits")
    x = read_samples(Path("sklearn:digits-test"), model.config.data).x
    for method, num_steps in (("first", 50), ("second", 33)):
        for choice, levels in chosen_levels(model, (num_steps,), ALL):
            asked = {"method": method, **choice, "n": 256}
            figures.add("psnr", asked, approximate, model, x[:256], levels, method)
    for spacing in ("leading", "trailing"):
        asked = {"method": "diffusers", "levels": "", "spacing": spacing, "S": 50, "n": 256}
        figures.add("psnr", asked, by_diffusers, model, x[:256], spacing)
    for method in ("invertible", "implicit"):
        add_round_trips(figures, model, x, method, (10, 50), ALL)
    add_round_trips(figures, model, x, "implicit", (10, 50), ALL, last_row=False)
    add_likelihoods(figures, model, x)


def measure_sounds(figures: Figures, path: Path) -> None:
    """Sounds; around them lies silence, where the last row has no inverse."""
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
    """Levels, and how they are named in a row."""
    for num_steps, (levels, spacing) in product(steps, choices):
        asked = {"levels": levels, "spacing": spacing, "S": num_steps}
        yield asked, CHOICES[levels](model.schedule, num_steps, spacing)


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
    """How near decode(encode(x)) comes to x, by choice of levels."""
    for choice, levels in chosen_levels(model, steps, choices):
        asked = {"method": method, **choice, "last_row": last_row, "n": len(x)}
        chosen = levels if last_row else levels[:-1]
        figures.add(model.config.name, asked, round_trip, model, x, chosen, method)


def round_trip(model: Model, x: Tensor, levels: NoiseLevels, method: str) -> Row:
    """One choice, each sample by itself."""
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
    """An encoder that loses something, and its evaluations both ways."""
    latents = encode(model, x, levels, method)
    evaluations = int(latents.evaluations[0]) + latents.plan.num_rows
    return psnr(decode(model, latents), x) | {"evaluations": evaluations}


def psnr(y: Tensor, x: Tensor) -> Row:
    """Mean over samples and its standard error, in dB; data is 2 from peak to peak."""
    error = (y.clamp(-1, 1) - x).square().flatten(1).mean(1).clamp_min(1e-12)
    values = 10 * torch.log10(4 / error)
    return {"psnr": float(values.mean()), "error": float(values.std() / len(values) ** 0.5)}


@torch.no_grad()
def by_diffusers(model: Model, x: Tensor, spacing: str, num_steps: int = 50) -> Row:
    """DDIMInverseScheduler, then DDIMScheduler, on the same network."""
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
        warnings.simplefilter("ignore")  # diffusers' own
        for name in ("DDIMInverseScheduler", "DDIMScheduler"):
            scheduler: Any = getattr(diffusers, name)(**settings)
            scheduler.set_timesteps(num_steps)
            for t in scheduler.timesteps:
                eps = network(state, t.float().repeat(len(state)))  # type: ignore[call-arg]
                state = scheduler.step(eps, t, state).prev_sample
    return psnr(state, x) | {"evaluations": 2 * num_steps}


def add_likelihoods(figures: Figures, model: Model, x: Tensor) -> None:
    """Bits per dimension by choice of levels, and where they are spent at S = 20."""
    drawn: dict[str, Bound] = {}
    for asked, levels in chosen_levels(model, (10, 20, 50), ALL):
        figures.add("likelihood", asked | {"n": len(x)}, bits, model, x, levels)
        if asked["S"] == 20:
            drawn[levels.label] = bound(model, x, levels)
    write_terms(RESULTS / "digits-terms.png", drawn)
    every = levels_all(model.schedule)
    asked = {"levels": "all", "spacing": "", "S": every.num_steps, "n": len(x)}
    figures.add("likelihood", asked, bits, model, x, every)


def bits(model: Model, x: Tensor, levels: NoiseLevels) -> Row:
    """Mean and standard error over samples."""
    found = bound(model, x, levels)
    return {"evaluations": levels.num_steps, "bits": found.mean, "error": found.error}


def bound(model: Model, x: Tensor, levels: NoiseLevels) -> Bound:
    """With the forward variance."""
    return bits_per_dimension(model, x, levels, grey_levels_of(model.config.data)[0])


if __name__ == "__main__":
    main()
