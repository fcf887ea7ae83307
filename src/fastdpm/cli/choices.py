"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fastdpm.cli.expand import OneOf, Options
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import print_notes
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError, check_one_of

if TYPE_CHECKING:
    from fastdpm.core.guidance import GuidanceScale
    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.evaluation.cache import Cache
    from fastdpm.models.find import FoundModel

Clip = Annotated[
    str | None,
    Panel.SAMPLING.option(
        help="Clip the predicted clean data to [-1, 1] (x0) or to a dynamic range, or the state of"
        " each row to [-1, 1]."
    ),
    OneOf("fastdpm.core.recipe:CLIPS"),
]
Seed = Annotated[
    int, Panel.SAMPLING.option(help="Seed of the noise; sample i depends on it and on i.", min=0)
]
BatchSize = Annotated[
    int | None,
    Panel.COMPUTATION.option(help="Samples per batch; by default chosen by their size.", min=1),
]
Precision = Annotated[
    str,
    Panel.COMPUTATION.option(help="Numeric precision of the network."),
    OneOf("fastdpm.core.recipe:PRECISIONS"),
]
ModelName = Annotated[
    str,
    typer.Argument(
        help="Built-in name, model folder, diffusers folder, hf:owner/name, published checkpoint,"
        " or preset (with --checkpoint).",
        metavar="MODEL",
    ),
]
Checkpoint = Annotated[
    Path | None, Panel.MODEL.option(help="File of a preset's published weights.")
]
Condition = Annotated[
    str | None,
    Panel.MODEL.option(
        help="For vocoders: a sound file, or a mel spectrogram in a .npy, .pt or .safetensors"
        " file.",
        metavar="PATH",
    ),
]
ClassLabels = Annotated[
    str | None,
    Panel.MODEL.option(
        "--class",
        help="For models with classes: names or labels separated by commas, such as horse,3; none"
        " is no class, for models with a null class.",
        metavar="NAME,...",
    ),
]
Against = Annotated[
    str | None,
    Panel.MEASUREMENT.option(
        help="Reference data: a folder, zip, Parquet or statistics file; by default the data of"
        " the built-in feature network. For vocoders, the recordings.",
        metavar="PATH",
    ),
]
Features = Annotated[
    str | None,
    Panel.MEASUREMENT.option(
        help="Feature network, a name or a folder; by default the built-in one.", metavar="NAME"
    ),
]
Inception = Annotated[
    str | None,
    Panel.MEASUREMENT.option(
        help="Weights of Inception-v3 for the published FID: a file, or auto.", metavar="PATH"
    ),
]
CacheFolder = Annotated[
    Path | None,
    Panel.MEASUREMENT.option(
        "--cache",
        help="Folder that keeps samples, features and results; by default $FASTDPM_CACHE, or the"
        " user's cache folder.",
    ),
]
LEVELS = OneOf("fastdpm.core.choices:level_names")
SPACINGS = OneOf("fastdpm.core.choices:spacing_names")
_VALUES: dict[type, str] = {int: "whole numbers", float: "numbers", str: "names"}
T = TypeVar("T", int, float, str)


