"""``fastdpm reconstruct``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fastdpm.cli import choices
from fastdpm.cli.inputs import ENCODINGS, Encoding, Given, Inputs, Most, Source
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, results_folder
from fastdpm.cli.terminal import console, tell_notes

if TYPE_CHECKING:
    from fastdpm.evaluation.reconstruct import Found

_MOST_NAMED = 10


@dataclass(frozen=True)
class Encodings(Encoding):
    """How samples are encoded, in several ways."""

    by: Annotated[str, typer.Option(), replace(ENCODINGS, several=True)] = (
        "first,second,invertible"
    )


def reconstruct(
    *,
    source: Source,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Overwrite = False,
    n: Most = None,
    encoding: Encodings,
    steps: Annotated[
        str, typer.Option("--steps", "-S", help="Numbers of steps, each from 2 to T.")
    ] = "10,20,50",
    levels: Annotated[
        str | None,
        typer.Option(help="How the S levels are chosen; by default as the recipe does."),
        replace(choices.LEVELS, several=True),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(help="How they are spaced; by default as the recipe does."),
        replace(choices.SPACINGS, several=True),
    ] = None,
    machine: Machine,
) -> None:
    """Encode and decode images or sounds, and measure how near they come back.

    Writes a value for each sample as JSON and CSV (PSNR in dB, of sounds also SNR and log-mel
    distance, evaluations, residual and the latents' standard deviation), PSNR against S as a
    figure, and originals beside reconstructions. No noise is drawn. Reconstructions are cut to
    [-1, 1], as files of them would be, for all but the relative error.
    """
    from fastdpm.core.inverse import find_encoding
    from fastdpm.evaluation import reconstruct as measuring
    from fastdpm.inverse.encode import recommended_recipe
    from fastdpm.progress import sampling_bar

    methods = [find_encoding(n) for n in choices.parse_names("--by", encoding.by, ENCODINGS)]
    kinds = choices.parse_names("--levels", levels, choices.LEVELS)
    spacings = choices.parse_names("--spacing", spacing, choices.SPACINGS)
    counts = choices.parse("--steps", steps, int)
    filled = results_folder(out, overwrite)
    given = source.read(inputs, machine, n)
    grid = measuring.recipe_grid(recommended_recipe(given.model), counts, kinds, spacings)
    chosen = {key: encoding.levels(recipe, given.model) for key, recipe in grid.items()}
    tell_notes(dict.fromkeys(note for compiled in chosen.values() for note in compiled.notes))
    asked = list(product(chosen.items(), methods))
    found = []
    for i, (((choice, count), compiled), method) in enumerate(asked, 1):
        _tell_place(f"{i} of {len(asked)}: {method.name}, {choice}, S = {count}")
        solves = method.solved or not any(each.solved for each in methods)
        with sampling_bar() as bar:
            result = measuring.reconstruct(
                given.model,
                given.x,
                compiled,
                method.name,
                solver=encoding.solver if solves else None,
                condition=given.condition,
                batch_size=source.batch_size,
                callback=bar,
            )
        found.append(measuring.Found(choice, count, result))
    with filled as folder:
        measuring.write_reconstructions(folder, given.model, given.x, given.inputs, found)
    _print(given, found, measuring.TABLE)
    figures = f"{measuring.CURVES} and {measuring.SAMPLES}"
    console.print(f"one line for each sample: {out / measuring.TABLE}; figures: {figures}")


def _tell_place(text: str) -> None:
    """Say which reconstruction comes next, where its progress is drawn."""
    terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if terminal.is_terminal:
        terminal.print(text)


def _print(given: Given, found: Sequence[Found], record: str) -> None:
    """A line for each reconstruction, and the samples that did not converge."""
    names = ("levels", "S", "by", "asked", "PSNR (dB)", "error", "latent std")
    table = Table(*names, box=SIMPLE)
    for one in found:
        result, summary = one.result, one.result.summary
        cells = ["none", "none", "none"]
        if summary is not None:
            cells = [f"{summary.psnr:.1f}", f"{summary.relative:.1e}", f"{summary.deviation:.2f}"]
        each = f"{result.total_evaluations:.4g}"
        table.add_row(one.choice, str(one.num_steps), result.method, each, *cells)
    console.print(f"{len(given.x)} samples by {given.model.config.name}: median PSNR, worst error")
    console.print(
        "asked: network evaluations of encoding, and of decoding where there is a latent"
    )
    console.print(table)
    lost = [
        f"{one.result.method}, {one.choice}, S = {one.num_steps}: {line}"
        for one in found
        for line in one.result.not_converged(given.names)
    ]
    for line in lost[:_MOST_NAMED]:
        console.print(f"not converged: {line}")
    if len(lost) > _MOST_NAMED:
        console.print(f"not converged: {len(lost) - _MOST_NAMED} more, see {record}")
