"""``fastdpm plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastdpm.cli import choices, recipes
from fastdpm.cli.outputs import check_output
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from fastdpm.core.guidance import GuidanceScale
    from fastdpm.core.plan import Plan
    from fastdpm.models.tuned import TunedPlan


def plan(
    *,
    model: choices.ModelName = "cifar10",
    checkpoint: choices.Checkpoint = None,
    options: recipes.RecipeOptions,
    saved: Annotated[
        Path | None,
        Panel.SAMPLING.option(
            "--plan", help="A saved plan or a tuned plan to show, in place of a recipe."
        ),
    ] = None,
    plot: Annotated[
        Path | None, Panel.OUTPUT.option(help="Draw the plan to this .png, .pdf or .svg file.")
    ] = None,
    save: Annotated[
        Path | None, Panel.OUTPUT.option(help="Save the plan as JSON, for `sample --plan`.")
    ] = None,
) -> None:
    """Print, draw or save the coefficients that `sample` runs; no weights are loaded."""
    from fastdpm.data.files import FIGURE_SUFFIXES, write_text

    check_output(plot, FIGURE_SUFFIXES)
    check_output(save, (".json",))
    if save is not None and plot is not None and save.resolve() == plot.resolve():
        raise InvalidArgumentError("--save and --plot name the same file: choose two")
    found = choices.find(model, checkpoint)
    for path in (save, plot):
        check_output(path, inputs=found.files if saved is None else [*found.files, saved])
    recipe, compiled, tuned = options.compiled(found, saved)
    lines = _lines(compiled, recipe.guidance, tuned)
    if plot is not None:
        from fastdpm.output.figures import write_plan

        write_plan(plot, compiled)
    if save is not None:
        write_text(save, compiled.to_json() + "\n")
    for line in lines:
        console.print(line)
    if plot is not None:
        console.print(f"drawn to {plot}")
    if save is not None:
        console.print(f"saved to {save}")


def _lines(plan: Plan, guidance: GuidanceScale, tuned: TunedPlan | None) -> list[str]:
    """The plan, what its record says, and what the guidance of the recipe adds to its cost."""
    lines = str(plan).splitlines()
    if tuned is not None and "rows" in tuned.record:
        far = ", ".join(f"{distance:.3g}" for distance in tuned.record["rows"])
        lines.append(f"distance to the teacher after each row: {far}")
    if tuned is not None and tuned.quality:
        lines.append(tuned.measured_as)
    if guidance.enabled:
        count = guidance.evaluations(plan.network_level)
        lines.append(f"with the recipe's {guidance.describe()}: {count:,} network evaluations")
    return lines
