"""What commands of the inverse direction share: inputs, ways to encode, and notes on latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.expand import OneOf, Options, changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.terminal import console, tell_notes
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.levels import NoiseLevels
    from fastdpm.core.recipe import Recipe
    from fastdpm.inverse.encode import Latents
    from fastdpm.models.model import Model
    from fastdpm.sampling.implicit import ImplicitOptions

Inputs = Annotated[
    list[Path],
    typer.Argument(
        help="Images or mono sounds, or folders, zip archives or Parquet files of them.",
        metavar="INPUT...",
    ),
]
ENCODINGS = OneOf("fastdpm.core.inverse:ENCODINGS")
Most = Annotated[int | None, typer.Option("-n", help="At most so many, the first ones.", min=1)]
encodes = changes(
    choices.Stated,
    without=("method",),
    steps="S, from 2 to T; by default 50, which keeps the latents of most models near noise.",
    kappa="Must be 0: encoding draws no noise.",
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


@dataclass(frozen=True)
class Source(Options):
    """A model, and how samples are made its data."""

    model: choices.ModelName
    condition: Annotated[
        str | None,
        typer.Option(
            help="What the samples are of: labels, one for all or 3,1,4 for each; for a vocoder a"
            " mel spectrogram or a sound, by default each sound's own."
        ),
    ] = None
    resize: Annotated[
        bool,
        typer.Option(
            "--resize",
            help="Crop and scale images to the model's size and colors, center sounds in its"
            " window.",
        ),
    ] = False
    resample: Annotated[
        bool, typer.Option("--resample", help="Resample sounds to the model's rate.")
    ] = False
    checkpoint: choices.Checkpoint = None
    batch_size: choices.BatchSize = None

    def read(self, paths: list[Path], machine: Machine, n: int | None = None) -> Given:
        """Load the model and the samples; the inputs are read before its weights are."""
        from fastdpm.data.condition import read_condition
        from fastdpm.data.inputs import read_samples
        from fastdpm.models.find import find_model

        found = find_model(self.model, self.checkpoint)
        data = found.config.data
        names, x, gain = read_samples(paths, data, resize=self.resize, resample=self.resample, n=n)
        condition = None if self.condition is None else read_condition(self.condition, data)
        if condition is not None and len(condition) not in (1, len(x)):
            raise InvalidArgumentError(
                f"{len(x)} samples need one `condition` for all or one for each, got"
                f" {len(condition)}"
            )
        model = machine.open(found, len(x), self.batch_size)
        return Given(model, names, x, gain, condition)


@dataclass(frozen=True)
class Encoding(Options):
    """How samples are encoded."""

    by: Annotated[str, typer.Option(), ENCODINGS] = "invertible"
    tolerance: Annotated[
        float | None, typer.Option(help="Of --by implicit: largest relative residual.")
    ] = None
    keep_best: Annotated[
        bool,
        typer.Option(
            "--keep-best",
            help="Of --by implicit: go on with the best that was found where a row does not"
            " converge.",
        ),
    ] = False
    without_last_row: Annotated[
        bool,
        typer.Option(
            "--without-last-row",
            help="Leave out the row that ends at clean data, and take the data as its noisy side:"
            " for --by implicit where that row has no inverse, as in digital silence.",
        ),
    ] = False

    @classmethod
    def helps(cls) -> Mapping[str, str]:
        """The ways to encode, as their table has them."""
        from fastdpm.core import inverse

        told = "; ".join(f"{row.name}: {row.summary}" for row in inverse.ENCODINGS.values())
        return {"by": f"How. {told}."}

    @property
    def solver(self) -> ImplicitOptions | None:
        """How implicit rows are solved, as far as it is stated; None if nothing is."""
        from fastdpm.sampling.implicit import ImplicitOptions

        if self.tolerance is None:
            return ImplicitOptions(keep_best=True) if self.keep_best else None
        return ImplicitOptions(tolerance=self.tolerance, keep_best=self.keep_best)

    def levels(self, recipe: Recipe, model: Model) -> NoiseLevels:
        """The levels of a recipe, or all but the cleanest."""
        levels = recipe.choose_levels(model.schedule)
        return levels[:-1] if self.without_last_row else levels

    def encode(self, given: Given, stated: choices.Stated, batch_size: int | None) -> Latents:
        """Encode over the levels that are stated, under a progress bar; notes are printed.

        Raises:
            InvalidArgumentError: If noise is asked for, which does not run backwards.
        """
        from fastdpm.inverse.encode import encode, recommended_recipe
        from fastdpm.progress import sampling_bar

        if stated.kappa:
            raise InvalidArgumentError(
                f"encoding draws no noise: `kappa` must be 0, got {stated.kappa:g}"
            )
        levels = self.levels(stated.recipe(recommended_recipe(given.model)), given.model)
        tell_notes(levels.notes)
        with sampling_bar() as bar:
            return encode(
                given.model,
                given.x,
                levels,
                self.by,
                solver=self.solver,
                condition=given.condition,
                batch_size=batch_size,
                callback=bar,
            )


def note_deviation(latents: Latents) -> None:
    """Print the latents' standard deviation, and what to do where it is far from 1."""
    console.print(f"standard deviation of the latents: {latents.deviation:.3g}")
    if not latents.near_noise:
        console.print(
            "note: that is far from 1: they decode, but are no noise to interpolate; take more"
            " steps, other levels or another --by"
        )


def tell_lost(latents: Latents, names: list[str]) -> str:
    """Print the samples that have no latent, and say what to do about them."""
    from fastdpm.inverse.latents_file import unsolved

    for line in unsolved(latents, names):
        console.print(f"not converged: {line}")
    leave_out = "leave that row out (--without-last-row)"
    other = leave_out if latents.lost_at_clean else "take more steps"
    return f"encode --by invertible, {other}, or add --keep-best"
