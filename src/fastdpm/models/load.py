"""Loading a model: find it, read its weights and move them to a device."""

from __future__ import annotations

from pathlib import Path

import torch

from fastdpm.core.arguments import checked
from fastdpm.core.errors import FastDPMError, InvalidArgumentError, ModelError
from fastdpm.data.condition import read_mel
from fastdpm.models.find import FoundModel, find_model
from fastdpm.models.model import Model
from fastdpm.networks.weights import put_weights


@checked
def load_model(
    name_or_path: str | Path,
    device: str = "cpu",
    *,
    checkpoint: str | Path | None = None,
    variant: str | None = None,
) -> Model:
    """Load a model from the package, a folder, the Hugging Face Hub or a published checkpoint.

    Args:
        name_or_path: One of

            - a built-in name, listed by ``fastdpm models``;
            - a model folder, or a diffusers folder of a ``UNet2DModel`` or ``UNet1DModel``;
            - "hf:owner/name" or "hf:owner/name@revision";
            - a published checkpoint, whose format is recognized from its contents;
            - a preset: the name of a published model, or a TOML file.
        device: "cpu", "cuda", "cuda:1" ..., "mps", or "auto" for a CUDA GPU if one is available.
        checkpoint: The weights file of a preset.
        variant: The variant of the weights of a diffusers folder, such as "fp16"; by default those
            without a variant, or the only one.

    Raises:
        InvalidArgumentError: If there is no such model or variant, or the device name is invalid.
        ModelError: If a file is damaged or would execute code when read, the files do not belong
            together, or the hub cannot be reached.
        FastDPMError: If the device is not available.
    """
    return open_model(find_model(name_or_path, checkpoint, variant=variant), device)


def open_model(found: FoundModel, device: str = "cpu") -> Model:
    """Load a model returned by :func:`fastdpm.models.find.find_model`; see :func:`load_model`."""
    target = find_device(device)
    network, weights = found.read()
    model = Model(found.config, put_weights(network, weights).to(target))
    model.notes, model.plans = found.notes, dict(found.plans)
    if found.conditions is not None:
        try:
            model.conditions = model.check_condition(read_mel(found.conditions))
        except InvalidArgumentError as error:
            raise ModelError(f"{found.conditions}: {error}") from None
    return model


def find_device(name: str) -> torch.device:
    """The device with a name; "auto" is a CUDA GPU if there is one, otherwise the CPU.

    Raises:
        InvalidArgumentError: If the name is not "auto", "cpu", "cuda", "cuda:N" or "mps".
        FastDPMError: If the device is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InvalidArgumentError(
            f"`device` must be auto, cpu, cuda, cuda:N or mps, got {name!r}"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise FastDPMError(
            "`device` 'mps' is not available, PyTorch finds no Apple GPU: use cpu, or another"
            " build of PyTorch"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FastDPMError(
            f"`device` {name!r} is not available, PyTorch finds {torch.cuda.device_count()} CUDA"
            " devices: use cpu, or install a CUDA build of PyTorch"
        )
    return device
