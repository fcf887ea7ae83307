"""``fastdpm compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices
from fastdpm.cli.evaluate import DryRun, drawing_batch
from fastdpm.cli.expand import OneOf, changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OptionalFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastdpm.core.guidance import GuidanceScale
    from fastdpm.core.recipe import Recipe
    from fastdpm.evaluation.comparing import PreparedComparison
    from fastdpm.evaluation.estimate import CellCost, CostEstimate
    from fastdpm.models.presets import Preset

FORMATS = OneOf("fastdpm.data.files:FIGURE_FORMATS", several=True)


def _methods_help() -> str:
    from fastdpm.core.methods import GITS, OWN, families

    return (
        f"Groups ({', '.join([*families(), OWN, GITS, 'diffusers'])}) or single methods"
        " (var-linear-k0.5, dpmpp-2m-step-linear, unipc-3-gits, diffusers-unipc-trailing),"
        " separated by commas; by default all groups but gits, or the preset's."
    )


def _kappa_help() -> str:
    from fastdpm.core.methods import families

    return (
        f"Values of kappa for the group {', '.join(families(kappa=True))}, separated by commas;"
        " 0,1 by default."
    )


@changes(
    OptionalFolder,
    out="Folder for tables, figures and the report. Required, except with --dry-run.",
)
def compare(
    *,
    model: choices.ModelName,
    folder: OptionalFolder,
    steps: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--steps",
            "-S",
            help="Values of S, separated by commas; by default 5,10,20,50, or the preset's.",
        ),
    ] = None,
    methods: Annotated[str | None, Panel.SAMPLING.option(help=_methods_help)] = None,
    kappa: Annotated[str | None, Panel.SAMPLING.option(help=_kappa_help)] = None,
    recipes: Annotated[
        Path | None,
        Panel.SAMPLING.option(
            help="TOML file of your own recipes, one table for each, in addition to the model's."
        ),
    ] = None,
    plans: choices.TunedPlans = None,
    guidance_scale: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--guidance",
            help="Scales of classifier-free guidance, separated by commas: every method is"
            " measured at each; by default as in the model's recipe.",
            metavar="X,...",
        ),
    ] = None,
    guidance_interval: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Lowest and highest noise level with guidance, up to 1 (clean), for all scales:"
            " 0.2:0.9.",
            metavar="FROM:TO",
        ),
    ] = None,
    class_labels: choices.ClassLabels = None,
    n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "-n",
            help="Samples of each method and S; by default 10,000 images, 1,000 sounds or 100"
            " recordings, or the preset's.",
            min=1,
        ),
    ] = None,
    reference_n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            help="Samples of the standard T-step samplers; by default -n, but at most 1,000.",
            min=1,
        ),
    ] = None,
    checkpoint: choices.Checkpoint = None,
    against: choices.Against = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    clip: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="What to clip, for all methods: the predicted clean data (x0, dynamic) or the"
            " state; by default as in the model's recipe."
        ),
        OneOf("fastdpm.core.recipe:CLIPS"),
    ] = None,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    cache: choices.CacheFolder = None,
    formats: Annotated[
        str,
        Panel.OUTPUT.option("--format", help="Formats of the figures, separated by commas."),
        FORMATS,
    ] = "png",
    dry_run: DryRun = False,
) -> None:
    """Measure sampling methods at several S on one network: the paper's grid and other samplers.

    All methods use the same seeds and the same metrics. Writes results.json, results.csv,
    results.md, figures and report.html. Finished samples and measurements are in the cache, from
    which an interrupted comparison continues with --resume.
    """
    from fastdpm.evaluation.comparing import prepare
    from fastdpm.evaluation.drawn import DrawOptions
    from fastdpm.evaluation.evaluating import MeasureOptions
    from fastdpm.evaluation.report.write import COMMAND, fill_report, report_identity
    from fastdpm.models.presets import read_preset

    kept = choices.open_cache(cache)
    command = choices.command_line(
        *("--dry-run", "--overwrite", "--resume", "--verbose"),
        *("--format=", "--threads=", "--out=", "--cache="),
    )
    figures = choices.parse_names("--format", formats, FORMATS)
    counts = choices.parse("--steps", steps, int) or None
    names = choices.parse("--methods", methods, str) or None
    kappas = choices.parse("--kappa", kappa, float) or None
    classes = choices.parse_classes(class_labels)
    scales = choices.parse("--guidance", guidance_scale, float)
    interval = choices.parse_range("--guidance-interval", guidance_interval)
    if not dry_run:
        if folder.out is None:
            raise InvalidArgumentError("no folder to write to: set --out, or --dry-run")
        folder.check()
    found_model = choices.with_plans(
        choices.find(model, checkpoint), plans, names or (), counts or ()
    )
    preset = read_preset(model) if checkpoint is not None else None
    machine.use_threads(found_model.config, n, drawing_batch(found_model, batch_size))
    measuring = MeasureOptions(
        against, n, features, inception, machine.device, kept, True, batch_size=batch_size
    )
    with choices.keeping(kept):
        prepared = prepare(
            found_model,
            counts,
            names,
            kappas=kappas,
            guidance_scale=_guidances(scales, interval, found_model.config.recipe),
            table=None if preset is None else preset.compare,
            measuring=measuring,
            options=DrawOptions(
                seed,
                precision,
                batch_size,
                machine.device,
                class_labels=classes,
            ),
            clip=clip,
            reference_n=reference_n,
            recipes=recipes,
        )
        if dry_run:
            _print_cost(prepared, cells=True)
            return
        identity = report_identity(prepared.planned) | {"class_labels": classes}
        read = (*found_model.files, recipes, None if against is None else Path(against))
        with folder.claim(COMMAND, identity, read) as run, choices.keeping(kept):
            _print_cost(prepared, cells=False)
            found = prepared.run(command, console.print)
            written = fill_report(run, found, formats=figures)
    for path in written:
        console.print(f"written: {path}")
    if preset is not None:
        _print_published(preset)


def _guidances(
    scales: list[float], interval: tuple[float, float] | None, recipe: Recipe
) -> Sequence[float | GuidanceScale] | None:
    """The scales to compare, all but 1 with the interval; None if nothing is set."""
    if interval is None:
        return scales or None
    chosen: Sequence[Any] = scales or [recipe.guidance_scale]
    guided = [scale for scale in chosen if scale != 1] or chosen  # if all are 1, they are refused
    within = {scale: interval if scale in guided else None for scale in chosen}
    return [
        recipe.replace(guidance_scale=scale, guidance_interval=at).guidance
        for scale, at in within.items()
    ]


def _print_cost(prepared: PreparedComparison[Any], *, cells: bool) -> None:
    """What is compared, and an estimate of what it costs."""
    console.print(prepared.measure.label)
    cost = prepared.estimate()
    console.print(str(cost))
    if cells:
        _print_cells(cost)


def _print_cells(cost: CostEstimate) -> None:
    """A row for each method and a column for each S, with the network evaluations per sample."""
    from rich.box import SIMPLE
    from rich.table import Table

    columns = sorted({cell.num_steps for cell in cost.cells})
    rows: dict[str, dict[int, CellCost]] = {}
    sizes: dict[int, set[int]] = {}
    for cell in cost.cells:
        rows.setdefault(cell.method, {})[cell.num_steps] = cell
        sizes.setdefault(cell.n, set()).add(cell.num_steps)
    table = Table("evaluations per sample", box=SIMPLE)
    for count in columns:
        table.add_column(f"S = {count}" if count == columns[0] else str(count), no_wrap=True)
    for method, cells in rows.items():
        table.add_row(method, *(_cost_text(cells.get(count)) for count in columns))
    for n, counts in sizes.items():
        console.print(f"{n:,} samples per cell at S = {', '.join(map(str, sorted(counts)))}")
    if any(0 < cell.left < cell.n for cell in cost.cells):
        console.print("* some of the samples are in the cache")
    console.print(table)


def _cost_text(cell: CellCost | None) -> str:
    if cell is None:
        return ""
    if cell.failed is not None:
        return "none"
    if not cell.left:
        return "cached"
    return f"{cell.evaluations:,}" + ("*" if cell.left < cell.n else "")


def _print_published(preset: Preset) -> None:
    if preset.published is None:
        return
    for method, figures in preset.published.figures.items():
        values = ", ".join(f"{value:g} at S = {s}" for s, value in figures.items())
        console.print(f"published, {method}: {values} ({preset.published.source})")
