"""Every network by its type, as configurations name it, and whether it takes its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, check_one_of, first_line
from fastdpm.data.spec import DataSpec
from fastdpm.networks.adm_unet import ADMUNet
from fastdpm.networks.classifier import ImageClassifier, SoundClassifier
from fastdpm.networks.diffusers_unet import DiffusersNetwork
from fastdpm.networks.diffwave import DiffWave
from fastdpm.networks.lmnt_diffwave import LMNTDiffWave
from fastdpm.networks.unet import UNet
from fastdpm.sampling.network import call_network, split_variance

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "adm-unet": ADMUNet,
    "diffwave": DiffWave,
    "lmnt-diffwave": LMNTDiffWave,
    "diffusers": DiffusersNetwork,
}

CLASSIFIERS: dict[str, type[nn.Module]] = {
    "image-classifier": ImageClassifier,
    "sound-classifier": SoundClassifier,
}

PROBE_BATCH = 2  # samples that a network is tried with


def build_network(
    spec: Mapping[str, Any], known: Mapping[str, type[nn.Module]] = NETWORKS
) -> nn.Module:
    """Build a network from its "type", one of the ``known``, and arguments, with fresh weights.

    Raises:
        InvalidArgumentError: If the type is unknown or an argument does not fit.
    """
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    check_one_of("network type", kind, known)
    try:
        return known[str(kind)](**arguments)
    except Exception as error:  # torch and arithmetic fail in many ways on senseless sizes
        raise InvalidArgumentError(
            f"network {kind!r} cannot be built: {first_line(error)}"
        ) from None


def check_fits(
    spec: Mapping[str, Any], data: DataSpec, *, learned_variance: bool = True
) -> nn.Module:
    """Build a network and check that it takes data and returns a prediction of the same shape.

    It may return twice the channels, where ``learned_variance`` allows it: see
    :func:`fastdpm.sampling.network.split_variance`.

    Runs on PyTorch's meta device: shapes alone, no memory and no arithmetic.

    Returns:
        The network on the meta device, still without weights.

    Raises:
        InvalidArgumentError: If it cannot be built or does not fit.
    """
    mel = data.mel
    with torch.device("meta"):
        network = build_network(spec)
        x, t, *condition = example_inputs(data, PROBE_BATCH)
    _check_classes(network, data.classes)
    if mel is not None and getattr(network, "hop_length", None) != mel.hop_length:
        raise InvalidArgumentError(
            f"the network stretches a mel frame to {getattr(network, 'hop_length', None)} samples,"
            f" but a frame of its data has {mel.hop_length}"
        )
    try:
        out = call_network(network, x, t, *condition)
    except Exception as error:  # whatever a layer says about its input
        raise InvalidArgumentError(
            f"the network does not take data of shape {data.shape}: {first_line(error)}"
        ) from None
    prediction = split_variance(out, x)[0] if learned_variance else out
    if prediction.shape != x.shape:
        raise InvalidArgumentError(
            f"the network returns shape {tuple(out.shape[1:])} for data of shape {data.shape}"
        )
    return network


def example_inputs(data: DataSpec, batch: int) -> list[Tensor]:
    """State, step and, if there is one, condition: of the right shapes, no more."""
    x, mel = torch.empty(batch, *data.shape), data.mel
    inputs = [x, torch.empty(batch)]
    if mel is not None:
        inputs.append(torch.empty(batch, mel.bands, -(-x.shape[-1] // mel.hop_length)))
    if data.classes is not None:
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
