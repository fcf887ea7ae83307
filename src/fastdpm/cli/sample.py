"""``fastdpm sample``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices
from fastdpm.cli.expand import OneOf
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, counted, print_notes
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError
from fastdpm.core.limits import MAX_SAMPLES, check_limit

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.models.config import ModelConfig
    from fastdpm.models.model import Model
    from fastdpm.output.folder import SampleFolder


def sample(
    *,
    model: choices.ModelName = "digits",
    checkpoint: choices.Checkpoint = None,
    condition: choices.Condition = None,
    class_labels: choices.ClassLabels = None,
    n: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "-n",
            help="Number of samples; by default 16, or one for each label or spectrogram.",
            min=1,
        ),
    ] = None,
    sampling: choices.Sampling,
    guiding: choices.Guiding,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    out: Annotated[
        Path | None,
        Panel.OUTPUT.option(help="Folder to write; by default a new one under samples/."),
    ] = None,
    format: Annotated[
        str | None,
        Panel.OUTPUT.option(
            help="File format; by default png for images and wav for sounds. npz is one array of"
            " all samples."
        ),
        OneOf("fastdpm.data.record:format_names"),
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        Panel.OUTPUT.option("--resume", help="Draw the samples that an interrupted run lacks."),
    ] = False,
) -> None:
    """Sample a trained model; by default with its recommended recipe.

    Writes one file for each sample, a picture of the first ones, and samples.json.
    """
    from fastdpm.data.record import check_format
    from fastdpm.models.find import find_model

    _check_out(out, overwrite=overwrite, resume=resume)
    found = find_model(model, checkpoint)
    config = found.config
    recipe, saved = sampling.choose(config.recipe)
    recipe = guiding.recipe(recipe)
    plan = saved or recipe.compile(found.schedule)
    recipe.guidance.per_row(plan.network_level)  # refuses a wrong number of scales
    check_format(format, config.data.modality)

    # From here on with PyTorch, whose import takes longer than all of the above.
    from fastdpm.core.structure import plain
    from fastdpm.data.condition import read_condition
    from fastdpm.output import folder as output

    chosen = read_condition(condition, class_labels, config.data, config.null_class)
    count = _number(n, chosen, "condition" if class_labels is None else "class_labels")
    path = out or output.free_folder(Path("samples"), config.name)
    output.check_folder(path, overwrite=overwrite, resume=resume)

    loaded = machine.open(found, count, batch_size)
    if saved is not None:
        loaded.check_plan(saved)
    conditions = loaded.check_condition(chosen)
    guidance = loaded.check_guidance(recipe.guidance, conditions)
    if count is None:
        count = 16 if conditions is None else len(conditions)
    settings = {"clip": recipe.clip, "seed": seed, "precision": precision}
    folder = output.SampleFolder.open(
        path,
        config.data,
        _identity(config, plan, conditions, settings | {"guidance": guidance.record}),
        facts={} if saved is not None else {"recipe": plain(recipe)},
        format=format or "",
        overwrite=overwrite,
        resume=resume,
    )
    if saved is not None or recipe != config.recipe:
        print_notes(plan.notes)
    options = settings | {"batch_size": batch_size, "condition": conditions}
    options["guidance_scale"] = guidance
    _write(loaded, plan, folder, count, options)


def _identity(
    config: ModelConfig, plan: Plan, conditions: Tensor | None, settings: dict[str, Any]
) -> dict[str, Any]:
    """Everything that decides the samples, for the record."""
    from fastdpm.data.tensors import values_digest
    from fastdpm.models.identity import config_digest
    from fastdpm.output.folder import made_by

    condition = None if conditions is None else values_digest(conditions)
    about = {"network": config_digest(config), "condition": condition}
    return made_by(config, plan) | about | settings


def _write(
    model: Model, plan: Plan, folder: SampleFolder, count: int, options: dict[str, Any]
) -> None:
    """Draw the samples that the folder lacks, finish it, and print what was done."""
    from fastdpm.data.record import label_facts

    todo = [i for i in range(count) if i not in folder.done]
    began = time.perf_counter()
    if todo:
        _draw(model, plan, folder, todo, options)
    seconds = time.perf_counter() - began
    total = model.schedule.num_train_steps
    labels = None if model.config.data.classes is None else options["condition"].tolist()
    evaluations = options["guidance_scale"].evaluations(plan.network_level)
    picture = folder.finish(
        {"n": len(folder.done), "network_evaluations": evaluations, "T": total}
        | {"seconds": round(seconds, 3)}
        | label_facts(labels, sorted(folder.done))
    )
    _print(folder, len(todo), picture, evaluations, total, seconds)


def _check_out(out: Path | None, *, overwrite: bool, resume: bool) -> None:
    """Refuse options of the output folder that contradict each other or have no effect."""
    from fastdpm.data.record import format_names

    if overwrite and resume:
        raise InvalidArgumentError("use --overwrite or --resume, not both")
    for option, is_set in (("--overwrite", overwrite), ("--resume", resume)):
        if is_set and out is None:
            raise InvalidArgumentError(f"{option} needs the --out folder of the earlier run")
    if out is not None and not out.is_dir() and out.suffix[1:].lower() in format_names():
        name = out.suffix[1:].lower()
        raise InvalidArgumentError(
            f"--out is a folder, and {out.name} looks like a file: choose another name, and add"
            f" --format {name} for the format"
        )


def _number(n: int | None, chosen: Tensor | None, name: str) -> int | None:
    """The number of samples if it is known; at least one for each condition that is set."""
    if n is not None:
        check_limit("`n`", n, MAX_SAMPLES)
    if chosen is None:
        return n
    if n is not None and n < len(chosen):
        raise InvalidArgumentError(
            f"`n` is {n}, but `{name}` holds {len(chosen)}: raise `n`, or drop it"
        )
    return n or len(chosen)


def _print(
    folder: SampleFolder, drawn: int, picture: Path, evaluations: int, total: int, seconds: float
) -> None:
    """What was drawn, where it is, and what it took."""
    kind = {"image": "image", "audio": "sound"}.get(folder.data.modality, "sample")
    seen = "all" if len(folder.done) <= folder.shown else f"the first {folder.shown}"
    console.print(f"{counted(drawn, kind)} drawn, {len(folder.done)} in {folder.path}")
    console.print(f"picture of {seen}: {picture}")
    saved = f" instead of {total:,}: {_ratio(total / evaluations)} times fewer"
    console.print(
        f"{counted(evaluations, 'network evaluation')} each{saved if evaluations < total else ''};"
        f" sampling took {seconds:.1f} s"
    )


def _ratio(value: float) -> str:
    """A ratio, with three digits or as a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _draw(
    model: Model, plan: Plan, folder: SampleFolder, todo: list[int], options: dict[str, Any]
) -> None:
    """Draw samples batch by batch under a progress bar; an interrupt keeps what is written."""
    from fastdpm.progress import sampling_bar

    try:
        with sampling_bar() as bar:
            for indices, samples in model.sample_batches(todo, plan, callback=bar, **options):
                folder.write(indices, samples)
    except KeyboardInterrupt:
        kept = f"{len(folder.done)} samples are in {folder.path}: " if folder.done else ""
        again = f"add --out {folder.path} --resume to the same command to draw the rest"
        raise InterruptedRunError(
            f"interrupted: {kept}{again if folder.done else 'nothing was written'}"
        ) from None
