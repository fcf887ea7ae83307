"""``fastdpm reconstruct``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from fastdpm.cli import choices
from fastdpm.cli.inputs import (
    Given,
    Inputs,
    KeepBest,
    Most,
    Source,
    Tolerance,
    WithoutLastRow,
    cut,
    encoding_recipe,
    solver_of,
)
from fastdpm.cli.machine import Machine
from fastdpm.cli.outputs import Overwrite, check_folder
from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from torch import Tensor

    from fastdpm.core.levels import NoiseLevels
    from fastdpm.evaluation.reconstruct import Reconstruction
    from fastdpm.output.figures_inverse import Curve
    from fastdpm.sampling.implicit import ImplicitOptions

_RECORD, _TABLE = "reconstruct.json", "reconstruct.csv"
_CURVES, _SAMPLES = "psnr.png", "samples.png"
_MOST_NAMED = 10
_MOST_DRAWN_DB = 200.0  # a picture has no place for what is exact


class Found(NamedTuple):
    """A reconstruction and what it was asked for: the choice of levels, and S."""

    choice: str
    num_steps: int
    result: Reconstruction


def reconstruct(
    *,
    source: Source,
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    overwrite: Overwrite = False,
    n: Most = None,
    by: Annotated[
        str,
        typer.Option(help="Some of first, second, invertible and implicit, which takes longest."),
    ] = "first,second,invertible",
    steps: Annotated[
        str, typer.Option("--steps", "-S", help="Numbers of steps, each from 2 to T.")
    ] = "10,20,50",
    levels: Annotated[
        str | None,
        typer.Option(help="var, step or var,step; by default the recipe's.", show_default=False),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            help="linear, quadratic or linear,quadratic; by default the recipe's.",
            show_default=False,
        ),
    ] = None,
    tolerance: Tolerance = None,
    keep_best: KeepBest = False,
    without_last_row: WithoutLastRow = False,
    machine: Machine,
) -> None:
    """Encode and decode images or sounds, and measure how near they come back.

    Writes a value for each sample as JSON and CSV (PSNR in dB, of sounds also SNR and log-mel
    distance, evaluations, residual and the latents' standard deviation), PSNR against S as a
    figure, and originals beside reconstructions. No noise is drawn. Reconstructions are cut to
    [-1, 1], as files of them would be, for all but the relative error.
    """
    from fastdpm.core.errors import check_one_of
    from fastdpm.data.files import new_folder
    from fastdpm.inverse.encode import METHODS

    methods, kinds, spacings = (
        _parts(option, text)
        for option, text in (("--by", by), ("--levels", levels), ("--spacing", spacing))
    )
    for method in methods:
        check_one_of("`method`", method, METHODS)
    solver = solver_of(tolerance, keep_best)
    counts = sorted(set(choices.parse_whole_numbers("--steps", steps)))
    replaced = check_folder(out, overwrite)
    given = source.read(inputs, machine, n)
    chosen = _choose_levels(given, counts, kinds, spacings, without_last_row)
    for note in dict.fromkeys(note for compiled in chosen.values() for note in compiled.notes):
        console.print(f"note: {note}")
    asked = list(product(chosen.items(), methods))
    found = []
    for i, (((choice, count), compiled), method) in enumerate(asked, 1):
        _tell_place(f"{i} of {len(asked)}: {method}, {choice}, S = {count}")
        options = solver if method == "implicit" or "implicit" not in methods else None
        result = _measure(given, compiled, method, options, source.batch_size)
        found.append(Found(choice, count, result))
    with new_folder(out, replaced) as folder:
        _write(folder, given, found)
    _print(given, found)
    console.print(f"one line for each sample: {out / _TABLE}; figures: {_CURVES} and {_SAMPLES}")


def _parts(option: str, text: str | None) -> list[str]:
    """Names separated by commas, each once; none where nothing is stated."""
    from fastdpm.core.errors import InvalidArgumentError

    if text is None:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InvalidArgumentError(
            f"{option} takes names separated by commas, got an empty one in {text!r}: drop it"
        )
    return list(dict.fromkeys(parts))


def _tell_place(text: str) -> None:
    """Say which reconstruction comes next, where its progress is drawn."""
    terminal = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if terminal.is_terminal:
        terminal.print(text)


def _choose_levels(
    given: Given,
    counts: Sequence[int],
    kinds: Sequence[str],
    spacings: Sequence[str],
    without_last_row: bool,
) -> dict[tuple[str, int], NoiseLevels]:
    """Levels by their choice in words and S; without kinds or spacings, the recommended one."""
    recommended = encoding_recipe(choices.Stated(), given.model)
    kinds = kinds or [recommended.levels]
    spacings = spacings or [recommended.spacing]
    return {
        (f"{kind.upper()} {space}", count): cut(
            recommended.replace(num_steps=count, levels=kind, spacing=space).choose_levels(
                given.model.schedule
            ),
            without_last_row,
        )
        for kind, space, count in product(kinds, spacings, counts)
    }


def _measure(
    given: Given,
    levels: NoiseLevels,
    method: str,
    solver: ImplicitOptions | None,
    batch_size: int | None,
) -> Reconstruction:
    from fastdpm.evaluation.reconstruct import reconstruct
    from fastdpm.progress import sampling_bar

    with sampling_bar() as bar:
        return reconstruct(
            given.model,
            given.x,
            levels,
            method,
            solver=solver,
            condition=given.condition,
            batch_size=batch_size,
            callback=bar,
        )


def _write(folder: Path, given: Given, found: Sequence[Found]) -> None:
    """Write the record, the table and the figures."""
    from fastdpm.data.files import write_text
    from fastdpm.output.figures_inverse import write_image_pairs, write_psnr, write_sound_pairs

    config = given.model.config
    results = [
        {
            "levels": one.choice,
            "S": one.num_steps,
            "by": one.result.method,
            "plan": {"label": one.result.plan, "fingerprint": one.result.fingerprint},
            "samples": [
                {"input": name, **record}
                for name, record in zip(given.inputs, one.result.records(), strict=True)
            ],
        }
        for one in found
    ]
    record = {
        "format": "fastdpm-reconstruction",
        "version": 1,
        "model": config.name,
        "weights_sha256": config.weights_sha256,
        "results": results,
    }
    write_text(folder / _RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(folder / _TABLE, _csv(results))
    write_psnr(folder / _CURVES, _curves(found))
    rows, title = _shown(given, found), found[0].choice
    if config.data.modality == "image":
        write_image_pairs(folder / _SAMPLES, rows, title)
    else:
        sounds = {name: x[:, 0] for name, x in rows.items()}
        write_sound_pairs(folder / _SAMPLES, sounds, config.data.sample_rate or 0, title)


def _csv(results: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        {"levels": result["levels"], "S": result["S"], "by": result["by"], **sample}
        for result in results
        for sample in result["samples"]
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _curves(found: Sequence[Found]) -> dict[str, list[Curve]]:
    """A curve for each choice of levels and method."""
    import numpy as np

    from fastdpm.output.figures_inverse import Curve

    panels: dict[str, list[Curve]] = {}
    for choice, method in dict.fromkeys((one.choice, one.result.method) for one in found):
        ours = [one for one in found if (one.choice, one.result.method) == (choice, method)]
        kept = [[value for value in one.result.psnr if not math.isnan(value)] for one in ours]
        shares = np.array(
            [
                np.percentile(np.minimum(psnr, _MOST_DRAWN_DB), (50, 10, 90))
                if psnr
                else np.full(3, np.nan)
                for psnr in kept
            ]
        )
        samples = len(ours[0].result.psnr)
        lost = [samples - len(psnr) for psnr in kept]
        steps = [one.num_steps for one in ours]
        curve = Curve(method, samples, steps, lost, *shares.T.tolist())
        panels.setdefault(choice, []).append(curve)
    return panels


def _shown(given: Given, found: Sequence[Found]) -> dict[str, Tensor]:
    """The originals, and what became of them over the first choice of levels; NaN if lost."""
    from fastdpm.output.figures_inverse import MOST_COLUMNS

    first = found[0].choice
    ends = {min(one.num_steps for one in found), max(one.num_steps for one in found)}
    rows = {"original": given.x[:MOST_COLUMNS]}
    for one in found:
        if one.choice == first and one.num_steps in ends:
            name = f"{one.result.method}, S = {one.num_steps}"
            rows[name] = one.result.x[:MOST_COLUMNS].clamp(-1, 1)
    return rows


def _print(given: Given, found: Sequence[Found]) -> None:
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
        console.print(f"not converged: {len(lost) - _MOST_NAMED} more, see {_TABLE}")
