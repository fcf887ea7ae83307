"""What the commands of the inverse direction share: options, inputs, levels and folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fastdpm.cli import choices

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.levels import NoiseLevels
    from fastdpm.core.recipe import Recipe
    from fastdpm.inverse.encode import ImplicitOptions, Latents
    from fastdpm.models.model import Model
    from fastdpm.progress import RowCallback

console = Console(soft_wrap=True, highlight=False, markup=False)

Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="Images or mono sounds, or folders, zip archives or Parquet files of them.",
        metavar="INPUT...",
    ),
]
By = Annotated[
    str,
    typer.Option(
        help="How: first or second order (one or two evaluations a row), implicit (some ten), or"
        " invertible (one, exact)."
    ),
]
Most = Annotated[
    int | None,
    typer.Option("-n", help="At most so many, the first ones.", min=1, show_default=False),
]
Tolerance = Annotated[
    float | None,
    typer.Option(help="Of --by implicit: largest relative residual.", show_default=False),
]
KeepBest = Annotated[
    bool,
    typer.Option(
        "--keep-best",
        help="Of --by implicit: go on with the best that was found where a row does not converge.",
    ),
]
WithoutLastRow = Annotated[
    bool,
    typer.Option(
        "--without-last-row",
        help="Leave out the row that ends at clean data, and take the data as its noisy side: for"
        " --by implicit where that row has no inverse, as in digital silence.",
    ),
]
Condition = Annotated[
    str | None,
    typer.Option(
        help="What the samples are of: labels, one for all or 3,1,4 for each; for a vocoder a mel"
        " spectrogram or a sound, by default each sound's own.",
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
]
Resize = Annotated[
    bool,
    typer.Option(
        "--resize",
        help="Crop and scale images to the model's size and colours, centre sounds in its window.",
    ),
]
Resample = Annotated[bool, typer.Option("--resample", help="Resample sounds to the model's rate.")]

ENCODING_HELP = {
    "steps": "S, from 2 to T; by default 50, which keeps the latents of most models near noise.",
    "kappa": "Must be 0: encoding draws no noise.",
}
_NUM_STEPS = 50
_BY_HAND = ("at_steps", "at_levels", "variances")
_FAR_FROM_ONE = 2.0
# What the commands of this direction write into their folders, beside samples.
_WRITTEN = (
    *("samples.json", "grid.png", "sounds.png", "series.png", "edited.png"),
    *("strip.png", "animation.png", "joined.wav"),
    *("reconstruct.json", "reconstruct.csv", "psnr.png", "samples.png"),
)


@dataclass(frozen=True)
class Given:
    """What a user gave: a model, and samples as its data."""

    model: Model
    names: list[str]
    x: Tensor
    gain: Tensor
    condition: Tensor | None

    @property
    def inputs(self) -> list[str]:
        """The names as they are recorded: of files, not of where they lie."""
        return [Path(name).name for name in self.names]


def read_given(
    model: str,
    paths: list[Path],
    *,
    checkpoint: Path | None,
    device: str,
    condition: str | None,
    resize: bool,
    resample: bool,
    n: int | None = None,
) -> Given:
    """Load a model and what is to be encoded; the inputs are read before its weights are."""
    from fastdpm.data.condition import read_condition
    from fastdpm.data.inputs import conditions_for, read_all
    from fastdpm.models.find import find_model
    from fastdpm.models.load import open_model

    found = find_model(model, checkpoint)
    data = found.config.data
    names, x, gain = read_all(paths, data, resize=resize, resample=resample, n=n)
    stated = None if condition is None else read_condition(condition, data)
    chosen = conditions_for(x, data, stated)
    return Given(open_model(found, device), names, x, gain, chosen)


def encoding_recipe(stated: choices.Stated, recommended: Recipe) -> Recipe:
    """What to encode over: the recommended recipe's levels, with the stated choices changed.

    Raises:
        InvalidArgumentError: If noise is asked for, which does not run backwards.
    """
    from fastdpm.core.errors import InvalidArgumentError

    if stated.kappa:
        raise InvalidArgumentError(
            f"encoding draws no noise: --kappa must be 0, got {stated.kappa:g}"
        )
    return stated.recipe(recommended.replace(method="ddim-rev").replace(kappa=0.0))


def encoding_levels(
    stated: choices.Stated, model: Model, by: str, without_last_row: bool
) -> NoiseLevels:
    """The levels that a command line asks for; their notes are printed.

    Raises:
        InvalidArgumentError: If they are too few for the method, or noise is asked for.
    """
    recipe = encoding_recipe(stated, model.config.recipe)
    if stated.steps is None and all(getattr(stated, name) is None for name in _BY_HAND):
        recipe = recipe.replace(num_steps=min(_NUM_STEPS, model.schedule.num_train_steps))
    levels = recipe.choose_levels(model.schedule)
    for note in levels.notes:
        console.print(f"note: {note}")
    return fitting_levels(levels, by, without_last_row)


def fitting_levels(levels: NoiseLevels, by: str, without_last_row: bool) -> NoiseLevels:
    """Levels, or all but the cleanest.

    Raises:
        InvalidArgumentError: If they are too few for the method.
    """
    from fastdpm.core.errors import InvalidArgumentError

    least = 2 if by == "invertible" else 1
    rows = levels.num_steps - without_last_row
    if rows < least:
        raise InvalidArgumentError(
            f"--by {by} needs {least} rows or more, these levels make {rows}: raise --steps"
        )
    return levels[:-1] if without_last_row else levels


def check_by(by: str, tolerance: float | None, keep_best: bool) -> None:
    """Raise InvalidArgumentError for an unknown way to encode, or an option it does not have."""
    from fastdpm.core.errors import InvalidArgumentError, check_one_of
    from fastdpm.inverse.encode import METHODS

    check_one_of("--by", by, METHODS)
    if tolerance is not None and not 0 < tolerance < 1:
        raise InvalidArgumentError(f"--tolerance must lie between 0 and 1, got {tolerance:g}")
    idle = ["--tolerance"] * (tolerance is not None) + ["--keep-best"] * keep_best
    if idle and by != "implicit":
        raise InvalidArgumentError(
            f"--by {by} solves nothing, so {' and '.join(idle)} would change nothing: drop it"
        )


def solver_of(by: str, tolerance: float | None, keep_best: bool) -> ImplicitOptions | None:
    """How the implicit rows are solved, as the command line says; None for other methods."""
    from fastdpm.inverse.encode import ImplicitOptions

    if by != "implicit":
        return None
    if tolerance is None:
        return ImplicitOptions(keep_best=keep_best)
    return ImplicitOptions(tolerance=tolerance, keep_best=keep_best)


def encode_given(
    given: Given,
    levels: NoiseLevels,
    by: str,
    *,
    tolerance: float | None = None,
    keep_best: bool = False,
    batch_size: int | None = None,
) -> Latents:
    """Encode under a progress bar."""
    from fastdpm.inverse.encode import encode

    size = given.model.batch_size(batch_size, given.condition)
    with encoding_bar(len(given.x), size, levels.num_steps, by) as advance:
        return encode(
            given.model,
            given.x,
            levels,
            by,
            solver=solver_of(by, tolerance, keep_best),
            condition=given.condition,
            batch_size=batch_size,
            advance=advance,
        )


def note_deviation(latents: Latents) -> None:
    """Print the latents' standard deviation, and what to do where it is far from 1."""
    from fastdpm.inverse.latents_file import usable

    deviation = float(latents.noise[usable(latents)].std())
    console.print(f"standard deviation of the latents: {deviation:.3g}")
    if not 1 / _FAR_FROM_ONE < deviation < _FAR_FROM_ONE:
        console.print(
            "note: that is far from 1: they decode, but are no noise to interpolate; take more"
            " steps, other levels or another --by"
        )


