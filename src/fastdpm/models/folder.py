"""Model folders: ``config.json``, ``model.safetensors`` and a model card, as on a model hub.

Weights are only ever read as safetensors, which cannot execute code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of, first_line
from fastdpm.files import write_bytes, write_text
from fastdpm.models.classifier import ImageClassifier, SoundClassifier
from fastdpm.models.config import CONFIG, ModelConfig
from fastdpm.models.diffwave import DiffWave
from fastdpm.models.unet import UNet
from fastdpm.sampling.denoise import call_network

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet, "diffwave": DiffWave}
CLASSIFIERS: dict[str, type[nn.Module]] = {
    "image-classifier": ImageClassifier,
    "sound-classifier": SoundClassifier,
}
WEIGHTS, CARD, CONDITIONS = "model.safetensors", "README.md", "conditions.safetensors"


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


def check_fits(config: ModelConfig) -> nn.Module:
    """Check that a network takes its data and returns a prediction of the same shape.

    Runs on PyTorch's meta device: shapes alone, no memory and no arithmetic.

    Returns:
        The network on the meta device, still without weights.

    Raises:
        InvalidArgumentError: If it cannot be built or does not fit.
    """
    mel = config.data.mel
    with torch.device("meta"):
        network = build_network(config.network)
        x, t = torch.empty(2, *config.data.shape), torch.empty(2)
        condition = None
        if mel is not None:
            condition = torch.empty(2, mel.bands, -(-x.shape[-1] // mel.hop_length))
    if mel is not None and getattr(network, "hop_length", None) != mel.hop_length:
        raise InvalidArgumentError(
            f"the network stretches a mel frame to {getattr(network, 'hop_length', None)} samples,"
            f" but a frame of its data has {mel.hop_length}"
        )
    try:
        out = call_network(network, x, t, condition)
    except Exception as error:  # whatever a layer says about its input
        raise InvalidArgumentError(
            f"the network does not take data of shape {config.data.shape}: {first_line(error)}"
        ) from None
    if out.shape != x.shape:
        raise InvalidArgumentError(
            f"the network returns shape {tuple(out.shape[1:])} for data of shape"
            f" {config.data.shape}"
        )
    return network


def read_network(folder: Path, config: ModelConfig) -> nn.Module:
    """Build the network and load its weights as float32, in evaluation mode.

    Raises:
        ModelError: If the weights are missing, damaged, have a wrong checksum or belong to
            another network.
    """
    path = check_weights(folder, config.weights_sha256)
    try:
        network = check_fits(config)
    except InvalidArgumentError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from None
    return load_weights(path, network)


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
    check_same(path, network.state_dict(), tensors)
    weights = {name: tensor.float() for name, tensor in tensors.items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelError: If it is no such file or is damaged.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from None


def read_mel(path: Path) -> Tensor:
    """Read the mel spectrograms of a safetensors file, its tensor "mel".

    Raises:
        ModelError: If the file is damaged.
        InvalidArgumentError: If it holds no such tensor.
    """
    tensors = read_tensors(path)
    if "mel" not in tensors:
        raise InvalidArgumentError(f"{path} holds no tensor 'mel', only {sorted(tensors)}")
    return tensors["mel"]


def write_folder(
    folder: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    card: str,
    conditions: Tensor | None = None,
) -> ModelConfig:
    """Write a model folder, weights in fp16, and return the config with their checksum."""
    checksum = write_weights(folder, weights)
    if conditions is not None:
        write_bytes(
            folder / CONDITIONS, save({"mel": conditions.to("cpu", torch.float16).contiguous()})
        )
    written = ModelConfig(**{**vars(config), "weights_sha256": checksum})
    write_text(folder / CONFIG, json.dumps(written.to_dict(), indent=1) + "\n")
    write_text(folder / CARD, card)
    return written


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Write the weights of a folder in fp16, making it if need be; returns their checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    half = {
        name: tensor.detach().to("cpu", torch.float16).contiguous()
        for name, tensor in weights.items()
    }
    write_bytes(folder / WEIGHTS, save(half, metadata={"format": "pt"}))
    return sha256(folder / WEIGHTS)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_same(
    path: Path,
    wanted: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    network: str = f"the network in {CONFIG}",
) -> None:
    """Check that a file's tensors are those of a network, by name and shape.

    Raises:
        ModelError: If some are missing, surplus or of another shape; it lists them.
    """
    problems = [
        _listed("missing", wanted.keys() - found.keys()),
        _listed("surplus", found.keys() - wanted.keys()),
        _listed(
            "of another shape",
            (n for n in wanted.keys() & found.keys() if wanted[n].shape != found[n].shape),
        ),
    ]
    told = "; ".join(problem for problem in problems if problem)
    if told:
        raise ModelError(f"{path} does not fit {network}: {told}")


def _listed(what: str, names: Iterable[str], most: int = 4) -> str:
    ordered = sorted(names)
    if not ordered:
        return ""
    rest = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return f"{len(ordered)} {what} ({', '.join(ordered[:most])}{rest})"
