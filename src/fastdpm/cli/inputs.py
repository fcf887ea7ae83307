"""What the commands of the inverse direction share: inputs, encoding, and notes on latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastdpm.cli import choices, recipes
from fastdpm.cli.expand import OneOf, Options, changes
from fastdpm.cli.machine import Machine
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, print_notes
from fastdpm.core.errors import InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.guidance import GuidanceScale
    from fastdpm.core.levels import NoiseLevels
    from fastdpm.core.recipe import Recipe
    from fastdpm.data.inputs import Samples
    from fastdpm.inverse.encoding import Latents
    from fastdpm.models.find import FoundModel
    from fastdpm.models.model import Model
    from fastdpm.sampling.implicit import ImplicitOptions

InputPaths = Annotated[
    list[Path],
    typer.Argument(
        help="Images or mono sounds, or folders, zip archives, Parquet or .npz files of them.",
        metavar="INPUT",
    ),
]
ENCODINGS = OneOf("fastdpm.core.inverse:ENCODINGS")
Limit = Annotated[int | None, Panel.INPUT.option("-n", help="Read at most N inputs.", min=1)]
encodes = changes(
    recipes.RecipeOptions,
    without=("named", "recipes", "method", "kappa"),
    panel=Panel.ENCODING,
    steps="Number of steps S, from 1 to T (`--by invertible` needs 2); by default 50, which keeps"
    " the latents of most models near noise.",
)


@dataclass(frozen=True)
class LoadedInputs:
    """A model, and samples as its data."""

    model: Model
    names: list[str]
    x: Tensor
    gain: Tensor
    condition: Tensor | None
    read: tuple[Path | None, ...]

    @property
    def labels(self) -> dict[str, Any]:
        """The class label of each sample, for the record."""
        from fastdpm.data.record import label_facts

        if self.condition is None or self.model.config.data.classes is None:
            return {}
        return label_facts(self.condition.tolist(), range(len(self.x)))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the results, for the record: digests of the model and of its data."""
        from fastdpm.data.tensors import values_digest
        from fastdpm.models.identity import config_digest

        condition = None if self.condition is None else values_digest(self.condition)
        return {
            "network": config_digest(self.model.config),
            "inputs": self.file_names,
            "data": values_digest(self.x),
            "condition": condition,
        }

    @property
    def file_names(self) -> list[str]:
        """The names for records: of the files, without their folders."""
        return [Path(name).name for name in self.names]


@dataclass(frozen=True)
class Source(Options):
    """A model, and how files become its data."""

    model: choices.ModelName
    condition: Annotated[
        str | None,
        Panel.MODEL.option(
            help="For vocoders: a sound file, or a mel spectrogram in a .npy, .pt or"
            " .safetensors file; by default each sound's own.",
            metavar="PATH",
        ),
    ] = None
    class_labels: Annotated[
        str | None,
        Panel.MODEL.option(
            "--class",
            help="For models with classes: one name or label for all inputs, or one for each, such"
            " as horse,3; none is no class, for models with a null class. By default, the labels"
            " of the data.",
            metavar="NAME,...",
        ),
    ] = None
    resize: Annotated[
        bool,
        Panel.INPUT.option(
            "--resize",
            help="Crop and scale images to the model's size; center sounds in its window.",
        ),
    ] = False
    resample: Annotated[
        bool, Panel.INPUT.option("--resample", help="Resample sounds to the model's rate.")
    ] = False
    checkpoint: choices.Checkpoint = None
    batch_size: choices.BatchSize = None

    def find(self) -> FoundModel:
        """Find the model; its weights are not read yet."""
        return choices.find(self.model, self.checkpoint)

    def read(
        self, found: FoundModel, paths: list[Path], machine: Machine, n: int | None = None
    ) -> LoadedInputs:
        """Read the inputs, then load the model."""
        from fastdpm.data.condition import describe_labels, read_condition
        from fastdpm.data.inputs import read_samples

        data = found.config.data
        null = found.config.null_class
        condition = read_condition(self.condition, self.class_labels, data, null)
        samples = read_samples(paths, data, resize=self.resize, resample=self.resample, n=n)
        names, x, gain, _ = samples
        if condition is None and data.classes is not None:
            condition = self._stored_labels(samples, data.classes, null)
            said = describe_labels(condition.tolist(), data)
            console.print(f"class labels found in the inputs: {said}")
        if condition is not None and len(condition) not in (1, len(x)):
            name = "condition" if self.class_labels is None else "class_labels"
            raise InvalidArgumentError(
                f"{len(x)} inputs need one `{name}` for all or one for each, got {len(condition)}"
            )
        model = machine.open(found, len(x), self.batch_size)
        read = (*found.files, *paths, None if self.condition is None else Path(self.condition))
        return LoadedInputs(model, names, x, gain, condition, read)

    def _stored_labels(self, samples: Samples, classes: int, null_class: int | None) -> Tensor:
        """The labels of the data, which must be classes of the model or its null class."""
        wanted = "set `class_labels`, to one name or label for all inputs or one for each"
        if samples.labels is None:
            raise InvalidArgumentError(
                f"{self.model} has {classes} classes, and not every input has an integer label:"
                f" {wanted}"
            )
        for name, label in zip(samples.names, samples.labels.tolist(), strict=True):
            if not 0 <= label < classes and label != null_class:
                raise InvalidArgumentError(
                    f"{name} has label {label}, but {self.model} has the classes 0 to"
                    f" {classes - 1}: {wanted}"
                )
        return samples.labels


