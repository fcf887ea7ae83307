"""Measure what encoding and decoding keep of real held-out data: scripts/inversion.py [SOUNDS].

Writes docs/results/inversion.json, from which `scripts/generate_docs.py` makes a part of the page
of results. SOUNDS is a Parquet file of spoken digits; without it the earlier figures of sounds are
kept. Needs fastdpm[train,diffusers]; an hour on two CPU cores, most of it for sounds.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdpm import Model, NoiseLevels, levels_step, levels_var, load_model
from fastdpm.core.levels import SPACINGS
from fastdpm.evaluation.sources import open_data
from fastdpm.models.latents import decode, encode

OUT = Path(__file__).parent.parent / "docs" / "results" / "inversion.json"
CHOICES = {"step": levels_step, "var": levels_var}
WITHIN = 1e-4
QUADRATIC = ("step", "quadratic")
ALL = tuple((levels, spacing) for levels in CHOICES for spacing in SPACINGS)


def main(sounds: str | None) -> None:
    """Measure and write."""
    earlier = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    digits = load_model("digits")
    images = read(digits, "sklearn:digits-test", 360)
    found = {
        "psnr": psnr_table(digits, images[:256]),
        "digits": round_trips(digits, images, ("invertible", "implicit"), (10, 50)),
        "spoken-digits": earlier.get("spoken-digits", []),
    }
    if sounds is not None:
        model = load_model("spoken-digits")
        recordings = read(model, sounds, 32)
        rows = round_trips(model, recordings, ("invertible",), (10, 50))
        rows += round_trips(model, recordings[:8], ("implicit",), (10, 50), choices=(QUADRATIC,))
        found["spoken-digits"] = rows
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def read(model: Model, path: str, count: int) -> Tensor:
    """The first held-out samples, as the model's data."""
    source = open_data(path, model.config.data, count, scale=True)
    batches = [torch.from_numpy(values) for values in source.batches(0, source.count(count))]
    values = torch.cat(batches)
    return values if values.is_floating_point() else values.float() / 127.5 - 1


def round_trips(
    model: Model,
    x: Tensor,
    methods: tuple[str, ...],
    steps: tuple[int, ...],
    choices: tuple[tuple[str, str], ...] = ALL,
) -> list[dict[str, Any]]:
    """How near decode(encode(x)) comes to x, by method and choice of levels."""
    rows = []
    for method in methods:
        for num_steps in steps:
            for levels, spacing in choices:
                chosen = CHOICES[levels](model.schedule, num_steps, spacing)
                rows.append(round_trip(model, x, chosen, method))
                rows[-1] |= {"levels": levels, "spacing": spacing, "S": num_steps}
                print(rows[-1], flush=True)
    return rows


def round_trip(model: Model, x: Tensor, levels: NoiseLevels, method: str) -> dict[str, Any]:
    """One choice, each sample by itself."""
    began = time.perf_counter()
    latents = encode(model, x, levels, method)
    done = latents.row < 0
    back = decode(model, latents)
    error = (back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    within = done & (error <= WITHIN)
    return {
        "method": method,
        "n": len(x),
        "within": float(within.float().mean()),
        "largest": float(error[done].max()) if done.any() else None,
        "evaluations": float(latents.evaluations.float().mean()),
        "std": float(latents.noise[done].std()) if done.any() else None,
        "failed": [
            {"sample": i, "row": int(latents.row[i]), "residual": float(latents.residual[i])}
            for i in torch.nonzero(~done).flatten().tolist()
        ],
        "seconds": round(time.perf_counter() - began, 1),
    }


def psnr_table(model: Model, x: Tensor) -> list[dict[str, Any]]:
    """First and second order against diffusers' inversion, at 100 evaluations in both ways."""
    rows = []
    for method, num_steps in (("first", 50), ("second", 33)):
        for levels, spacing in ALL:
            chosen = CHOICES[levels](model.schedule, num_steps, spacing)
            latents = encode(model, x, chosen, method)
            evaluations = int(latents.evaluations[0]) + latents.plan.num_rows
            row = {"method": method, "levels": levels, "spacing": spacing, "S": num_steps}
            rows.append(row | psnr(decode(model, latents), x) | {"evaluations": evaluations})
            print(rows[-1], flush=True)
    for spacing in ("leading", "trailing"):
        row = {"method": "diffusers", "levels": "", "spacing": spacing, "S": 50}
        rows.append(row | psnr(by_diffusers(model, x, spacing), x) | {"evaluations": 100})
        print(rows[-1], flush=True)
    return rows


def psnr(y: Tensor, x: Tensor) -> dict[str, float | int]:
    """Mean over samples and its standard error, in dB; data is 2 from peak to peak."""
    error = (y.clamp(-1, 1) - x).square().flatten(1).mean(1).clamp_min(1e-12)
    values = 10 * torch.log10(4 / error)
    return {
        "n": len(x),
        "psnr": float(values.mean()),
        "error": float(values.std() / len(values) ** 0.5),
    }


@torch.no_grad()
def by_diffusers(model: Model, x: Tensor, spacing: str, num_steps: int = 50) -> Tensor:
    """DDIMInverseScheduler, then DDIMScheduler, on the same network."""
    import diffusers

    settings: dict[str, Any] = {
        "num_train_timesteps": model.schedule.num_train_steps,
        "trained_betas": model.schedule.betas.tolist(),
        "timestep_spacing": spacing,
        "clip_sample": False,
    }
    network = model.denoiser()
    state = x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own
        for name in ("DDIMInverseScheduler", "DDIMScheduler"):
            scheduler: Any = getattr(diffusers, name)(**settings)
            scheduler.set_timesteps(num_steps)
            for t in scheduler.timesteps:
                eps = network(state, t.float().repeat(len(state)))  # type: ignore[call-arg]
                state = scheduler.step(eps, t, state).prev_sample
    return state


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
