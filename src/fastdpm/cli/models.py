"""``fastdpm models``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def models() -> None:
    """List the models that come with the package."""
    from fastdpm.models.config import builtin_models, find_folder, read_config

    table = Table()
    for column in ("model", "data", "T", "recommended recipe", "weights", "licence"):
        table.add_column(column, no_wrap=column == "model")
    for name in builtin_models():
        folder = find_folder(name)
        config = read_config(folder)
        size = f"{(folder / 'model.safetensors').stat().st_size / 2**20:.1f} MiB"
        shape = " x ".join(map(str, config.data.shape))
        table.add_row(
            name,
            f"{config.data.modality} {shape}",
            str(config.schedule.get("num_train_steps", len(config.schedule.get("betas", ())))),
            config.recipe.describe(),
            size,
            config.licence,
        )
    Console().print(table)
