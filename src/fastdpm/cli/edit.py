"""``fastdpm edit``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastdpm.cli import choices
from fastdpm.cli.expand import changes
from fastdpm.cli.inputs import InputPaths, Limit, LoadedInputs, Source
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder, Overwrite, results_folder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, counted, print_notes
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.record import label_facts

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.plan import Plan
    from fastdpm.data.spec import DataSpec
    from fastdpm.inverse.editing import EditPlan


@changes(choices.RecipeOptions, without=("method",))
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
    options: choices.RecipeOptions,
    guiding: choices.Guiding,
    clip: choices.Clip = None,
    seed: choices.Seed = 0,
    machine: Machine,
    out: OutFolder,
    overwrite: Overwrite = False,
) -> None:
    """Add noise to images or sounds and sample them back, or paint what a mask marks.

    What a mask keeps stays bit for bit as it was read. Writes the samples, sounds at the level
    of the originals, a picture of originals and results, and samples.json.
    """
    from fastdpm.inverse.editing import levels_from, plan_edit
    from fastdpm.output.figures_inverse import EDITED, write_edits
    from fastdpm.output.folder import made_by, write_samples

    if strength is not None and at_level is not None:
        raise InvalidArgumentError("use --strength or --at-level, not both")
    start = {"level": at_level, "strength": strength}
    filled = results_folder(out, overwrite)
    model = source.find()
    config = model.config
    times = _check_mask_options(mask, span, config.data)
    recipe = guiding.recipe(options.recipe(config.recipe, clip))
    levels = recipe.choose_levels(model.schedule)
    if strength is not None or at_level is not None:
        levels_from(levels, model.schedule, **start)
    loaded = source.read(model, inputs, machine, n)
    marked = _marked(mask, times, loaded.x, config.data)
    masked, kappa = marked is not None, recipe.stochasticity
    how = plan_edit(loaded.model, **start, masked=masked, levels=levels, kappa=kappa)
    if masked and how.unseen:  # only then does sampling start from pure noise
        print_notes(levels.notes)
    guidance = loaded.model.check_guidance(recipe.guidance, loaded.condition)
    evaluations = guidance.evaluations(how.plan.network_level)
    settings = {"clip": recipe.clip, "seed": seed}
    began = time.perf_counter()
    found = _run(loaded, how, marked, source.batch_size, settings | {"guidance_scale": guidance})
    seconds = time.perf_counter() - began
    share = None if marked is None else round(float(marked.double().mean()), 6)
    facts = made_by(config, how.plan, recipe) | settings
    facts |= {
        "strength": strength,
        "at_level": at_level,
        "network_evaluations": evaluations,
        "inputs": loaded.file_names,
        "painted": share,
        "guidance": guidance.record,
        "n": len(found),
    }
    if config.data.classes is not None and loaded.condition is not None:
        facts |= label_facts(loaded.condition.tolist(), range(len(found)))
    with filled as folder:
        write_samples(folder, config.data, found, loaded.gain, facts)
        write_edits(folder / EDITED, loaded.x, found, marked, config.data)
    _print(how.plan, evaluations, len(found), share, seconds)
    console.print(f"written to {out}; picture of originals and results: {out / EDITED}")


def _run(
    loaded: LoadedInputs,
    how: EditPlan,
    mask: Tensor | None,
    batch_size: int | None,
    settings: dict[str, Any],
) -> Tensor:
    """Edit all inputs under a progress bar."""
    from fastdpm.inverse.editing import edit
    from fastdpm.progress import sampling_bar

    with sampling_bar() as bar:
        return edit(
            loaded.model,
            loaded.x,
            plan=how,
            mask=mask,
            condition=loaded.condition,
            batch_size=batch_size,
            callback=bar,
            **settings,
        )


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
    try:
        first, last = (float(part) for part in span.split(":"))
    except ValueError:
        raise InvalidArgumentError(
            f"--span takes two times in seconds, such as 0.2:0.5, got {span!r}"
        ) from None
    return first, last


def _marked(
    mask: Path | None, times: tuple[float, float] | None, x: Tensor, data: DataSpec
) -> Tensor | None:
    """The mask as it fits the data, or None."""
    from fastdpm.inverse.editing import check_mask, read_mask, span_mask

    if times is not None:
        return check_mask(span_mask(times, x.shape[-1], data.sample_rate or 0), x)
    return None if mask is None else check_mask(read_mask(mask), x)
