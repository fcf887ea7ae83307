"""What several commands take: options of sampling and measuring, and how their text is read."""

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
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError, check_one_of

if TYPE_CHECKING:
    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.evaluation.cache import Cache

Clip = Annotated[
    str | None,
    typer.Option(help="What is done to the clean data that a prediction implies."),
    OneOf("fastdpm.core.recipe:CLIPS"),
]
Seed = Annotated[int, typer.Option(help="Sample i depends on the seed and i alone.", min=0)]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples at a time; by default by their size.", min=1)
]
Precision = Annotated[
    str, typer.Option(help="Of the network."), OneOf("fastdpm.core.recipe:PRECISIONS")
]
ModelName = Annotated[
    str,
    typer.Argument(
        help="Built-in name, model folder, diffusers folder, hf:owner/name, published checkpoint,"
        " or preset (with --checkpoint)."
    ),
]
Checkpoint = Annotated[Path | None, typer.Option(help="The published weights of a preset.")]
Against = Annotated[
    str | None,
    typer.Option(
        help="What to measure against: a folder, zip, Parquet or statistics file; by default the"
        " data of the built-in feature network. For a vocoder, the recordings."
    ),
]
Features = Annotated[
    str | None,
    typer.Option(help="A feature network (name or folder) in place of the built-in one."),
]
Inception = Annotated[
    str | None,
    typer.Option(help="Weights of Inception-v3, a file or auto, for the published FID."),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where samples, features and results are kept; by default $FASTDPM_CACHE or the"
        " user's folder for such files.",
    ),
]
LEVELS = OneOf("fastdpm.core.choices:level_names")
SPACINGS = OneOf("fastdpm.core.choices:spacing_names")
_VALUES: dict[type, str] = {int: "whole numbers", float: "numbers", str: "names"}
T = TypeVar("T", int, float, str)


@dataclass(frozen=True)
class Stated(Options):
    """What a command line states of a recipe; None or False where it says nothing."""

    steps: Annotated[
        int | None, typer.Option("--steps", "-S", help="S, network evaluations, from 2 to T.")
    ] = None
    levels: Annotated[str | None, typer.Option(help="How the S levels are chosen."), LEVELS] = None
    spacing: Annotated[str | None, typer.Option(help="How they are spaced."), SPACINGS] = None
    kappa: Annotated[
        float | None, typer.Option(help="0 is DDIM-rev, 1 is DDPM-rev, or in between.")
    ] = None
    method: Annotated[
        str | None, typer.Option(help="The sampler."), OneOf("fastdpm.core.samplers:SAMPLERS")
    ] = None
    unbounded: Annotated[
        bool, typer.Option("--unbounded", help="VAR without the authors' bound on its variances.")
    ] = False
    at_steps: Annotated[
        str | None, typer.Option(help="Steps by hand, zero-based and falling: 900,500,100.")
    ] = None
    at_levels: Annotated[str | None, typer.Option(help="Levels by hand, rising: 0.1,0.5,0.9.")] = (
        None
    )
    variances: Annotated[
        str | None,
        typer.Option(help="Variances by hand, clean end first: 1e-4,1e-3,0.01,0.05,0.2,0.5."),
    ] = None

    def recipe(self, recommended: Recipe, clip: str | None = None) -> Recipe:
        """The recommended recipe with the stated choices changed."""
        by_hand = {
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
            **by_hand,
        )

    def names(self) -> list[str]:
        """The options that are stated, as they are typed."""
        stated = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
        return [f"--{name.replace('_', '-')}" for name in stated]


@dataclass(frozen=True)
class Sampling(Stated):
    """How to sample: a recipe, or a plan that was compiled from one."""

    plan: Annotated[Path | None, typer.Option(help="A plan saved by `fastdpm plan --save`.")] = (
        None
    )
    clip: Clip = None

    def choose(self, recommended: Recipe) -> tuple[Recipe, Plan | None]:
        """The recipe, and the saved plan, which leaves nothing of it to choose but clipping."""
        recipe = self.recipe(recommended, self.clip)
        if self.plan is None:
            return recipe, None
        idle = [name for name in self.names() if name not in ("--plan", "--clip")]
        if idle:
            raise InvalidArgumentError(
                f"--plan leaves nothing to choose for {' and '.join(idle)}: drop one of them"
            )
        return recipe, read_plan(self.plan)


def told_command() -> str:
    """The command line as others can use it: files by their names, not by where they lie here."""
    arguments = [Path(value).name if "/" in value else value for value in sys.argv[1:]]
    return shlex.join(["fastdpm", *arguments])


def parse(option: str, text: str | None, kind: type[T]) -> list[T]:
    """Values separated by commas: int, float or str; none where nothing is stated."""
    parts = [] if text is None else [part.strip() for part in text.split(",")]
    try:
        if all(parts):
            return [kind(part) for part in parts]
    except ValueError:
        pass  # refused below, together with empty parts
    raise InvalidArgumentError(f"{option} takes {_VALUES[kind]} separated by commas, got {text!r}")


def parse_names(option: str, text: str | None, known: OneOf) -> list[str]:
    """Names of a table separated by commas, each once; none where nothing is stated."""
    names = list(dict.fromkeys(parse(option, text, str)))
    for name in names:
        check_one_of(option, name, known.names)
    return names


def read_plan(path: Path) -> Plan:
    """A plan saved by `fastdpm plan --save`."""
    from fastdpm.core.plan import Plan

    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
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
    """Say, where a measurement is interrupted, what became of it."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: what was finished is kept in {cache.root}; the same command goes on"
        ) from None