def tell_lost(latents: Latents, names: list[str]) -> str:
    """Print the samples that have no latent, and say what to do about them."""
    from fastdpm.inverse.latents_file import unsolved

    for line in unsolved(latents, names):
        console.print(f"not converged: {line}")
    last = latents.plan.num_rows - 1
    at_clean = latents.plan.level[-1] == 1 and bool((latents.row[latents.row >= 0] == last).all())
    other = "leave that row out (--without-last-row)" if at_clean else "take more steps"
    return f"encode --by invertible, {other}, or add --keep-best"


def check_folder(out: Path, overwrite: bool) -> Collection[str]:
    """Check that a folder can be written, before the work is done.

    Args:
        out: The folder.
        overwrite: Whether an earlier run in it, of any of these commands, may be replaced.

    Returns:
        The files that may be replaced.
    """
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.data.files import check_new_folder
    from fastdpm.data.record import read_record

    record = read_record(out)
    ours = {*_WRITTEN, *(path.name for path in (record.paths(out) if record else ()))}
    check_new_folder(out, ours)
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InvalidArgumentError(
            f"{out} holds an earlier run: choose another --out, or add --overwrite"
        )
    return ours


def check_output(path: Path | None, suffixes: tuple[str, ...], inputs: list[Path]) -> None:
    """Check that a file can be written, before the work is done.

    Raises:
        InvalidArgumentError: If it has another suffix, no folder, or the place of an input.
    """
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.data.files import check_place

    if path is None:
        return
    check_place(path)
    if path.suffix not in suffixes:
        ends = " or ".join(suffixes)
        raise InvalidArgumentError(f"{path} must end in {ends}: choose another name")
    if path.resolve() in [given.resolve() for given in inputs]:
        raise InvalidArgumentError(f"{path} is an input: choose another name")


@contextmanager
def encoding_bar(samples: int, size: int, steps: int, by: str) -> Iterator[RowCallback]:
    """A progress bar; the implicit method tells its rows by their numbers in the decoding plan."""
    from fastdpm.progress import sampling_bar

    rows = 2 * steps if by == "second" else steps
    with sampling_bar(samples, size, rows) as advance:
        backwards = by == "implicit"
        yield lambda first, row: advance(first, rows - 1 - row if backwards else row)
