"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fastdpm.cli.expand import OneOf
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import print_notes
from fastdpm.core.errors import InterruptedRunError, InvalidArgumentError, check_one_of

if TYPE_CHECKING:
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
_VALUES: dict[type, str] = {int: "whole numbers", float: "numbers", str: "names"}
T = TypeVar("T", int, float, str)


def find(model: str, checkpoint: Path | None) -> FoundModel:
    """Find a model, and print what was chosen and assumed about its weights."""
    from fastdpm.models.find import find_model

    found = find_model(model, checkpoint)
    print_notes(found.notes)
    return found


TunedPlans = Annotated[
    str | None,
    Panel.SAMPLING.option(
        "--plan",
        help="Files of tuned plans to measure as the method tuned, separated by commas; by default"
        " those in the model folder.",
        metavar="FILE,...",
    ),
]


def with_plans(
    found: FoundModel, text: str | None, methods: Sequence[str], steps: Sequence[int]
) -> FoundModel:
    """The model with other tuned plans; as it is if none are set.

    Args:
        found: The model.
        text: What was typed.
        methods: The methods that are chosen; empty for those that fit.
        steps: The values of S; empty for those of the command.
    """
    from fastdpm.core.samplers import TUNED
    from fastdpm.models.tuned import TunedPlan, read_plan

    files: dict[int, Path] = {}
    if text is not None and methods and TUNED not in methods:
        raise InvalidArgumentError(f"--plan needs {TUNED} among --methods: add it, or drop --plan")
    for path in map(Path, parse("--plan", text, str)):
        tuned = read_plan(path)
        if not isinstance(tuned, TunedPlan):
            raise InvalidArgumentError(f"{path} is no tuned plan: write one with `fastdpm tune`")
        count = tuned.num_steps
        if count in files:
            raise InvalidArgumentError(
                f"{files[count]} and {path} are both for S = {count}: choose one"
            )
        if steps and count not in steps:
            raise InvalidArgumentError(f"{path} is for S = {count}, which is not among --steps")
        files[count] = path
    return replace(found, plan_files=files) if files else found


def command_line(*without: str) -> str:
    """This command line as others can use it: files at absolute paths by their names alone.

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
            kept.append(Path(value).name if Path(value).is_absolute() else value)
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