@dataclass(frozen=True)
class RecipeOptions(Options):
    """The options that change a recipe; None or False where an option is not set."""

    steps: Annotated[
        int | None,
        Panel.SAMPLING.option(
            "--steps", "-S", help="Number of network evaluations S without guidance, from 1 to T."
        ),
    ] = None
    levels: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Choose the noise levels by variance (VAR), by training step (STEP) or by noise"
            " scale (SIGMA)."
        ),
        LEVELS,
    ] = None
    spacing: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Spacing of the levels; quadratic ones are denser near clean data. See"
            " docs/samplers.md."
        ),
        SPACINGS,
    ] = None
    kappa: Annotated[
        float | None,
        Panel.SAMPLING.option(help="Stochasticity, from 0 (DDIM-rev) to 1 (DDPM-rev)."),
    ] = None
    method: Annotated[
        str | None, Panel.SAMPLING.option(help="Sampler."), OneOf("fastdpm.core.samplers:SAMPLERS")
    ] = None
    unbounded: Annotated[
        bool, Panel.SAMPLING.option("--unbounded", help="Lift the bound on VAR's variances.")
    ] = False
    start: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="Where STEP quadratic starts, as a share of T in (0, 1]; by default 0.8."
        ),
    ] = None
    at_steps: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Custom training steps, zero-based and falling: 900,500,100.", metavar="X,..."
        ),
    ] = None
    at_levels: Annotated[
        str | None,
        Panel.SAMPLING.option(help="Custom noise levels, rising: 0.1,0.5,0.9.", metavar="X,..."),
    ] = None
    variances: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Custom variances, clean end first: 1e-4,0.01,0.5.", metavar="X,..."
        ),
    ] = None

    def recipe(self, recommended: Recipe, clip: str | None = None) -> Recipe:
        """The recommended recipe, changed by the options that are set."""
        custom = {
            name: tuple(parse(f"--{name.replace('_', '-')}", getattr(self, name), float)) or None
            for name in ("at_steps", "at_levels", "variances")
        }
        return recommended.replace(
            num_steps=self.steps,
            levels=self.levels,
            spacing=self.spacing,
            kappa=self.kappa,
            method=self.method,
            clip=clip,
            bounded=False if self.unbounded else None,
            start=self.start,
            **custom,
        )

    def names(self) -> list[str]:
        """The options that are set, as they are typed."""
        chosen = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
        return [f"--{name.replace('_', '-')}" for name in chosen]


@dataclass(frozen=True)
class Guiding(Options):
    """How the network is guided; None where an option is not set."""

    guidance_scale: Annotated[
        str | None,
        Panel.SAMPLING.option(
            "--guidance",
            help="Scale of classifier-free guidance, or one for each row of the plan: 1 is none,"
            " and above 1 strengthens the class or condition. Scales other than 0 and 1 take two"
            " network evaluations per row.",
            metavar="X,...",
        ),
    ] = None
    guidance_interval: Annotated[
        str | None,
        Panel.SAMPLING.option(
            help="Lowest and highest noise level with guidance, up to 1 (clean): 0.2:0.9.",
            metavar="FROM:TO",
        ),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        Panel.SAMPLING.option(
            help="How far guided predictions keep the standard deviation of unguided ones, from 0"
            " to 1."
        ),
    ] = None

    def recipe(self, recipe: Recipe) -> Recipe:
        """The recipe, changed by the options that are set."""
        scales = parse("--guidance", self.guidance_scale, float)
        return recipe.replace(
            guidance_scale=None if not scales else scales[0] if len(scales) == 1 else scales,
            guidance_interval=parse_range("--guidance-interval", self.guidance_interval),
            guidance_rescale=self.guidance_rescale,
        )

    def guidance(self, default: GuidanceScale) -> GuidanceScale:
        """A guidance, changed by the options that are set."""
        from fastdpm.core.recipe import Recipe

        return self.recipe(Recipe().replace(guidance_scale=default)).guidance

    def names(self) -> list[str]:
        """The options that are set, as they are typed."""
        typed = {"guidance_scale": "--guidance"}
        chosen = [f.name for f in fields(self) if getattr(self, f.name) is not None]
        return [typed.get(name, f"--{name.replace('_', '-')}") for name in chosen]


@dataclass(frozen=True)
class Sampling(RecipeOptions):
    """How to sample: a recipe, or a plan that was compiled from one."""

    plan: Annotated[
        Path | None,
        Panel.SAMPLING.option(
            help="Plan saved by `fastdpm plan --save`, in place of --steps to --variances."
        ),
    ] = None
    clip: Clip = None

    def choose(self, recommended: Recipe) -> tuple[Recipe, Plan | None]:
        """The recipe, and the saved plan, which leaves only clipping to choose."""
        recipe = self.recipe(recommended, self.clip)
        if self.plan is None:
            return recipe, None
        idle = [name for name in self.names() if name not in ("--plan", "--clip")]
        if idle:
            raise InvalidArgumentError(
                f"--plan already decides {' and '.join(idle)}: use one or the other"
            )
        return recipe, read_plan(self.plan)


