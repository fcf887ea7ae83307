"""``fastdpm edit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices, recipes
from fastdpm.cli.expand import changes
from fastdpm.cli.inputs import InputPaths, Limit, LoadedInputs, Source
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.text import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.data.spec import DataSpec
    from fastdpm.inverse.editing import EditPlan
    from fastdpm.output.folder import SampleFolder


@changes(recipes.RecipeOptions, without=("named", "recipes", "method"))
def edit(
    *,
    source: Source,
    inputs: InputPaths,
    n: Limit = None,
    strength: Annotated[
        float | None,
        Panel.EDITING.option(
            help="Share of the steps to run, in (0, 1]; by default 0.5, or 1 with a mask."
        ),
    ] = None,
    at_level: Annotated[
        float | None,
        Panel.EDITING.option(
            help="Noise level to start from, below 1 (clean), in place of --strength."
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        Panel.EDITING.option(
            help="Image, white where to paint and black where to keep, or a .npy file of 1 and 0."
        ),
    ] = None,
    span: Annotated[
        str | None,
        Panel.EDITING.option(
            help="Part of a sound to paint, in seconds: 0.2:0.5.", metavar="FROM:TO"
        ),
    ] = None,
    options: recipes.RecipeOptions,
    guiding: recipes.Guiding,
    clip: choices.Clip = None,
    seed: choices.Seed = 0,
    machine: Machine,
    folder: OutFolder,
) -> None:
    """Add noise to images or sounds and sample them back, or paint what a mask marks.

    What a mask keeps stays bit for bit as it was read. Writes the samples, sounds at the level
    of the originals, a picture of originals and results, and samples.json.
    """
    from fastdpm.data import sound
    from fastdpm.data.tensors import values_digest
    from fastdpm.inverse.editing import levels_from, plan_edit
    from fastdpm.output.figures_inverse import EDITED, write_edits
    from fastdpm.output.folder import SampleFolder, made_by
    from fastdpm.output.sample_files import from_values

    if strength is not None and at_level is not None:
        raise InvalidArgumentError("use --strength or --at-level, not both")
    start = {"level": at_level, "strength": strength}
    folder.check()
    model = source.find()
    config = model.config
    times = _check_mask_options(mask, span, config.data)
    recipe = guiding.recipe(options.recipe(config.recipe, clip))
    levels = recipe.choose_levels(model.schedule)
    if any(value is not None for value in start.values()):
        levels_from(levels, model.schedule, **start)
    loaded = source.read(model, inputs, machine, n)
    marked = _marked(mask, times, loaded.x, config.data)
    masked, kappa = marked is not None, recipe.stochasticity
    how = plan_edit(loaded.model, **start, masked=masked, levels=levels, kappa=kappa)
    if masked and how.unseen:  # only then does sampling start from pure noise
        print_notes(levels.notes)
    guidance = recipes.noted(
        guiding, loaded.model.check_guidance(recipe.guidance, loaded.condition)
    )
    evaluations = guidance.evaluations(how.plan.network_level)
    settings = {"clip": recipe.clip, "seed": seed}
    share = None if marked is None else round(float(marked.double().mean()), 6)
    identity = made_by(config, how.plan, recipe) | loaded.identity | loaded.labels | settings
    identity |= {
        "strength": strength,
        "at_level": at_level,
        "network_evaluations": evaluations,
        "painted": share,
        "guidance": guidance.record,
        "mask": None if marked is None else values_digest(marked),
        "n": len(loaded.x),
    }
    with folder.claim("edit", identity, [*loaded.read, mask]) as run:
        samples = SampleFolder(run, config.data, gain=loaded.gain)
        rest = {"mask": marked, "batch_size": source.batch_size, "guidance_scale": guidance}
        seconds = _write(loaded, how, samples, settings | rest)

        def draw(place: Path, values: NDArray[Any]) -> Path:
            results = sound.at_level(from_values(values, config.data), 1 / loaded.gain)
            write_edits(place / EDITED, loaded.x, results, marked, config.data)
            return samples.draw(place, values)

        samples.finish(draw=draw)
    _print(how.plan, evaluations, len(loaded.x), share, seconds)
    console.print(f"written to {run.path}; picture of originals and results: {run.path / EDITED}")


def _write(
    loaded: LoadedInputs, how: EditPlan, samples: SampleFolder, options: dict[str, Any]
) -> float:
    """Edit the inputs whose results are missing, under a progress bar; returns the seconds."""
    from fastdpm.inverse.editing import edit_batches
    from fastdpm.progress import sampling_bar

    began, todo = time.perf_counter(), samples.todo(len(loaded.x))
    with sampling_bar() as bar:
        for indices, edited in edit_batches(
            loaded.model,
            loaded.x,
            how,
            samples=todo,
            condition=loaded.condition,
            callback=bar,
            **options,
        ):
            samples.write(indices, edited)
    return time.perf_counter() - began


def _print(plan: Plan, evaluations: int, number: int, share: float | None, seconds: float) -> None:
    """How many samples were edited, from which level, and what it took."""
    done = "edited" if share is None else f"painted, {100 * share:.3g} % of each"
    each = counted(evaluations, "network evaluation")
    console.print(
        f"{number} {done}, from level {plan.level[0]:.4g} in {each} each; {seconds:.1f} s"
    )
    if share is not None:
        console.print("what the mask keeps is bit for bit as it was read")


def _check_mask_options(
    mask: Path | None, span: str | None, data: DataSpec
) -> tuple[float, float] | None:
    """The times of a span in seconds, or None; checked before inputs are read."""
    if mask is not None and not mask.is_file():
        raise InvalidArgumentError(f"no mask at {str(mask)!r}: pass an image or a .npy file")
    if span is None:
        return None
    if mask is not None:
        raise InvalidArgumentError("use --mask or --span, not both")
    if data.sample_rate is None:
        raise InvalidArgumentError("--span is for sounds: use --mask")
    return choices.parse_range("--span", span, "times in seconds", "0.2:0.5")


def _marked(
    mask: Path | None, times: tuple[float, float] | None, x: Tensor, data: DataSpec
) -> Tensor | None:
    """The mask as it fits the data, or None."""
    from fastdpm.inverse.masks import check_mask, read_mask, span_mask

    if times is not None:
        return check_mask(span_mask(times, x.shape[-1], data.sample_rate or 0), x)
    return None if mask is None else check_mask(read_mask(mask), x)
