"""``fastdpm recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices
from fastdpm.cli.compare import FORMATS
from fastdpm.cli.evaluate import DryRun, drawing_batch
from fastdpm.cli.expand import OneOf, changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OptionalFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.recipes import Guiding
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.evaluation.estimate import CostEstimate
    from fastdpm.evaluation.search import PreparedRecommendation


@changes(OptionalFolder, out="Folder for the report, the figure and the recipes; optional.")
def recommend(
    *,
    model: choices.ModelName,
    budget: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="The most network evaluations per sample; 10 by default. Half and a quarter of it"
            " are tried too.",
            metavar="EVALUATIONS",
        ),
    ] = None,
    quality: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="In place of a budget: the distance (or other primary metric) to reach in as few"
            " evaluations as possible, up to 64.",
            metavar="DISTANCE",
        ),
    ] = None,
    steps: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--steps",
            "-S",
            help="Values of S to search, separated by commas, in place of those that follow from"
            " the budget or the quality.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="What to screen, as `compare` takes it; by default all samplers over all choices"
            " of levels, and the model's recipes."
        ),
    ] = None,
    recipes: Annotated[
        Path | None,
        Panel.SAMPLING.option(
            help="TOML file of your own recipes, one table for each, to screen too."
        ),
    ] = None,
    plans: choices.TunedPlans = None,
    n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "-n",
            help="Samples of each finalist; by default 2,000 images, 400 sounds or 40 recordings.",
            min=1,
        ),
    ] = None,
    screen_n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            help="Samples of each plan in the last round of the screening; by default half of -n.",
            min=1,
        ),
    ] = None,
    finalists: Annotated[
        int,
        Panel.SAMPLING.option(help="Plans of each S that are measured with another seed.", min=1),
    ] = 3,
    guiding: Guiding,
    class_labels: choices.ClassLabels = None,
    checkpoint: choices.Checkpoint = None,
    against: choices.Against = None,
    features: choices.Features = None,
    inception: choices.Inception = None,
    clip: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="What to clip, for all plans; by default as in the model's recipe."
        ),
        OneOf("fastdpm.core.recipe:CLIPS"),
    ] = None,
    seed: Annotated[
        int,
        Panel.SAMPLING.option(
            help="Seed of the screening; the next ones are those of the finalists.", min=0
        ),
    ] = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    cache: choices.CacheFolder = None,
    folder: OptionalFolder,
    formats: Annotated[
        str,
        Panel.OUTPUT.option("--format", help="Formats of the figures, separated by commas."),
        FORMATS,
    ] = "png",
    dry_run: DryRun = False,
) -> None:
    """Find the recipe to use: the best quality in a budget, or the cheapest of a quality.

    Screens all samplers and spacings with few samples, measures the finalists with another seed,
    and the best of them once more with a third one. Finished samples and measurements are in the
    cache, from which an interrupted search continues when the same command is started again.
    """
    from fastdpm.evaluation.drawn import DrawOptions
    from fastdpm.evaluation.evaluating import MeasureOptions
    from fastdpm.evaluation.recommending import prepare_recommendation

    kept = choices.open_cache(cache)
    command = choices.command_line(
        *("--dry-run", "--overwrite", "--resume", "--verbose"),
        *("--format=", "--threads=", "--out=", "--cache="),
    )
    figures = choices.parse_names("--format", formats, FORMATS)
    names = choices.parse("--methods", methods, str) or None
    classes = choices.parse_classes(class_labels)
    folder.check()
    counts = choices.parse("--steps", steps, int)
    found_model = choices.with_plans(choices.find(model, checkpoint), plans, names or (), counts)
    machine.use_threads(found_model.config, n, drawing_batch(found_model, batch_size))
    with choices.keeping(kept):
        prepared = prepare_recommendation(
            found_model,
            budget,
            quality,
            steps=counts or None,
            methods=names,
            measuring=MeasureOptions(
                against, n, features, inception, machine.device, kept, batch_size=batch_size
            ),
            screen_n=screen_n,
            finalists=finalists,
            options=DrawOptions(seed, precision, batch_size, machine.device, class_labels=classes),
            clip=clip,
            guidance_scale=guiding.guidance(found_model.config.recipe.guidance),
            recipes=recipes,
        )
        _print_cost(prepared.estimate(), cells=dry_run)
        if dry_run:
            return
    read = (*found_model.files, recipes, None if against is None else Path(against))
    identity = prepared.identity | {"class_labels": classes}
    _search(prepared, folder, command, identity, read, figures, kept)


def _search(
    prepared: PreparedRecommendation,
    folder: OptionalFolder,
    command: str,
    identity: dict[str, Any],
    read: tuple[Path | None, ...],
    figures: list[str],
    kept: Any,
) -> None:
    """Search, print what was found, and write it if a folder is named."""
    from fastdpm.evaluation.report.write import RECOMMEND, fill_recommendation

    written: list[Path] = []
    if folder.out is None:
        with choices.keeping(kept):
            found = prepared.run(command, console.print)
    else:
        with (
            folder.claim(RECOMMEND, identity, read) as run,
            choices.keeping(kept),
        ):
            found = prepared.run(command, console.print)
            written = fill_recommendation(run, found, formats=figures)
    for line in found.lines:
        console.print(line)
    for path in written:
        console.print(f"written: {path}")


def _print_cost(cost: CostEstimate, *, cells: bool) -> None:
    """An estimate of what drawing the samples costs at most, and its parts."""
    console.print(f"{cost}; rounds whose plans are not known yet are counted at their largest")
    if not cells:
        return
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table("part", "samples per plan", "samples left", "evaluations", box=SIMPLE)
    for cell in cost.cells:
        table.add_row(cell.method, f"{cell.n:,}", f"{cell.left:,}", f"{cell.total:,}")
    console.print(table)
