"""Options that several commands share: how to sample, on what, and what to measure with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastdpm.cli.expand import Options

if TYPE_CHECKING:
    from fastdpm.core.plan import Plan
    from fastdpm.core.recipe import Recipe
    from fastdpm.evaluation.cache import Cache

NumSteps = Annotated[
    int | None,
    typer.Option("--steps", "-S", help="S, network evaluations, from 2 to T.", show_default=False),
]
Levels = Annotated[str | None, typer.Option(show_default=False)]
Spacing = Annotated[str | None, typer.Option(show_default=False)]
Kappa = Annotated[
    float | None,
    typer.Option(help="0 is DDIM-rev, 1 is DDPM-rev, or in between.", show_default=False),
]
Method = Annotated[str | None, typer.Option(show_default=False)]
Unbounded = Annotated[
    bool, typer.Option("--unbounded", help="VAR without the authors' bound on its variances.")
]
AtSteps = Annotated[
    str | None,
    typer.Option(help="Steps by hand, zero-based and falling: 900,500,100.", show_default=False),
]
AtLevels = Annotated[
    str | None,
    typer.Option(help="Levels by hand, rising: 0.1,0.5,0.9.", show_default=False),
]
Variances = Annotated[
    str | None,
    typer.Option(
        help="Variances by hand, clean end first: 1e-4,1e-3,0.01,0.05,0.2,0.5.",
        show_default=False,
    ),
]
SavedPlan = Annotated[
    Path | None,
    typer.Option("--plan", help="A plan saved by `fastdpm plan --save`.", show_default=False),
]
Clip = Annotated[
    str | None,
    typer.Option(help="none, x0 (clip the implied data) or dynamic.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Sample i depends on the seed and i alone.", min=0)]
BatchSize = Annotated[
    int | None, typer.Option(help="Samples at a time; by default by their size.", min=1)
]
Precision = Annotated[str, typer.Option(help="Of the network: float32, bf16 or fp16.")]
ModelName = Annotated[
    str,
    typer.Argument(
        help="Built-in name, model folder, diffusers folder, hf:owner/name, published checkpoint,"
        " or preset (with --checkpoint)."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="The published weights of a preset.", show_default=False),
]
Against = Annotated[
    str | None,
    typer.Option(
        help="What to measure against: a folder, zip, Parquet or statistics file; by default the"
        " data of the built-in feature network. For a vocoder, the recordings.",
        show_default=False,
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        help="A feature network (name or folder) in place of the built-in one.",
        show_default=False,
    ),
]
Inception = Annotated[
    str | None,
    typer.Option(
        help="Weights of Inception-v3, a file or auto, for the published FID.",
        show_default=False,
    ),
]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        help="Where samples, features and results are kept; by default $FASTDPM_CACHE or the"
        " user's folder for such files.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Stated(Options):
    """What a command line states of a recipe; None or False where it says nothing."""

    steps: NumSteps = None
    levels: Levels = None
    spacing: Spacing = None
    kappa: Kappa = None
    method: Method = None
    unbounded: Unbounded = False
    at_steps: AtSteps = None
    at_levels: AtLevels = None
    variances: Variances = None

    @classmethod
    def helps(cls) -> Mapping[str, str]:
        """What the tables of samplers and levels hold."""
        from fastdpm.core.choices import first_names, second_names
        from fastdpm.core.samplers import SAMPLERS

        return {
            "method": f"{listed(SAMPLERS)}.",
            "levels": f"{listed(first_names())}: how the S levels are chosen.",
            "spacing": f"{listed(second_names())}.",
        }

    def recipe(self, recommended: Recipe, clip: str | None = None) -> Recipe:
        """The recommended recipe with the stated choices changed."""
        return recommended.replace(
            num_steps=self.steps,
            levels=self.levels,
            spacing=self.spacing,
            kappa=self.kappa,
            method=self.method,
            clip=clip,
            bounded=False if self.unbounded else None,
            at_steps=parse_numbers("--at-steps", self.at_steps),
            at_levels=parse_numbers("--at-levels", self.at_levels),
            variances=parse_numbers("--variances", self.variances),
        )

    def names(self) -> list[str]:
        """The options that are stated, as they are typed."""
        stated = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
        return [f"--{name.replace('_', '-')}" for name in stated]

    def check_none_beside_plan(self) -> None:
        """Raise if a choice is stated beside a saved plan, which leaves nothing to choose."""
        from fastdpm.core.errors import InvalidArgumentError

        if self.names():
            raise InvalidArgumentError(
                f"--plan leaves nothing to choose for {' and '.join(self.names())}: drop one of"
                " them"
            )


def listed(names: Iterable[str]) -> str:
    """Names with commas and an "or"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def told_command() -> str:
    """The command line as others can use it: files by their names, not by where they lie here."""
    arguments = [Path(value).name if "/" in value else value for value in sys.argv[1:]]
    return shlex.join(["fastdpm", *arguments])


def parse_whole_numbers(name: str, text: str) -> list[int]:
    """Whole numbers separated by commas."""
    from fastdpm.core.errors import InvalidArgumentError

    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InvalidArgumentError(
            f"{name} takes whole numbers separated by commas, got {text!r}"
        ) from None


def read_plan(path: Path) -> Plan:
    """A plan saved by `fastdpm plan --save`."""
    from fastdpm.core.errors import InvalidArgumentError
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
    from fastdpm.core.errors import InvalidArgumentError
    from fastdpm.evaluation.cache import Cache, default_cache

    if folder is not None and folder.exists() and not folder.is_dir():
        raise InvalidArgumentError(f"{folder} is a file: choose another --cache")
    return default_cache() if folder is None else Cache(folder)


@contextmanager
def kept_in(cache: Cache) -> Iterator[None]:
    """Say of what is interrupted that the same command goes on where it was."""
    from fastdpm.core.errors import InterruptedRunError

    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"interrupted: what was finished is kept in {cache.root}; the same command goes on"
        ) from None


def parse_numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    """Numbers separated by commas."""
    from fastdpm.core.errors import InvalidArgumentError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgumentError(
            f"{name} takes numbers separated by commas, got {text!r}"
        ) from None
