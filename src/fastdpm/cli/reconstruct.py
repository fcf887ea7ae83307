"""``fastdpm reconstruct``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Annotated

from rich.box import SIMPLE
from rich.table import Table

from fastdpm.cli import choices, recipes
from fastdpm.cli.inputs import (
    ENCODINGS,
    Encoding,
    InputPaths,
    Limit,
    LoadedInputs,
    Source,
    choose_guidance,
)
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import OutFolder
from fastdpm.cli.panels import Panel
from fastdpm.cli.terminal import console, errors, print_notes

if TYPE_CHECKING:
    from fastdpm.evaluation.reconstruction import Found

_MAX_LINES = 10


@dataclass(frozen=True)
class Encodings(Encoding):
    """How samples are encoded, in several ways."""

    by: Annotated[
        str,
        Panel.ENCODING.option(help="Ways to encode, separated by commas; see `encode`."),
        replace(ENCODINGS, several=True),
    ] = "first,second,invertible"


def reconstruct(
    *,
    source: Source,
    inputs: InputPaths,
    folder: OutFolder,
    n: Limit = None,
    encoding: Encodings,
    steps: Annotated[
        str,
        Panel.ENCODING.option(
            "--steps",
            "-S",
            help="Numbers of steps S, each from 1 to T (`--by invertible` needs 2).",
            metavar="N,...",
        ),
    ] = "10,20,50",
    levels: Annotated[
        str | None,
        Panel.ENCODING.option(
            help="Choose the noise levels by variance, by training step, or both in turn; by"
            " default as in the recommended recipe."
        ),
        replace(recipes.LEVELS, several=True),
    ] = None,
    spacing: Annotated[
        str | None,
        Panel.ENCODING.option(
            help="Spacing of the levels; by default as in the recommended recipe."
        ),
        replace(recipes.SPACINGS, several=True),
    ] = None,
    guiding: recipes.Guiding,
    machine: Machine,
) -> None:
    """Encode and decode images or sounds, and measure how close the results are.

    Writes values for each input as JSON and CSV (PSNR in dB; for sounds also SNR and log-mel
    distance; network evaluations, residual, and the latents' standard deviation), PSNR against S
    as a figure, and originals next to reconstructions. Reconstructions are clipped to [-1, 1],
    as files would be, except in the relative error.
    """
    from fastdpm.core.inverse import find_encoding
    from fastdpm.evaluation import reconstruction as measuring
    from fastdpm.evaluation.reconstruction_parts import ReconstructionParts
    from fastdpm.inverse.encoding import check_solver, recommended_recipe
    from fastdpm.output.folder import made_by
    from fastdpm.progress import sampling_bar

    methods = [find_encoding(n) for n in choices.parse_names("--by", encoding.by, ENCODINGS)]
    kinds = choices.parse_names("--levels", levels, recipes.LEVELS)
    spacings = choices.parse_names("--spacing", spacing, recipes.SPACINGS)
    counts = choices.parse("--steps", steps, int)
    if not any(method.solved for method in methods):
        check_solver(methods[0], encoding.solver)
    folder.check()
    model = source.find()
    grid = measuring.recipe_grid(recommended_recipe(model), counts, kinds, spacings)
    chosen = {key: encoding.levels(recipe, model) for key, recipe in grid.items()}
    guidance = choose_guidance(guiding, model)
    loaded = source.read(model, inputs, machine, n)
    print_notes(dict.fromkeys(note for compiled in chosen.values() for note in compiled.notes))
    runs = list(product(chosen.items(), methods))
    identity = {
        **made_by(model.config),
        **loaded.identity,
        "levels": [compiled.label for compiled in chosen.values()],
        "by": [method.name for method in methods],
        "solver": str(encoding.solver),
        "guidance": guidance.record,
    }
    with folder.claim("reconstruct", identity, loaded.read) as run:
        parts = ReconstructionParts(run)
        if {measuring.RECORD, measuring.TABLE} <= set(run.files):
            parts.remove()
            console.print(f"{run.path} has all of these reconstructions")
            return
        for i, (((choice, count), compiled), method) in enumerate(runs, 1):
            if i <= len(parts.found):
                continue
            _print_position(f"{i} of {len(runs)}: {method.name}, {choice}, S = {count}")
            with sampling_bar() as bar:
                result = measuring.reconstruct(
                    loaded.model,
                    loaded.x,
                    compiled,
                    method.name,
                    solver=encoding.solver if method.solved else None,
                    condition=loaded.condition,
                    guidance_scale=guidance,
                    batch_size=source.batch_size,
                    callback=bar,
                )
            parts.write(measuring.Found(choice, count, result))
        with parts.finished() as place:
            written = (loaded.model, loaded.x, loaded.file_names, parts.found)
            measuring.write_reconstructions(place, *written)
    _print(loaded, parts.found, measuring.TABLE)
    figures = f"{measuring.CURVES} and {measuring.SAMPLES}"
    console.print(f"values of each input: {run.path / measuring.TABLE}; figures: {figures}")


def _print_position(text: str) -> None:
    """Say which reconstruction comes next, on the terminal that shows its progress."""
    if errors.is_terminal:
        errors.print(text)


def _print(loaded: LoadedInputs, found: Sequence[Found], record: str) -> None:
    """A line for each reconstruction, and the samples that did not converge."""
    names = ("levels", "S", "by", "NFE", "PSNR (dB)", "error", "latent std")
    table = Table(*names, box=SIMPLE)
    for one in found:
        result, summary = one.result, one.result.summary
        cells = ["none", "none", "none"]
        if summary is not None:
            cells = [f"{summary.psnr:.1f}", f"{summary.relative:.1e}", f"{summary.deviation:.2f}"]
        each = f"{result.total_evaluations:.4g}"
        table.add_row(one.choice, str(one.num_steps), result.method, each, *cells)
    console.print(
        f"{len(loaded.x)} samples by {loaded.model.config.name}: median PSNR, largest error;"
        " NFE are the network evaluations of encoding and decoding"
    )
    console.print(table)
    lost = [
        f"{one.result.method}, {one.choice}, S = {one.num_steps}: {line}"
        for one in found
        for line in one.result.not_converged(loaded.names)
    ]
    for line in lost[:_MAX_LINES]:
        console.print(f"not converged: {line}")
    if len(lost) > _MAX_LINES:
        console.print(f"not converged: {len(lost) - _MAX_LINES} more, see {record}")
