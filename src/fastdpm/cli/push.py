"""``fastdpm push``."""

from __future__ import annotations

from typing import Annotated

import typer

from fastdpm.cli.terminal import console


def push(
    folder: Annotated[
        str, typer.Argument(help="Model folder, or a built-in name.", metavar="FOLDER")
    ],
    repo: Annotated[str, typer.Argument(help="Repository on the Hub.", metavar="OWNER/NAME")],
    private: Annotated[
        bool,
        typer.Option("--private", help="Create the repository as a private one."),
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(
            help="Branch to write, created if it does not exist; by default main.",
            metavar="BRANCH",
        ),
    ] = None,
    message: Annotated[
        str | None,
        typer.Option(help="Commit message; by default it names the model."),
    ] = None,
) -> None:
    """Publish a model folder on the Hugging Face Hub, after checking that it is complete.

    The access token comes from HF_TOKEN or from `hf auth login`.
    """
    from fastdpm.core.errors import ModelError
    from fastdpm.models.config import BUILTIN, CONFIG, ModelConfig, find_in, read_config
    from fastdpm.models.hub import push as publish
    from fastdpm.models.load import load_model

    place = find_in(BUILTIN, "model", folder)
    config = read_config(place, ModelConfig)
    if not config.weights_sha256:
        raise ModelError(
            f"{place / CONFIG} has no weights_sha256, with which others check their copy:"
            f" write the folder again with `fastdpm convert {place} --out DIR`"
        )
    load_model(place)
    address = publish(
        place,
        repo,
        private=private,
        revision=revision,
        message=message or f"Upload {config.name}",
    )
    at = "" if revision is None else f"@{revision}"
    console.print(f"sample it: fastdpm sample hf:{repo}{at}")
    console.print(address)
