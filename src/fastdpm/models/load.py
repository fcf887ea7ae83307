"""Loading a model: finding it, reading its weights, putting them on a device."""

from __future__ import annotations

from pathlib import Path

import torch

from fastdpm.core.errors import FastDPMError, InvalidArgumentError, ModelError
from fastdpm.data.condition import read_mel
from fastdpm.models.find import FoundModel, find_model
from fastdpm.models.model import Model
from fastdpm.networks.weights import put_weights


def load_model(
    name_or_path: str | Path, device: str = "cpu", *, checkpoint: str | Path | None = None
) -> Model:
    """Load a model: one that is built in, of a folder or a hub, or a published checkpoint.

    Args:
        name_or_path: A name that ``fastdpm models`` lists, a model folder, a folder of diffusers
            (``UNet2DModel`` or ``UNet1DModel``), "hf:owner/name" or "hf:owner/name@revision", a
            checkpoint whose format is recognized from its contents, or a preset: the name of a
            published model, or a TOML file.
        device: "cpu", "cuda", "cuda:1" ..., or "auto" for a GPU if there is one.
        checkpoint: The weights of a preset.

    Raises:
        InvalidArgumentError: If there is no such model or device name.
        ModelError: If its files are damaged, would execute code or do not fit together.
        FastDPMError: If the device is absent, or the hub cannot be reached.
    """
    return open_model(find_model(name_or_path, checkpoint), device)


def open_model(found: FoundModel, device: str = "cpu") -> Model:
    """Read the weights of a model that was found; see :func:`load_model`."""
    where = find_device(device)
    network, weights = found.read()
    model = Model(found.config, put_weights(network, weights).to(where))
    if found.conditions is not None:
        try:
            model.conditions = model.check_condition(read_mel(found.conditions))
        except InvalidArgumentError as error:
            raise ModelError(f"{found.conditions}: {error}") from None
    return model


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        InvalidArgumentError: If the name is none.
        FastDPMError: If the device is absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InvalidArgumentError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FastDPMError(
            f"device {name!r} was asked for, but {torch.cuda.device_count()} CUDA devices are"
            " present: use `device` 'cpu', or install a CUDA build of PyTorch"
        )
    return device
