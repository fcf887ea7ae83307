"""Folders of diffusers: a U-Net with its scheduler's configuration, as a model here.

Both the layout of a pipeline (``model_index.json``, ``unet/``, ``scheduler/``) and that of a
U-Net alone beside a ``scheduler_config.json`` are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, ModelError
from fastdpm.core.recipe import Recipe
from fastdpm.models.checkpoint import State, choose_state, read_states
from fastdpm.models.config import CONFIG, DataSpec, ModelConfig
from fastdpm.models.diffusers_config import clip_of, prediction_of, schedule_of
from fastdpm.models.diffusers_network import CLASSES
from fastdpm.models.weights import sha256

PIPELINE, SCHEDULER = "model_index.json", "scheduler_config.json"
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_LATENT = ("vae", "vqvae", "text_encoder")
# What attention was called before diffusers 0.12, whose models are still published so.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(?<=\.)({'|'.join(_RENAMED)})(?=\.(weight|bias)$)")


def is_diffusers_folder(folder: Path) -> bool:
    """Whether diffusers wrote a folder."""
    if (folder / PIPELINE).is_file():
        return True
    try:
        return "_class_name" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_diffusers_folder(folder: Path) -> tuple[ModelConfig, Path, Callable[[], State]]:
    """The configuration of a folder's U-Net, its weights' file, and what reads them.

    Raises:
        InvalidArgumentError: If its network is none that can be sampled alone, or its scheduler
            has no variance schedule.
        ModelError: If files are missing or damaged.
    """
    latent = [name for name in _LATENT if (folder / name).is_dir()]
    if latent:
        raise InvalidArgumentError(
            f"{folder} is a pipeline with {' and '.join(latent)}, more than a network: open it in"
            " Python by fastdpm.integrations.diffusers.from_pipeline"
        )
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    network = _read_json(place / CONFIG)
    kind = network.get("_class_name")
    if kind not in CLASSES:
        raise InvalidArgumentError(
            f"{place / CONFIG} is of a {kind}: only {' and '.join(CLASSES)} can be sampled from a"
            " folder, open others in Python by fastdpm.integrations.diffusers"
        )
    arguments = {name: value for name, value in network.items() if not name.startswith("_")}
    scheduler = _scheduler(folder, place)
    path = _weights(place)
    config = ModelConfig(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "model",
        network={"type": "diffusers", "class_name": kind, "config": arguments},
        schedule=schedule_of(scheduler),
        data=_data(place / CONFIG, kind, arguments),
        recipe=Recipe(clip=clip_of(scheduler)),
        prediction=prediction_of(scheduler),
        provenance={"layout": f"diffusers {network.get('_diffusers_version', '')}".strip()},
        weights_sha256=sha256(path),
    )
    return config, path, lambda: _read(path)


def _read(path: Path) -> State:
    state = choose_state(path, read_states(path), len)
    return {
        "unet." + _OLD_ATTENTION.sub(lambda m: _RENAMED[m[1]], name): tensor
        for name, tensor in state.items()
    }


def _weights(place: Path) -> Path:
    for name in _WEIGHTS:
        if (place / name).is_file():
            return place / name
    raise ModelError(f"{place} holds no weights: {' or '.join(_WEIGHTS)} is missing")


def _scheduler(folder: Path, place: Path) -> dict[str, Any]:
    candidates = [where / SCHEDULER for where in (folder / "scheduler", folder, place)]
    if place == folder:  # the U-Net of a pipeline, given by itself
        candidates.append(folder.parent / "scheduler" / SCHEDULER)
    for path in candidates:
        if path.is_file():
            return _read_json(path)
    raise ModelError(
        f"{folder} holds no {SCHEDULER}: the variances that its network was trained with are"
        " unknown"
    )


def _data(where: Path, kind: str, arguments: dict[str, Any]) -> DataSpec:
    """What the network's arguments tell of its data."""
    size, channels = arguments.get("sample_size"), int(arguments.get("in_channels", 3))
    sizes = [n for n in (size if isinstance(size, list | tuple) else [size]) if isinstance(n, int)]
    if not sizes:
        raise InvalidArgumentError(f"{where} does not say its sample_size: add it there")
    if kind == "UNet2DModel":
        shape = (channels, sizes[0], sizes[-1])
        return DataSpec("image", shape, classes=arguments.get("num_class_embeds"))
    rate = arguments.get("sample_rate")
    modality = "audio" if rate and channels == 1 else "series"
    return DataSpec(modality, (channels, sizes[0]), sample_rate=rate)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no table of values")
    return values
