"""Digests that identify models in latents, caches and records of samples."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.tensors import bytes_digest, tensor_bytes, tensor_digest
from fastdpm.models.config import OLD_PREDICTIONS, ModelConfig

if TYPE_CHECKING:
    from fastdpm.models.model import Model


def config_digest(config: ModelConfig) -> str:
    """Digest of everything that determines a model's samples except its weights, 16 hex digits."""
    data = config.data.deciding() | {"description": ""}
    # The former names are hashed, so that renaming did not change any digest.
    old = {new: old for old, new in OLD_PREDICTIONS.items()}
    prediction = old.get(config.prediction, config.prediction)
    content = (config.network, config.schedule, prediction, config.time_scale, data)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(model: Model) -> str:
    """Digest of the current weights in memory, 64 hex digits.

    Raises:
        InvalidArgumentError: If the network has no weights.
    """
    state = model.network.state_dict()
    if not state:
        raise InvalidArgumentError(
            f"the network of model {model.config.name!r} has no weights to identify its results:"
            " register its weights as parameters or buffers of the torch module"
        )
    return bytes_digest(*(f"{n} {tensor_digest(t)}".encode() for n, t in state.items()))


def model_digest(model: Model, *, guided: bool = False) -> str:
    """Digest of everything that determines a model's latents, weights included, 16 hex digits.

    Args:
        model: The model.
        guided: Whether the latents were encoded with guidance, which also needs the condition
            that stands for no condition.
    """
    digest = hashlib.sha256(config_digest(model.config).encode())
    if model.config.network["type"] == "custom":
        digest.update(repr(model.network).encode())
    for name, value in model.network.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(name.encode())
            digest.update(tensor_bytes(value))
    if guided and model.unconditional is not None:
        digest.update(tensor_bytes(model.unconditional))
    return digest.hexdigest()[:16]
