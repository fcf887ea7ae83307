"""``fastdpm models``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from fastdpm.models.config import ModelConfig


def models(
    presets: Annotated[
        bool,
        typer.Option(
            "--presets",
            help="List the published models instead, whose weights are given to --checkpoint.",
        ),
    ] = False,
) -> None:
    """List the models that come with the package, or the published ones that it knows."""
    table = _presets() if presets else _built_in()
    Console().print(table)


def _table(last: str) -> Table:
    table = Table()
    for column in ("model", "data", "T", "recommended recipe", last, "license"):
        table.add_column(column, no_wrap=column == "model")
    return table


def _cells(config: ModelConfig) -> list[str]:
    shape = " x ".join(map(str, config.data.shape))
    steps = config.schedule.get("num_train_steps", len(config.schedule.get("betas", ())))
    described = f"{config.data.modality} {shape}"
    return [config.name, described, str(steps), config.recipe.describe()]


def _built_in() -> Table:
    from fastdpm.models.config import BUILTIN, WEIGHTS, ModelConfig, builtin_models, read_config

    table = _table("weights")
    for name in builtin_models():
        config = read_config(BUILTIN / name, ModelConfig)
        size = f"{(BUILTIN / name / WEIGHTS).stat().st_size / 2**20:.1f} MiB"
        table.add_row(*_cells(config), size, config.license)
    return table


def _presets() -> Table:
    from fastdpm.models.presets import presets, read_preset

    table = _table("checkpoint")
    for preset in map(read_preset, presets()):
        config = preset.model_config()
        table.add_row(*_cells(config), preset.source.checkpoint, config.license)
    return table