def find(model: str, checkpoint: Path | None) -> FoundModel:
    """Find a model, and print what was chosen and assumed about its weights."""
    from fastdpm.models.find import find_model

    found = find_model(model, checkpoint)
    print_notes(found.notes)
    return found


def note_idle_guidance(stated: GuidanceScale, used: GuidanceScale, plan: Plan) -> None:
    """Print a note if guidance that was set changes nothing."""
    if stated.enabled and not used.enabled:
        print_notes(["guidance has no effect without a class, so none is used"])
    elif used.interval is not None and (used.per_row(plan.network_level) == 1).all():
        low, high = plan.network_level.min(), plan.network_level.max()
        print_notes(
            [
                f"guidance has no effect: the levels of the plan, {low:.4g} to {high:.4g}, are all"
                " outside of --guidance-interval"
            ]
        )


def command_line(*without: str) -> str:
    """This command line as others can use it: files by name, without the folders they are in.

    Args:
        without: Options to leave out, with their values: flags, or "--option=".
    """
    arguments = iter(sys.argv[1:])
    kept = []
    for value in arguments:
        name, equals, _ = value.partition("=")
        if f"{name}=" in without and not equals:
            next(arguments, None)
        if name not in without and f"{name}=" not in without:
            kept.append(Path(value).name if "/" in value else value)
    return shlex.join(["fastdpm", *kept])


def parse(option: str, text: str | None, kind: type[T]) -> list[T]:
    """Values separated by commas: int, float or str; none if the option is not set."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    try:
        if all(parts):
            return [kind(part) for part in parts]
    except ValueError:
        pass  # refused below, together with empty parts
    raise InvalidArgumentError(f"{option} takes {_VALUES[kind]} separated by commas, got {text!r}")


def parse_range(
    option: str, text: str | None, what: str = "numbers", example: str = "0.2:0.9"
) -> tuple[float, float] | None:
    """Two numbers separated by a colon; None if the option is not set."""
    if text is None:
        return None
    try:
        first, last = (float(part) for part in text.split(":"))
    except ValueError:
        raise InvalidArgumentError(
            f"{option} takes two {what}, such as {example}, got {text!r}"
        ) from None
    return first, last


def parse_names(option: str, text: str | None, known: OneOf) -> list[str]:
    """Names of a table separated by commas, each once; none if the option is not set."""
    names = list(dict.fromkeys(parse(option, text, str)))
    for name in names:
        check_one_of(option, name, known.names)
    return names


def parse_classes(text: str | None) -> list[str] | None:
    """Names or labels of classes separated by commas; None if the option is not set."""
    return None if text is None else [name.strip() for name in text.split(",")]


def read_plan(path: Path) -> Plan:
    """A plan saved by `fastdpm plan --save`."""
    from fastdpm.core.limits import read_text
    from fastdpm.core.plan import Plan

    try:
        return Plan.from_json(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidArgumentError(f"no plan at {str(path)!r}: {reason}") from None
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{path}: {error}") from None


def open_cache(folder: Path | None) -> Cache:
    """The cache in a folder, or in the default place."""
    from fastdpm.evaluation.cache import Cache, default_cache

    if folder is not None and folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(f"{folder} is a file: choose another --cache")
    return default_cache() if folder is None else Cache(folder)


@contextmanager
def keeping(cache: Cache) -> Iterator[None]:
    """If a measurement is interrupted, say where its results are kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: finished parts are kept in {cache.root}; run the same command again to"
            " continue"
        ) from None
