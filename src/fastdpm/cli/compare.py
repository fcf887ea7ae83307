"""``fastdpm compare``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdpm.cli import choices
from fastdpm.cli.expand import OneOf
from fastdpm.cli.machine import Machine
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.files import check_writable

if TYPE_CHECKING:
    from fastdpm.models.find import FoundModel


def _methods_help() -> str:
    from fastdpm.core.methods import families

    return (
        f"Groups ({', '.join([*families(), 'diffusers'])}) or single methods (var-linear-k0.5,"
        " dpmpp-2m-step-linear, diffusers-unipc-trailing), separated by commas; by default all"
        " groups, or the preset's."
    )


def _kappa_help() -> str:
    from fastdpm.core.methods import families

    return f"Values of kappa of the group {', '.join(families(kappa=True))}; 0,1."


def compare(
    *,
    model: choices.ModelName,
    out: Annotated[Path, Panel.OUTPUT.option(help="Folder for tables, figures and the report.")],
    steps: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--steps", "-S", help="Values of S, separated by commas; 5,10,20,50, or the preset's."
        ),
    ] = None,
    methods: Annotated[str | None, Panel.SAMPLING.option(help=_methods_help)] = None,
    kappa: Annotated[str | None, Panel.SAMPLING.option(help=_kappa_help)] = None,
    n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "-n",
            help="Samples a cell; by default 10,000 images, 1,000 sounds or 100 recordings, or the"
            " preset's.",
            min=1,
        ),
    ] = None,
    reference_n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            help="Samples of the standard T-step sampler; at most 1,000 by default.", min=1
        ),
    ] = None,
    checkpoint: choices.Checkpoint = None,
    against: choices.Against = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    clip: Annotated[
        str | None,
        Panel.SAMPLING.option(help="Alike for all methods; by default as the model's recipe."),
        OneOf("fastdpm.core.recipe:CLIPS"),
    ] = None,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    cache: choices.CacheFolder = None,
    overwrite: Annotated[
        bool, Panel.OUTPUT.option("--overwrite", help="Replace another comparison in the folder.")
    ] = False,
) -> None:
    """Measure sampling methods at several S on one network: the paper's grid and its rivals.

    Same seeds and same metric for all. Writes results.json, results.csv, results.md, figures and
    report.html. A comparison that was interrupted goes on when it is started again.
    """
    from fastdpm.evaluation.compare import compare as measure_all
    from fastdpm.evaluation.drawn import DrawOptions
    from fastdpm.evaluation.evaluate import MeasureOptions
    from fastdpm.evaluation.report.write import write_report
    from fastdpm.models.find import find_model
    from fastdpm.models.presets import read_preset

    kept = choices.open_cache(cache)
    command = choices.command_line()
    counts = choices.parse("--steps", steps, int)
    names = choices.parse("--methods", methods, str)
    kappas = choices.parse("--kappa", kappa, float)
    found_model = find_model(model, checkpoint)
    _check_folder(out, command, found_model, overwrite=overwrite)
    preset = read_preset(model) if checkpoint is not None else None
    machine.use_threads(found_model.config, n, batch_size)
    with choices.keeping(kept):
        found = measure_all(
            found_model,
            counts or None,
            names or None,
            kappas=kappas or None,
            table=None if preset is None else preset.compare,
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


def _check_folder(out: Path, command: str, model: FoundModel, *, overwrite: bool) -> None:
    """Refuse a folder that holds something else than this comparison, made earlier."""
    check_writable(out)
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        record = json.loads((out / "results.json").read_text(encoding="utf-8"))
        known = record["format"] == "fastdpm-comparison"
        earlier = record["command"], record["model"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        known, earlier = False, None
    if not known:
        raise InvalidArgumentError(f"{out} holds other files: choose another --out")
    if earlier != (command, model.checksum()) and not overwrite:
        raise InvalidArgumentError(
            f"{out} holds another comparison: choose another --out, or add --overwrite"
        )
