"""``fastdpm compare``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.machine import Machine
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.models.presets import CompareSettings


def compare(
    *,
    model: choices.ModelName,
    out: Annotated[Path, typer.Option(help="Folder for tables, figures and the report.")],
    steps: Annotated[
        str | None,
        typer.Option(
            "--steps",
            "-S",
            help="Values of S, separated by commas; 5,10,20,50, or the preset's.",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Groups (paper, multistep, standard, diffusers) or single methods"
            " (var-linear-k0.5, dpmpp-2m-step-linear, diffusers-unipc-trailing), separated by"
            " commas; by default all groups, or the preset's.",
            show_default=False,
        ),
    ] = None,
    kappa: Annotated[
        str | None,
        typer.Option(help="Values of kappa of the group paper; 0,1.", show_default=False),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            help="Samples a cell; by default 10,000 images, 1,000 sounds or 100 recordings, or the"
            " preset's.",
            min=1,
            show_default=False,
        ),
    ] = None,
    reference_n: Annotated[
        int | None,
        typer.Option(
            help="Samples of the standard T-step sampler; at most 1,000 by default.",
            min=1,
            show_default=False,
        ),
    ] = None,
    checkpoint: choices.Checkpoint = None,
    against: choices.Against = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    clip: Annotated[
        str | None,
        typer.Option(
            help="none, x0 or dynamic, alike for all methods; by default as the model's recipe.",
            show_default=False,
        ),
    ] = None,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    cache: choices.CacheFolder = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another comparison in the folder.")
    ] = False,
) -> None:
    """Measure sampling methods at several S on one network: the paper's grid and its rivals.

    Same seeds and same metric for all. Writes results.json, results.csv, results.md, figures and
    report.html. A comparison that was interrupted goes on when it is started again.
    """
    from fastdpm.evaluation.compare import compare as measure_all
    from fastdpm.evaluation.drawn import DrawOptions
    from fastdpm.evaluation.evaluate import MeasureOptions
    from fastdpm.evaluation.methods import choose_methods
    from fastdpm.evaluation.report.write import write_report
    from fastdpm.models.find import find_model
    from fastdpm.models.presets import read_preset

    kept = choices.open_cache(cache)
    command = choices.told_command()
    _check_folder(out, command, overwrite=overwrite)
    found_model = find_model(model, checkpoint)
    preset = read_preset(model) if checkpoint is not None else None
    if preset is not None and preset.compare is not None:
        table = preset.compare
        _check_preset(table, against, inception)
        steps = ",".join(map(str, table.steps)) if steps is None else steps
        methods = ",".join(table.methods) if methods is None else methods
        n = table.n if n is None else n
    counts = choices.parse_whole_numbers("--steps", "5,10,20,50" if steps is None else steps)
    names = None if methods is None else methods.split(",")
    chosen = choose_methods(names, choices.parse_numbers("--kappa", kappa))
    machine.use_threads(found_model.config, n, batch_size)
    with choices.kept_in(kept):
        found = measure_all(
            found_model,
            counts,
            chosen,
            measuring=MeasureOptions(
                against, n, features, inception, machine.device, kept, progress=True
            ),
            options=DrawOptions(seed, precision, batch_size, machine.device),
            clip=clip,
            reference_n=reference_n,
            command=command,
            tell=console.print,
        )
    out.mkdir(parents=True, exist_ok=True)
    for path in write_report(out, found):
        console.print(f"written: {path}")
    if preset is not None and preset.published is not None:
        for method, figures in preset.published.figures.items():
            told = ", ".join(f"{value:g} at S = {s}" for s, value in figures.items())
            console.print(f"published, {method}: {told} ({preset.published.source})")


def _check_preset(table: CompareSettings, against: str | None, inception: str | None) -> None:
    """Refuse to measure a preset by something else than its table does."""
    from fastdpm.core.errors import InvalidArgumentError

    if table.metric == "fid" and (against is None or inception is None):
        raise InvalidArgumentError(
            "the paper's table shows FID: give the statistics to --against and the weights of"
            " Inception-v3 to --inception (docs/published.md says where they are)"
        )


def _check_folder(out: Path, command: str, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else than this comparison, made earlier."""
    from fastdpm.core.errors import InvalidArgumentError

    above = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = "is a file" if not above.is_dir() else "cannot be written to"
        raise InvalidArgumentError(f"{above} {reason}: choose another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        record = json.loads((out / "results.json").read_text(encoding="utf-8"))
        earlier = record["command"] if record["format"] == "fastdpm-comparison" else None
    except (OSError, ValueError, KeyError, TypeError):
        earlier = None
    if earlier is None:
        raise InvalidArgumentError(f"{out} holds other files: choose another --out")
    if earlier != command and not overwrite:
        raise InvalidArgumentError(
            f"{out} holds another comparison: choose another --out, or add --overwrite"
        )
