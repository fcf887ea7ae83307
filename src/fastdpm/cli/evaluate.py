"""``fastdpm evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.evaluation.scores import Evaluation
    from fastdpm.models.find import FoundModel


def evaluate(
    *,
    samples: Annotated[
        str,
        typer.Argument(
            help="A model as `sample` takes it, or samples: a folder, zip or Parquet file, or an"
            " .npz file of uint8 images (n, H, W, C) or of floats in [-1, 1].",
            metavar="MODEL|SAMPLES",
        ),
    ] = "digits",
    checkpoint: choices.Checkpoint = None,
    against: choices.Against = None,
    n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "-n",
            help="Samples; by default 10,000 images, 1,000 sounds or 100 recordings of a vocoder.",
            min=1,
        ),
    ] = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    sampling: choices.Sampling,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    cache: choices.CacheFolder = None,
    scale_to_peak: Annotated[
        bool,
        Panel.MEASUREMENT.option(
            "--scale-to-peak",
            help="Scale the sounds to the peak of the training, as references are; for real"
            " recordings. Samples are measured at their own level.",
        ),
    ] = False,
    save: Annotated[Path | None, Panel.OUTPUT.option(help="Save the result as JSON.")] = None,
    save_statistics: Annotated[
        Path | None,
        Panel.OUTPUT.option(
            help="Save the statistics of data to a .safetensors file, for --against, and measure"
            " nothing."
        ),
    ] = None,
) -> None:
    """Measure a model or samples against real data; every figure has its standard error.

    Samples, features, statistics and results are kept in a cache, so nothing is computed twice
    and an interrupted run goes on where it was.
    """
    from fastdpm.data.files import check_place, write_json
    from fastdpm.evaluation import evaluate as stages
    from fastdpm.evaluation.drawn import DrawOptions

    kept = choices.open_cache(cache)
    if save is not None and save_statistics is not None:
        raise InvalidArgumentError("--save-statistics measures nothing that --save could keep")
    for path in (save, save_statistics):
        if path is not None:
            check_place(path)
    measured = _found(samples, checkpoint)
    if isinstance(measured, str):
        machine.use_stated_threads()
    else:
        machine.use_threads(measured.config, n, batch_size)
    recipe, plan = _how_to_sample(measured, sampling)
    with choices.keeping(kept):
        if save_statistics is not None:
            measuring = stages.MeasureOptions(
                against, n, features, inception, machine.device, kept
            )
            kind = stages.save_statistics(samples, save_statistics, measuring)
            console.print(f"statistics of {kind.label}, {kind.network}: {save_statistics}")
            return
        found = stages.evaluate(
            measured,
            against,
            n=n,
            recipe=recipe,
            plan=plan,
            features=features,
            inception=inception,
            options=DrawOptions(seed, precision, batch_size, machine.device),
            cache=kept,
            progress=True,
            scale_to_peak=scale_to_peak,
        )
    _print(found)
    if save is not None:
        write_json(save, found.to_dict())
        console.print(f"saved to {save}")


def _found(samples: str, checkpoint: Path | None) -> str | FoundModel:
    """The model, or the samples as they were named."""
    from fastdpm.models.find import find_model, is_model

    is_one = checkpoint is not None or is_model(samples)
    return find_model(samples, checkpoint) if is_one else samples


def _how_to_sample(
    samples: str | FoundModel, sampling: choices.Sampling
) -> tuple[Recipe | None, Plan | None]:
    """Recipe and plan of a model; neither for samples that were drawn elsewhere."""
    if not isinstance(samples, str):
        return sampling.choose(samples.config.recipe)
    if sampling.names():
        raise InvalidArgumentError(
            f"{samples} is no model, so {' and '.join(sampling.names())} would change nothing:"
            " drop it"
        )
    return None, None


def _print(found: Evaluation) -> None:
    from rich.table import Table

    table = Table("metric", "value ± standard error", "better")
    for metric in found.metrics:
        table.add_row(metric.name, found.scores[metric.key].text, metric.better)
    console.print(f"{found.n:,} samples of {found.samples}, against {found.against}")
    console.print(table)
    print_notes(found.notes)
    if found.seconds is not None and found.evaluations is not None:
        console.print(
            f"drawn in {found.seconds:.1f} s, {found.evaluations:g} network evaluations each"
        )
