"""``fastdpm sample``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices, recipes
from fastdpm.cli.expand import OneOf
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OptionalFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.limits import MAX_SAMPLES, check_limit
from fastdpm.core.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.models.config import ModelConfig
    from fastdpm.models.model import Model
    from fastdpm.output.folder import SampleFolder


def sample(
    *,
    model: choices.ModelName = "cifar10",
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
    sampling: recipes.Sampling,
    guiding: recipes.Guiding,
    seed: choices.Seed = 0,
    batch_size: choices.BatchSize = None,
    precision: choices.Precision = "float32",
    machine: Machine,
    folder: OptionalFolder,
    format: Annotated[
        str | None,
        Panel.OUTPUT.option(
            help="File format; by default png for images and wav for sounds. npz is one array of"
            " all samples."
        ),
        OneOf("fastdpm.data.record:format_names"),
    ] = None,
) -> None:
    """Sample a trained model; by default with its recommended recipe.

    Writes one file for each sample, a picture of the first ones, and samples.json.
    """
    from fastdpm.data.record import check_format
    from fastdpm.models.tuned import as_plan

    _check_is_folder(folder.out)
    folder.check()
    found = choices.find(model, checkpoint)
    config = found.config
    recipe, saved = sampling.choose(found, guiding)
    plan = recipe.compile(found.schedule) if saved is None else as_plan(saved)
    recipe.guidance.per_row(plan.network_level)  # refuses a wrong number of scales
    written_as = check_format(format, config.data.modality)

    # From here on with PyTorch, whose import takes longer than all of the above.
    from fastdpm.core.structure import plain
    from fastdpm.data.condition import read_condition
    from fastdpm.models.choosing import usable_plan
    from fastdpm.output.folder import SampleFolder

    chosen = read_condition(condition, class_labels, config.data, config.null_class)
    count = _number(n, chosen, "condition" if class_labels is None else "class_labels")
    loaded = machine.open(found, count, batch_size)
    if saved is not None:
        usable_plan(saved, loaded, recipe, recipes.ADVICE)
    conditions = loaded.check_condition(chosen)
    guidance = loaded.check_guidance(recipe.guidance, conditions)
    if guiding.names():
        recipes.note_idle_guidance(recipe.guidance, guidance, plan)
    if count is None:
        own = conditions if config.data.classes is None else chosen  # not one of every class
        count = 16 if own is None else len(own)
    settings = {"clip": recipe.clip, "seed": seed, "precision": precision}
    deciding = settings | {"guidance": guidance.record, "file_format": written_as}
    identity = _identity(config, plan, conditions, deciding)
    inputs = (*found.files, sampling.plan, None if condition is None else Path(condition))
    if saved is not None or recipe != config.recipe:
        print_notes(plan.notes)
    options = settings | {"batch_size": batch_size, "condition": conditions}
    options["guidance_scale"] = guidance
    with folder.claim("sample", identity, inputs, name=config.name) as run:
        facts = {} if saved is not None else {"recipe": plain(recipe)}
        samples = SampleFolder(run, config.data, facts, format=written_as)
        done = _write(loaded, plan, samples, count, options)
    done.print(samples)


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
    model: Model, plan: Plan, samples: SampleFolder, count: int, options: dict[str, Any]
) -> _Done:
    """Draw the samples that the folder lacks, under a progress bar, and finish it."""
    from fastdpm.data.record import label_facts
    from fastdpm.progress import sampling_bar

    todo = samples.todo(count)
    began = time.perf_counter()
    with sampling_bar() as bar:
        batches = model.sample_batches(todo, plan, callback=bar, **options) if todo else ()
        for indices, drawn in batches:
            samples.write(indices, drawn)
    seconds = time.perf_counter() - began
    total = model.schedule.num_train_steps
    labels = None if model.config.data.classes is None else options["condition"].tolist()
    evaluations = options["guidance_scale"].evaluations(plan.network_level)
    facts = {"n": len(samples.done), "network_evaluations": evaluations, "T": total}
    facts |= {"seconds": round(seconds, 3)} | label_facts(labels, sorted(samples.done))
    picture = samples.finish(facts)
    return _Done(len(todo), picture, plan.num_rows, evaluations, total, seconds)


def _check_is_folder(out: Path | None) -> None:
    """Refuse an output that looks like a file."""
    from fastdpm.data.record import format_names

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


@dataclass(frozen=True)
class _Done:
    """What was drawn, where it is, and what it took."""

    drawn: int
    picture: Path
    rows: int
    evaluations: int
    total: int
    seconds: float

    def print(self, samples: SampleFolder) -> None:
        """Print it."""
        kind = {"image": "image", "audio": "sound"}.get(samples.data.modality, "sample")
        count = len(samples.done)
        seen = "all" if count <= samples.shown else f"the first {samples.shown}"
        console.print(f"{counted(self.drawn, kind)} drawn, {count} in {samples.run.path}")
        console.print(f"picture of {seen}: {self.picture}")
        ratio = _ratio(self.total / self.evaluations)
        saved = f" instead of {self.total:,}: {ratio} times fewer"
        guided = f" ({counted(self.rows, 'step')} with guidance)"
        console.print(
            f"{counted(self.evaluations, 'network evaluation')} each"
            f"{guided if self.evaluations > self.rows else ''}"
            f"{saved if self.evaluations < self.total else ''};"
            f" sampling took {self.seconds:.1f} s"
        )


def _ratio(value: float) -> str:
    """A ratio, with three digits or as a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
