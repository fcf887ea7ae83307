"""``fastdpm likelihood``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdpm.cli import choices, recipes
from fastdpm.cli.expand import OneOf, changes
from fastdpm.cli.inputs import InputPaths, Limit, Source, choose_guidance
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import check_output
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.text import counted

if TYPE_CHECKING:
    from fastdpm.core.levels import NoiseLevels
    from fastdpm.inverse.likelihood import Bound

_MAX_LINES = 60


def _grey_levels() -> str:
    from fastdpm.core.likelihood import USUAL_GREY_LEVELS as USUAL

    usual = f"{USUAL['image']} for images and {USUAL['audio']} for sounds"
    return f"Number of values of the data; by default the model's, or {usual}."


@changes(recipes.RecipeOptions, without=("named", "recipes", "kappa", "method"))
def likelihood(
    *,
    source: Source,
    inputs: InputPaths,
    n: Limit = None,
    options: recipes.RecipeOptions,
    variance: Annotated[
        str,
        Panel.LIKELIHOOD.option(
            help="Variance of each step: the posterior's (small), the forward one (large), or the"
            " network's own (learned)."
        ),
        OneOf("fastdpm.core.likelihood:VARIANCES"),
    ] = "large",
    grey_levels: Annotated[
        int | None, Panel.LIKELIHOOD.option("--gray-levels", help=_grey_levels, min=2)
    ] = None,
    clip: choices.Clip = None,
    guiding: recipes.Guiding,
    seed: choices.Seed = 0,
    machine: Machine,
    save: Annotated[
        Path | None, Panel.OUTPUT.option(help="Save all terms of all inputs as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, Panel.OUTPUT.option(help="Draw the terms to this .png, .pdf or .svg file.")
    ] = None,
) -> None:
    """Bits per dimension of images or sounds, by the variational bound over the chosen levels.

    The bound is that of sampling with kappa = 1; `--levels step` with S = T takes all T steps.
    Sounds are first scaled to the model's level.
    """
    from fastdpm.data.files import FIGURE_SUFFIXES, write_json
    from fastdpm.inverse.likelihood import bits_per_dimension, grey_levels_of
    from fastdpm.output.folder import made_by
    from fastdpm.progress import sampling_bar

    check_output(save, (".json",), inputs)
    check_output(plot, FIGURE_SUFFIXES, inputs)
    model = source.find()
    for path in (save, plot):
        check_output(path, inputs=model.files)
    config = model.config
    recommended = config.recipe
    if recommended.clip == "state":  # which has no likelihood
        recommended = recommended.replace(clip="none")
    recipe = options.recipe(recommended, clip)
    guidance = choose_guidance(guiding, model)
    levels = recipe.choose_levels(model.schedule)
    grey, why = grey_levels_of(config.data, grey_levels)
    loaded = source.read(model, inputs, machine, n)
    began = time.perf_counter()
    with sampling_bar() as bar:
        bound = bits_per_dimension(
            loaded.model,
            loaded.x,
            levels,
            grey,
            variance=variance,
            clip=recipe.clip,
            seed=seed,
            condition=loaded.condition,
            guidance_scale=guidance,
            batch_size=source.batch_size,
            callback=bar,
        )
    seconds = time.perf_counter() - began
    if save is not None:
        head = {"format": "fastdpm-likelihood", "version": 1, **made_by(config)}
        made = {"seed": seed, "clip": recipe.clip, **bound.record()}
        write_json(save, head | made | {"inputs": loaded.file_names})
    if plot is not None:
        from fastdpm.output.figures_likelihood import write_terms

        write_terms(plot, {_label(levels): bound})
    _print(bound, why, seconds)
    for done, path in (("saved", save), ("drawn", plot)):
        if path is not None:
            console.print(f"{done} to {path}")


def _label(levels: NoiseLevels) -> str:
    return f"{levels.label}, {counted(levels.num_steps, 'row')}"


def _print(bound: Bound, why: str, seconds: float) -> None:
    levels, terms = bound.levels, bound.terms.mean(dim=0).tolist()
    error = "" if bound.error is None else f" ± {bound.error:.4f}"
    print_notes(levels.notes)
    if levels.num_steps <= _MAX_LINES:
        console.print(f"{'row':>7}{'t':>10}{'level':>10}{'bits':>12}")
        console.print(f"{'prior':>7}{'':20}{terms[0]:12.5f}")
        for row, (t, level, term) in enumerate(
            zip(levels.t, levels.level, terms[1:], strict=False)
        ):
            name = "decoder" if row == levels.num_steps - 1 else str(row)
            console.print(f"{name:>7}{t:10.3f}{level:10.6f}{term:12.5f}")
    else:
        rows = sum(terms[1:-1])
        console.print(f"prior {terms[0]:.5f}, rows {rows:.5f}, decoder {terms[-1]:.5f}")
    console.print(
        f"{bound.mean:.4f}{error} bits per dimension, {counted(len(bound.terms), 'sample')}"
    )
    console.print(f"over {_label(levels)}, {bound.variance} variance; {seconds:.1f} s")
    moved = f"values rounded to them, by {bound.moved:.2g} of a step at most"
    console.print(f"gray levels: {bound.grey.count}, {why}; {moved}")
