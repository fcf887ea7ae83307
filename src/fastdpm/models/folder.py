"""Model folders: ``config.json``, ``model.safetensors`` and a model card, as on a model hub.

Weights are only ever read as safetensors, which cannot execute code.
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
from fastdpm.models.formats.checkpoint import State
from fastdpm.networks.weights import check_same


def read_weights(folder: Path, checksum: str) -> State:
    """The weights of a folder, after a look at their checksum if there is one.

    Raises:
        ModelError: If the file is missing, damaged or has another checksum.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path} is missing: copy the whole model folder again")
    if checksum and sha256(path) != checksum:
        raise ModelError(
            f"{path} has checksum {sha256(path)[:12]}..., but {CONFIG} says"
            f" {checksum[:12]}...: the file is damaged or from another model"
        )
    return read_tensors(path)


def network_of(path: Path, weights: State, build: Callable[[], nn.Module]) -> nn.Module:
    """The network of the configuration beside a file, to which the file's weights belong.

    Raises:
        ModelError: If it cannot be built, or the weights are those of another network.
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
    """Write the folder of a model or a feature network; returns the config as written.

    ``dtype`` is that of the weights and conditions in the files, their own if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checksum = write_tensors(folder / WEIGHTS, weights, dtype)
    if conditions is not None:
        write_tensors(folder / CONDITIONS, {"mel": conditions}, dtype)
    written = replace(config, weights_sha256=checksum)
    write_text(folder / CONFIG, json.dumps(written.to_dict(), indent=1) + "\n")
    write_text(folder / CARD, card_of(written))
    return written
