"""Reading and writing model folders: ``config.json``, ``model.safetensors`` and a model card.

Weights are only read as safetensors, which cannot execute code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, ModelError
from fastdpm.data.files import write_text
from fastdpm.data.tensors import read_tensors, sha256, write_tensors
from fastdpm.models.card import card_of
from fastdpm.models.config import CARD, CONDITIONS, CONFIG, WEIGHTS, Config
from fastdpm.models.formats.states import State
from fastdpm.networks.weights import check_same


def read_weights(folder: Path, checksum: str) -> State:
    """Read the weights of a model folder and verify their checksum.

    Args:
        folder: The model folder.
        checksum: Expected SHA-256 in hexadecimal; not verified if empty.

    Raises:
        ModelError: If the file is missing or damaged, or has another checksum.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path} is missing: copy the whole model folder again")
    if checksum and sha256(path) != checksum:
        raise ModelError(
            f"{path} has checksum {sha256(path)[:12]}..., but {CONFIG} states"
            f" {checksum[:12]}...: the file is damaged or belongs to another model, copy the"
            " folder again"
        )
    return read_tensors(path)


def network_of(path: Path, weights: State, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network and check that weights belong to it.

    Args:
        path: The weights file, next to its configuration; for messages.
        weights: The weights in the file.
        build: Builds the network.

    Raises:
        ModelError: If the network cannot be built, or the weights do not fit it.
    """
    try:
        network = build()
    except InvalidArgumentError as error:
        raise ModelError(f"{path.parent / CONFIG}: {error}") from None
    check_same(path, network.state_dict(), weights, f"the network in {CONFIG}")
    return network


def write_folder(
    folder: Path,
    config: Config,
    weights: State,
    conditions: Tensor | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> Config:
    """Write the folder of a model or a feature network.

    Args:
        folder: Created if it does not exist.
        config: The configuration; its checksum is filled in.
        weights: Weights by parameter name.
        conditions: Example conditions of a vocoder, shape (m, bands, frames), or None.
        dtype: Type of weights and conditions in the files; None keeps their type.

    Returns:
        The configuration as written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checksum = write_tensors(folder / WEIGHTS, weights, dtype)
    if conditions is not None:
        write_tensors(folder / CONDITIONS, {"mel": conditions}, dtype)
    written = replace(config, weights_sha256=checksum)
    write_text(folder / CONFIG, json.dumps(written.to_dict(), indent=1) + "\n")
    write_text(folder / CARD, card_of(written))
    return written
