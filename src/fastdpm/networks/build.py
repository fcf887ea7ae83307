"""Build a network from its configuration and check that it fits its data."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from fastdpm.core.errors import InvalidArgumentError, check_one_of, first_line
from fastdpm.core.limits import MAX_COUNT, MAX_LAYERS, MAX_WEIGHTS, check_limit
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

PROBE_BATCH = 2  # batch size of the trial evaluation


def build_network(
    spec: Mapping[str, Any],
    known: Mapping[str, type[nn.Module]] = NETWORKS,
    *,
    device: str = "cpu",
) -> nn.Module:
    """Build a network with newly initialized weights.

    Args:
        spec: "type", a key of ``known``, and the arguments of that class.
        known: Network classes by type.
        device: Device of the weights, whatever PyTorch's default device is.

    Raises:
        InvalidArgumentError: If the type is unknown, an argument is invalid, or the network would
            have more than ``MAX_LAYERS`` layers or ``MAX_WEIGHTS`` weights.
    """
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    check_one_of("network type", kind, known)
    try:
        _check_sizes(arguments)
        if device != "meta":
            with torch.device("meta"), _bounded():
                known[str(kind)](**arguments)
        with torch.device(device), _bounded():
            return known[str(kind)](**arguments)
    except Exception as error:  # torch and arithmetic fail in many ways on invalid sizes
        raise InvalidArgumentError(
            f"network {kind!r} cannot be built: {first_line(error)}"
        ) from None


def check_fits(
    spec: Mapping[str, Any], data: DataSpec, *, learned_variance: bool = True
) -> nn.Module:
    """Build a network and check that its prediction has the shape of the data.

    Everything runs on PyTorch's meta device, which computes shapes only.

    Args:
        spec: See :func:`build_network`.
        data: The data of the model.
        learned_variance: Also accept an output with twice the channels, whose second half is a
            learned variance; see :func:`fastdpm.sampling.network.split_variance`.

    Returns:
        The network on the meta device, without weights.

    Raises:
        InvalidArgumentError: If the network cannot be built or does not fit the data.
    """
    mel = data.mel
    with torch.device("meta"):
        network = build_network(spec, device="meta")
        x, t, *condition = example_inputs(data, PROBE_BATCH)
    _check_classes(network, data.classes)
    size = spec.get("image_size")
    if size is not None and data.modality == "image" and size not in data.shape[1:]:
        raise InvalidArgumentError(
            f"`image_size` of the network is {size}, but the data has shape {data.shape}: make"
            " them equal"
        )
    if mel is not None and getattr(network, "hop_length", None) != mel.hop_length:
        raise InvalidArgumentError(
            f"the network upsamples a mel frame to {getattr(network, 'hop_length', None)} samples,"
            f" but `hop_length` of the data's mel is {mel.hop_length}: make them equal"
        )
    try:
        out = call_network(network, x, t, *condition)
    except Exception as error:  # a layer can raise any error for an input it cannot use
        raise InvalidArgumentError(
            f"the network does not accept data of shape {data.shape}: {first_line(error)}"
        ) from None
    prediction = split_variance(out, x)[0] if learned_variance else out
    if prediction.shape != x.shape:
        raise InvalidArgumentError(
            f"the network returns shape {tuple(out.shape[1:])} for data of shape {data.shape}:"
            " both must be equal"
        )
    return network


def example_inputs(data: DataSpec, batch: int) -> list[Tensor]:
    """Placeholder inputs of the right shapes for a network: state, step and any condition.

    Args:
        data: The data of the model.
        batch: Batch size.

    Returns:
        State (batch, *data.shape) and step (batch,); then a mel spectrogram
        (batch, bands, frames) for a vocoder, or class labels (batch,) for a model with classes.
    """
    x, mel = torch.empty(batch, *data.shape), data.mel
    inputs = [x, torch.empty(batch)]
    if mel is not None:
        inputs.append(torch.empty(batch, mel.bands, -(-x.shape[-1] // mel.hop_length)))
    if data.classes is not None:
        inputs.append(torch.zeros(batch, dtype=torch.int64))
    return inputs


def _check_sizes(arguments: Mapping[str, Any]) -> None:
    """Raise InvalidArgumentError for numbers so large that building would take forever."""
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            _check_sizes(value)
        limit = MAX_LAYERS if "layers" in name or "blocks" in name else MAX_COUNT
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int):
                check_limit(name, number, limit)


@contextmanager
def _bounded() -> Iterator[None]:
    """Limit the layers and weights of a network that this thread builds."""
    thread, layers, weights = threading.get_ident(), 0, 0

    def add_layer(*_: object) -> None:
        nonlocal layers
        if threading.get_ident() == thread:
            layers = check_limit("the number of layers", layers + 1, MAX_LAYERS)

    def add_weights(_: nn.Module, name: str, tensor: Tensor | None) -> None:
        nonlocal weights
        if threading.get_ident() == thread and tensor is not None:
            weights = check_limit("the number of weights", weights + tensor.numel(), MAX_WEIGHTS)

    hooks = (
        register_module_module_registration_hook(add_layer),
        register_module_parameter_registration_hook(add_weights),
        register_module_buffer_registration_hook(add_weights),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _check_classes(network: nn.Module, classes: int | None) -> None:
    """Check that a network with ``num_classes`` has as many classes as its data."""
    found = getattr(network, "num_classes", classes)
    if found != classes:
        raise InvalidArgumentError(
            f"the network has {found or 'no'} classes, but its data has {classes or 'none'}: use"
            " the same number in network and data.classes"
        )
