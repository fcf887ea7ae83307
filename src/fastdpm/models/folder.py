"""Model folders: ``config.json``, ``model.safetensors`` and a model card, as on a model hub.

Weights are only ever read as safetensors, which cannot execute code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, ModelError, first_line
from fastdpm.data.files import write_bytes, write_text
from fastdpm.data.tensors import read_tensors, sha256, write_tensors
from fastdpm.models.config import CARD, CONDITIONS, CONFIG, WEIGHTS, ModelConfig
from fastdpm.networks.build import build_network
from fastdpm.networks.weights import check_same, put_weights
from fastdpm.sampling.ask import call_network, split_variance


def check_fits(config: ModelConfig, *, learned_variance: bool = True) -> nn.Module:
    """Check that a network takes its data and returns a prediction of the same shape.

    It may return twice the channels, where ``learned_variance`` allows it: see
    :func:`fastdpm.sampling.ask.split_variance`.

    Runs on PyTorch's meta device: shapes alone, no memory and no arithmetic.

    Returns:
        The network on the meta device, still without weights.

    Raises:
        InvalidArgumentError: If it cannot be built or does not fit.
    """
    mel = config.data.mel
    with torch.device("meta"):
        network = build_network(config.network)
        x, t, *condition = example_inputs(config, 2)
    _check_classes(network, config.data.classes)
    if mel is not None and getattr(network, "hop_length", None) != mel.hop_length:
        raise InvalidArgumentError(
            f"the network stretches a mel frame to {getattr(network, 'hop_length', None)} samples,"
            f" but a frame of its data has {mel.hop_length}"
        )
    try:
        out = call_network(network, x, t, *condition)
    except Exception as error:  # whatever a layer says about its input
        raise InvalidArgumentError(
            f"the network does not take data of shape {config.data.shape}: {first_line(error)}"
        ) from None
    prediction = split_variance(out, x)[0] if learned_variance else out
    if prediction.shape != x.shape:
        raise InvalidArgumentError(
            f"the network returns shape {tuple(out.shape[1:])} for data of shape"
            f" {config.data.shape}"
        )
    return network


def example_inputs(config: ModelConfig, batch: int) -> list[Tensor]:
    """State, step and, if the network takes one, condition: of the right shapes, no more."""
    x, mel = torch.empty(batch, *config.data.shape), config.data.mel
    inputs = [x, torch.empty(batch)]
    if mel is not None:
        inputs.append(torch.empty(batch, mel.bands, -(-x.shape[-1] // mel.hop_length)))
    if config.data.classes is not None:
        inputs.append(torch.zeros(batch, dtype=torch.int64))
    return inputs


def _check_classes(network: nn.Module, classes: int | None) -> None:
    """Raise InvalidArgumentError if a network takes another number of classes, where it says."""
    known = getattr(network, "num_classes", classes)
    if known != classes:
        raise InvalidArgumentError(
            f"the network takes {known or 'no'} classes, but its data has {classes or 'none'}: put"
            " the same number into network and data.classes"
        )


def check_weights(folder: Path, checksum: str) -> Path:
    """The weights file of a folder, after a look at its checksum.

    Raises:
        ModelError: If it is missing or has another checksum.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path} is missing: copy the whole model folder again")
    if checksum and sha256(path) != checksum:
        raise ModelError(
            f"{path} has checksum {sha256(path)[:12]}..., but {CONFIG} says"
            f" {checksum[:12]}...: the file is damaged or from another model"
        )
    return path


def load_weights(path: Path, network: nn.Module) -> nn.Module:
    """Load weights as float32 into a network that may be on the meta device; evaluation mode.

    Raises:
        ModelError: If they are damaged or belong to another network.
    """
    tensors = read_tensors(path)
    check_same(path, network.state_dict(), tensors, f"the network in {CONFIG}")
    return put_weights(network, tensors)


def write_folder(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    card: str,
    conditions: Tensor | None = None,
    dtype: torch.dtype | None = torch.float16,
) -> ModelConfig:
    """Write a model folder and return the config with the checksum of its weights.

    ``dtype`` is that of the weights and conditions in the files, their own if None.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checksum = write_tensors(folder / WEIGHTS, weights, dtype)
    if conditions is not None:
        write_bytes(
            folder / CONDITIONS,
            save({"mel": conditions.to("cpu", dtype or conditions.dtype).contiguous()}),
        )
    written = replace(config, weights_sha256=checksum)
    write_text(folder / CONFIG, json.dumps(written.to_dict(), indent=1) + "\n")
    write_text(folder / CARD, card)
    return written
