"""``fastdpm cache``."""

from __future__ import annotations

from typing import Annotated

import typer

from fastdpm.cli import choices


def cache(
    folder: choices.CacheFolder = None,
    clear: Annotated[bool, typer.Option("--clear", help="Delete everything in it.")] = False,
) -> None:
    """Show where measurements are kept and how much they take, or delete them."""
    kept = choices.open_cache(folder)
    if clear:
        kept.clear()
    sizes = kept.sizes()
    typer.echo(f"{kept.root}: {sum(sizes.values()) / 2**20:.1f} MiB")
    for stage, size in sizes.items():
        typer.echo(f"  {stage:<12}{size / 2**20:10.1f} MiB")
