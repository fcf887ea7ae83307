"""``fastdpm evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices, recipes
from fastdpm.cli.expand import OneOf
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import check_output
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rich.table import Table

    from fastdpm.evaluation.scores import Evaluation
    from fastdpm.models.find import FoundModel


DryRun = Annotated[
    bool,
    Panel.COMPUTATION.option(
        "--dry-run", help="Print an estimate of the network evaluations and the time, then stop."
    ),
]


def evaluate(
    *,
    samples: Annotated[
        str,
        typer.Argument(
            help="A model, as `sample` takes it, or samples: a folder, zip or Parquet file, or an"
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
            help="Samples; by default 10,000 images, 1,000 sounds or 100 recordings of a model,"
            " and all samples of files.",
            min=1,
        ),
    ] = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    sampling: recipes.Sampling,
    class_labels: choices.ClassLabels = None,
    guiding: recipes.Guiding,
    seed: Annotated[
        int | None,
        Panel.SAMPLING.option(
            help="Seed of a model's noise, 0 by default; sample i depends on it and on i.", min=0
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        Panel.COMPUTATION.option(
            help="Samples at a time that a model draws, or that the feature network reads; by"
            " default chosen by their size.",
            min=1,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        Panel.COMPUTATION.option(
            help="Numeric precision of a model's network; float32 by default."
        ),
        OneOf("fastdpm.core.recipe:PRECISIONS"),
    ] = None,
    machine: Machine,
    cache: choices.CacheFolder = None,
    scale_to_peak: Annotated[
        bool,
        Panel.MEASUREMENT.option(
            "--scale-to-peak",
            help="Scale the sounds of a folder or file to the peak that the feature network was"
            " trained on, as references always are; for real recordings.",
        ),
    ] = False,
    per_class: Annotated[
        bool,
        Panel.MEASUREMENT.option(
            "--per-class",
            help="Also measure each class of samples against the real ones of that class. For"
            " models with classes and labeled samples, at least 20 of each class.",
        ),
    ] = False,
    save: Annotated[Path | None, Panel.OUTPUT.option(help="Save the result as JSON.")] = None,
    save_statistics: Annotated[
        Path | None,
        Panel.OUTPUT.option(
            help="Save the statistics of data to a .safetensors file for --against, and measure"
            " nothing."
        ),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure a model or samples against real data. Every metric comes with its standard error.

    Samples, features, statistics and results are kept in a cache: nothing is computed twice, and
    an interrupted run continues when it is started again.
    """
    from fastdpm.data.files import write_json
    from fastdpm.evaluation import evaluating as stages
    from fastdpm.evaluation.drawn import DrawOptions

    kept = choices.open_cache(cache)
    _check_places(save, save_statistics, (samples, checkpoint, against, inception))
    if save_statistics is not None and per_class:
        raise InvalidArgumentError(
            "--save-statistics measures nothing, so --per-class would have no effect: drop one of"
            " them"
        )
    measured = _found(samples, checkpoint)
    recipe, plan = None, None
    if isinstance(measured, str):
        idle = {"--seed": seed is not None, "--precision": precision is not None}
        idle |= {"--class": class_labels is not None}
        idle |= dict.fromkeys([*sampling.names(), *guiding.names()], True)
        idle |= {"--dry-run": dry_run}
        _refuse(samples, [name for name, stated in idle.items() if stated])
        machine.use_stated_threads()
    else:
        recipe, plan = sampling.choose(measured, guiding)
        machine.use_threads(measured.config, n, drawing_batch(measured, batch_size))
    measuring = stages.MeasureOptions(
        against, n, features, inception, machine.device, kept, True, scale_to_peak, batch_size
    )
    with choices.keeping(kept):
        if save_statistics is not None:
            statistics = stages.save_statistics(samples, save_statistics, measuring)
            source = f"statistics of {statistics.label}, {statistics.network}"
            console.print(f"{source}: {save_statistics}")
            return
        options = DrawOptions(
            seed or 0,
            precision or "float32",
            batch_size,
            machine.device,
            class_labels=choices.parse_classes(class_labels),
        )
        prepared = stages.prepare(
            measured, measuring, recipe=recipe, plan=plan, options=options, per_class=per_class
        )
        cost = None if isinstance(measured, str) else prepared.estimate()
        if cost is not None:
            console.print(prepared.measure.label)
            console.print(str(cost))
        if dry_run:
            return
        found = prepared.run()
    if save is not None:
        write_json(save, found.to_dict())
    _print(found, drawn="drawn earlier" if cost is not None and not cost.evaluations else "drawn")
    if save is not None:
        console.print(f"saved to {save}")


def drawing_batch(found: FoundModel, batch_size: int | None) -> int | None:
    """Samples that a model draws at a time; a vocoder draws one recording at a time."""
    return batch_size if found.config.data.mel is None else 1


def _check_places(
    save: Path | None, save_statistics: Path | None, read: Sequence[str | Path | None]
) -> None:
    """Refuse a file that could not be written later, or that is read."""
    if save is not None and save_statistics is not None:
        raise InvalidArgumentError(
            "--save-statistics measures nothing, so --save would have no effect: drop one of them"
        )
    for path in (save, save_statistics):
        check_output(path, inputs=[Path(name) for name in read if name is not None])


def _found(samples: str, checkpoint: Path | None) -> str | FoundModel:
    """The model, or the name of the samples."""
    from fastdpm.evaluation.statistics import check_not_statistics
    from fastdpm.models.find import is_model

    check_not_statistics(samples)
    is_one = checkpoint is not None or is_model(samples)
    return choices.find(samples, checkpoint) if is_one else samples


def _refuse(samples: str, idle: list[str]) -> None:
    """Refuse options that have an effect on models only."""
    if idle:
        raise InvalidArgumentError(
            f"{samples} is not a model, so {' and '.join(idle)} would have no effect: drop"
            f" {'it' if len(idle) == 1 else 'them'}"
        )


def _print(found: Evaluation, drawn: str) -> None:
    from rich.table import Table

    table = Table("metric", "value ± standard error", "better")
    for metric in found.metrics:
        table.add_row(metric.name, found.scores[metric.key].text, metric.better)
    console.print(f"{found.n:,} samples of {found.samples}, against {found.against}")
    console.print(table)
    if found.classes:
        console.print(_class_table(found))
    print_notes(found.notes)
    if found.seconds is not None and found.evaluations is not None:
        console.print(
            f"{drawn} in {found.seconds:.1f} s, {found.evaluations:g} network evaluations per"
            " sample"
        )


def _class_table(found: Evaluation) -> Table:
    """A row for each class, and one for their mean."""
    from rich.table import Table

    from fastdpm.evaluation.by_class import ACCURACY

    title = f"by class ({found.network})"
    names = [m.name.removesuffix(f" ({found.network})") for m in found.class_metrics]
    table = Table("class", "samples", *names, title=title, title_justify="left")
    with_real = all(ACCURACY in each.real for each in found.classes)
    if with_real:
        table.add_column("accuracy of real samples", max_width=16)
    for each in found.classes:
        real = [f"{each.real[ACCURACY].value:.3f}"] if with_real else []
        scores = [each.scores[m.key].text for m in found.class_metrics]
        table.add_row(each.name, f"{each.n:,}", *scores, *real)
    table.add_section()
    means = [found.class_means[m.key].text for m in found.class_metrics]
    table.add_row("mean", f"{found.n / len(found.classes):,.4g}", *means)
    return table