def _encodings() -> str:
    from fastdpm.core import inverse

    ways = "; ".join(f"{row.name}: {row.summary}" for row in inverse.ENCODINGS.values())
    return f"Way to encode. {ways}."


@dataclass(frozen=True)
class Encoding(Options):
    """How samples are encoded."""

    by: Annotated[str, Panel.ENCODING.option(help=_encodings), ENCODINGS] = "invertible"
    tolerance: Annotated[
        float | None,
        Panel.ENCODING.option(help="With --by implicit: largest relative residual, in (0, 1)."),
    ] = None
    keep_best: Annotated[
        bool,
        Panel.ENCODING.option(
            "--keep-best",
            help="With --by implicit: use the best iterate of a row that does not converge.",
        ),
    ] = False
    without_last_row: Annotated[
        bool,
        Panel.ENCODING.option(
            "--without-last-row",
            help="Leave out the row that ends at clean data, which --by implicit may not be able"
            " to invert, as in digital silence.",
        ),
    ] = False

    @property
    def solver(self) -> ImplicitOptions | None:
        """How implicit rows are solved; None if no option of the solver is set."""
        from fastdpm.sampling.implicit import ImplicitOptions

        if self.tolerance is None:
            return ImplicitOptions(keep_best=True) if self.keep_best else None
        return ImplicitOptions(tolerance=self.tolerance, keep_best=self.keep_best)

    def levels(self, recipe: Recipe, found: FoundModel) -> NoiseLevels:
        """The levels of a recipe, or all but the cleanest."""
        levels = recipe.choose_levels(found.schedule)
        return levels[:-1] if self.without_last_row else levels

    def choose_levels(self, options: recipes.RecipeOptions, found: FoundModel) -> NoiseLevels:
        """The levels to encode over, and checks of all choices that need no weights."""
        from fastdpm.core.inverse import find_encoding
        from fastdpm.inverse.encoding import check_solver, recommended_recipe

        check_solver(find_encoding(self.by), self.solver)
        return self.levels(options.recipe(recommended_recipe(found)), found)

    def encode(
        self,
        inputs: LoadedInputs,
        levels: NoiseLevels,
        guidance: GuidanceScale,
        batch_size: int | None,
    ) -> Latents:
        """Encode under a progress bar; notes on the levels are printed."""
        from fastdpm.inverse.encoding import encode
        from fastdpm.progress import sampling_bar

        print_notes(levels.notes)
        with sampling_bar() as bar:
            return encode(
                inputs.model,
                inputs.x,
                levels,
                self.by,
                solver=self.solver,
                condition=inputs.condition,
                guidance_scale=guidance,
                batch_size=batch_size,
                callback=bar,
            )


def choose_guidance(guiding: recipes.Guiding, found: FoundModel) -> GuidanceScale:
    """The guidance of the inverse direction: none unless it is set, and a note if that matters."""
    from fastdpm.core.guidance import NO_GUIDANCE

    recommended = found.config.recipe.guidance.describe()
    if recommended and not guiding.names():
        console.print(
            f"note: no guidance is used; the model's recipe for sampling has {recommended}, and"
            " --guidance sets one"
        )
    return guiding.guidance(NO_GUIDANCE)


def note_deviation(latents: Latents) -> None:
    """Print the latents' standard deviation, and what to do if it is far from 1."""
    console.print(f"standard deviation of the latents: {latents.deviation:.3g}")
    if not latents.near_noise:
        console.print(
            "note: that is far from 1: they can be decoded, but not interpolated; use more"
            " --steps, other --levels or another --by"
        )


def print_unconverged(latents: Latents, names: list[str]) -> str:
    """Print the samples that have no latent; returns advice on what to do about them."""
    from fastdpm.inverse.latents_file import unsolved

    for line in unsolved(latents, names):
        console.print(f"not converged: {line}")
    leave_out = "leave out the last row (--without-last-row)"
    other = leave_out if latents.lost_at_clean else "use more --steps"
    return f"encode --by invertible, {other}, or add --keep-best"
