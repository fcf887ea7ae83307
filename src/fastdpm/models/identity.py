"""What tells models apart in latents, caches and records of samples."""

from __future__ import annotations

import hashlib
import json

from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.tensors import bytes_digest, tensor_bytes, tensor_digest
from fastdpm.models.config import OLD_PREDICTIONS, ModelConfig
from fastdpm.models.model import Model


def config_digest(config: ModelConfig) -> str:
    """Of what decides a model's samples beside its weights, 16 hex digits."""
    data = config.data.deciding() | {"description": ""}
    old = {new: old for old, new in OLD_PREDICTIONS.items()}  # digests do not change with names
    prediction = old.get(config.prediction, config.prediction)
    decides = (config.network, config.schedule, prediction, config.time_scale, data)
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def weights_digest(model: Model) -> str:
    """Of the weights as they are now, not as the model's folder has them, 64 hex digits.

    Raises:
        InvalidArgumentError: If the network has none.
    """
    state = model.network.state_dict()
    if not state:
        raise InvalidArgumentError(
            f"the network of model {model.config.name!r} has no weights to know its results by:"
            " make it a torch module that registers its own"
        )
    return bytes_digest(*(f"{n} {tensor_digest(t)}".encode() for n, t in state.items()))


def model_digest(model: Model) -> str:
    """Of what decides the latents of a model's data, its weights included, 16 hex digits."""
    total = hashlib.sha256(config_digest(model.config).encode())
    if model.config.network["type"] == "custom":
        total.update(repr(model.network).encode())
    for name, value in model.network.state_dict().items():
        if isinstance(value, Tensor):
            total.update(name.encode())
            total.update(tensor_bytes(value))
    return total.hexdigest()[:16]
