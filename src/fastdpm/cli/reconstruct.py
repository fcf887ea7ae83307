"""``fastdpm reconstruct``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fastdpm.cli import choices
from fastdpm.cli.inputs import Encoding, Given, Inputs, Most, Source
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, results_folder
from fastdpm.cli.terminal import console, tell_notes
from fastdpm.core.errors import check_one_of

if TYPE_CHECKING:
    from fastdpm.evaluation.reconstruct import Found

_MOST_NAMED = 10


@dataclass(frozen=True)
class Encodings(Encoding):
    """How samples are encoded, in several ways."""

    by: Annotated[
        str,
        typer.Option(help="Some of first, second, invertible and implicit, which takes longest."),
    ] = "first,second,invertible"


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
        str | None, typer.Option(help="var, step or var,step; by default the recipe's.")
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(help="linear, quadratic or linear,quadratic; by default the recipe's."),
    ] = None,
    machine: Machine,
) -> None:
    """Encode and decode images or sounds, and measure how near they come back.

    Writes a value for each sample as JSON and CSV (PSNR in dB, of sounds also SNR and log-mel
    distance, evaluations, residual and the latents' standard deviation), PSNR against S as a
    figure, and originals beside reconstructions. No noise is drawn. Reconstructions are cut to
    [-1, 1], as files of them would be, for all but the relative error.
    """
    from fastdpm.evaluation.reconstruct import CURVES, SAMPLES, TABLE, Found, write_reconstructions
    from fastdpm.evaluation.reconstruct import reconstruct as measure
    from fastdpm.inverse.encode import METHODS, recommended_recipe
    from fastdpm.progress import sampling_bar

    methods = list(dict.fromkeys(choices.parse("--by", encoding.by, str)))
    kinds = choices.parse("--levels", levels, str)
    spacings = choices.parse("--spacing", spacing, str)
    for method in methods:
        check_one_of("`method`", method, METHODS)
    counts = sorted(set(choices.parse("--steps", steps, int)))
    filled = results_folder(out, overwrite)
    given = source.read(inputs, machine, n)
    recipe = recommended_recipe(given.model)
    chosen = {
        (f"{kind.upper()} {space}", count): encoding.levels(
            recipe.replace(num_steps=count, levels=kind, spacing=space), given.model
        )
        for kind, space, count in product(
            kinds or [recipe.levels], spacings or [recipe.spacing], counts
        )
    }
    tell_notes(dict.fromkeys(note for compiled in chosen.values() for note in compiled.notes))
    asked = list(product(chosen.items(), methods))
    found = []
    for i, (((choice, count), compiled), method) in enumerate(asked, 1):
        _tell_place(f"{i} of {len(asked)}: {method}, {choice}, S = {count}")
        options = encoding.solver if method == "implicit" or "implicit" not in methods else None
        with sampling_bar() as bar:
            result = measure(
                given.model,
                given.x,
                compiled,
                method,
                solver=options,
                condition=given.condition,
                batch_size=source.batch_size,
                callback=bar,
            )
        found.append(Found(choice, count, result))
    with filled as folder:
        write_reconstructions(folder, given.model, given.x, given.inputs, found)
    _print(given, found, TABLE)
    console.print(f"one line for each sample: {out / TABLE}; figures: {CURVES} and {SAMPLES}")


def _tell_place(text: str) -> None:
    """Say which reconstruction comes next, where its progress is drawn."""
    terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if terminal.is_terminal:
        terminal.print(text)


def _print(given: Given, found: Sequence[Found], record: str) -> None:
    """A line for each reconstruction, and the samples that did not converge."""
    import numpy as np

    names = ("levels", "S", "by", "asked", "PSNR (dB)", "error", "latent std")
    table = Table(*names, box=SIMPLE)
    for one in found:
        result = one.result
        kept = ~np.isnan(result.psnr)
        cells = ["none", "none", "none"]
        if kept.any():
            deviation = np.sqrt(np.mean(np.square(np.array(result.deviation)[kept])))
            cells = [
                f"{np.median(np.array(result.psnr)[kept]):.1f}",
                f"{np.max(np.array(result.relative)[kept]):.1e}",
                f"{deviation:.2f}",
            ]
        each = np.mean(result.evaluations) + result.decoding * np.mean(kept)
        table.add_row(one.choice, str(one.num_steps), result.method, f"{each:.4g}", *cells)
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
