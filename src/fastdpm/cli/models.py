"""``fastdpm models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from fastdpm.cli.terminal import console

if TYPE_CHECKING:
    from fastdpm.models.config import ModelConfig


def models(
    presets: Annotated[
        bool,
        typer.Option(
            "--presets", help="List the presets instead, whose weights --checkpoint provides."
        ),
    ] = False,
) -> None:
    """List the built-in models, or the presets for published checkpoints.

    `fastdpm plan MODEL` shows a model's recommended recipe.
    """
    table = _presets() if presets else _built_in()
    console.print(table)


def _table(last: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "shape of the data", "T", last):
        table.add_column(column, overflow="fold", no_wrap=column != last)
    return table


def _cells(config: ModelConfig) -> list[str]:
    shape = " x ".join(map(str, config.data.shape))
    steps = config.schedule.get("num_train_steps", len(config.schedule.get("betas", ())))
    return [config.name, shape, str(steps)]


def _built_in() -> Table:
    from fastdpm.models.config import BUILTIN, WEIGHTS, ModelConfig, builtin_models, read_config

    table = _table("weights")
    for name in builtin_models():
        config = read_config(BUILTIN / name, ModelConfig)
        size = f"{(BUILTIN / name / WEIGHTS).stat().st_size / 2**20:.1f} MiB"
        table.add_row(*_cells(config), f"{size}, {config.license}")
    return table


def _presets() -> Table:
    from fastdpm.models.presets import presets, read_preset

    table = _table("checkpoint")
    for preset in map(read_preset, presets()):
        config = preset.model_config()
        table.add_row(*_cells(config), preset.source.checkpoint)
    return table
