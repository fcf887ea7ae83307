"""``fastdpm cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fastdpm.cli import choices
from fastdpm.cli.terminal import console


def cache(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            help="Folder of the cache; by default $FASTDPM_CACHE, or the user's cache folder.",
        ),
    ] = None,
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete everything in the cache.")
    ] = False,
) -> None:
    """Show the cache of measurements and its size, or delete its contents."""
    kept = choices.open_cache(folder)
    if clear:
        kept.clear()
    sizes = kept.sizes()
    console.print(f"{kept.root}: {sum(sizes.values()) / 2**20:.1f} MiB")
    for stage, size in sizes.items():
        console.print(f"  {stage:<12}{size / 2**20:10.1f} MiB")
