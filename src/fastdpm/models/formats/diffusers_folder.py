"""Folders of diffusers: a U-Net with its scheduler's configuration, as a model here.

A pipeline has ``model_index.json`` beside ``unet/`` and ``scheduler/``, or beside the files of
both, as the first published ones do; a U-Net alone has its ``scheduler_config.json`` beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, ModelError
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import sha256
from fastdpm.models.config import CONFIG, DIFFUSERS_PIPELINE, OTHER_NETWORKS, ModelConfig
from fastdpm.models.formats.checkpoint import State, choose_state, read_states
from fastdpm.models.formats.diffusers_config import clip_of, complete, prediction_of, schedule_of
from fastdpm.networks.diffusers_unet import CLASSES, check_unet

SCHEDULER = "scheduler_config.json"
UNET_MARK = "time_embedding.linear_1.weight"  # in the weights of most U-Nets, and nowhere else
_STEM = "diffusion_pytorch_model"
_WEIGHTS = (f"{_STEM}.safetensors", f"{_STEM}.bin")
_BY_HAND = "open it in Python by fastdpm.integrations.diffusers.from_pipeline"
# What attention over images was called before diffusers 0.12, whose models are still published so.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(?<=\.)({'|'.join(_RENAMED)})(?=\.(weight|bias)$)")


def read_diffusers_folder(folder: Path) -> tuple[ModelConfig, Path, Callable[[], State]]:
    """The configuration of a folder's U-Net, its weights' file, and what reads them.

    Raises:
        InvalidArgumentError: If its network is none that can be sampled alone, or its scheduler
            has no variance schedule.
        ModelError: If files are missing or damaged.
    """
    place = _place_of_unet(folder)
    network = _read_json(place / CONFIG)
    kind = str(network.get("_class_name"))
    if kind not in CLASSES:
        raise InvalidArgumentError(
            f"{place / CONFIG} is of a {kind}: only {' and '.join(CLASSES)} can be sampled from a"
            " folder, open others in Python by fastdpm.integrations.diffusers"
        )
    arguments = arguments_of(network)
    try:
        check_unet(kind, arguments)
        data = data_of(kind, arguments)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{place / CONFIG}: {error}") from None
    scheduler = _scheduler(folder, place)
    path = _weights(place)
    config = ModelConfig(
        name=model_name(_published_name(folder)),
        network={"type": "diffusers", "class_name": kind, "config": arguments},
        schedule=schedule_of(scheduler),
        data=data,
        recipe=recipe_of(scheduler),
        prediction=prediction_of(scheduler),
        provenance={"layout": f"diffusers {network.get('_diffusers_version', '')}".strip()},
        weights_sha256=sha256(path),
    )
    return config, path, lambda: _read(path, kind)


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration of diffusers says, without what it notes about itself."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def data_of(class_name: str, config: Mapping[str, Any]) -> DataSpec:
    """What a U-Net's configuration says about its data.

    Args:
        class_name: Of diffusers.
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If it does not say the size.
    """
    size, channels = config.get("sample_size"), int(config.get("in_channels", 3))
    sizes = [n for n in (size if isinstance(size, list | tuple) else [size]) if isinstance(n, int)]
    if not sizes:
        raise InvalidArgumentError("the U-Net does not say the size of its data: add sample_size")
    if class_name != "UNet1DModel":
        shape = (channels, sizes[0], sizes[-1])
        return DataSpec("image", shape, classes=config.get("num_class_embeds"))
    rate = config.get("sample_rate")
    modality = "audio" if rate and channels == 1 else "series"
    return DataSpec(modality, (channels, sizes[0]), sample_rate=rate)


def recipe_of(scheduler: Mapping[str, Any]) -> Recipe:
    """The recommended recipe: its own clipping, and no more steps than there are.

    Clipping to another range than [-1, 1] has no counterpart and is left out; thresholding at no
    more than 1, which is what diffusers does if nothing else is said, is clipping.
    """
    said, clip = complete(scheduler), clip_of(scheduler)
    if clip == "x0" and said["clip_sample_range"] != 1:
        clip = "none"
    elif clip == "dynamic" and said["sample_max_value"] == 1:
        clip = "x0"
    total = VarianceSchedule.from_config(schedule_of(scheduler)).num_train_steps
    return Recipe(num_steps=min(Recipe().num_steps, total), clip=clip)


def model_name(text: str) -> str:
    """A name that a model may have, from any text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"


def _published_name(folder: Path) -> str:
    """The folder's name, or the repository's where it lies in the cache of a hub."""
    place = folder.resolve()
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return place.parent.parent.name.rpartition("--")[2]
    return place.name


def _place_of_unet(folder: Path) -> Path:
    """Where the U-Net of a pipeline lies, or the folder itself.

    Raises:
        InvalidArgumentError: If it is a pipeline of more than a U-Net, or of none.
    """
    path = folder / DIFFUSERS_PIPELINE
    index = _read_json(path) if path.is_file() else {}
    parts = {n for n, v in index.items() if isinstance(v, list) and any(v)}
    latent = [name for name in OTHER_NETWORKS if name in parts or (folder / name).is_dir()]
    if latent:
        raise InvalidArgumentError(
            f"{folder} is a pipeline with {' and '.join(latent)}, more than a network: {_BY_HAND}"
        )
    if (folder / "unet").is_dir():
        return folder / "unet"
    if index and not (folder / CONFIG).is_file():
        told = f"{index.get('_class_name')} of {', '.join(sorted(parts)) or 'nothing'}"
        raise InvalidArgumentError(f"{folder} is a {told}, and holds no U-Net to sample")
    return folder


def _read(path: Path, kind: str) -> State:
    state = choose_state(path, read_states(path))
    if kind == "UNet1DModel":  # whose attention still has those names
        return {f"unet.{name}": tensor for name, tensor in state.items()}
    return {
        "unet." + _OLD_ATTENTION.sub(lambda m: _RENAMED[m[1]], name): tensor
        for name, tensor in state.items()
    }


def _weights(place: Path) -> Path:
    for name in _WEIGHTS:
        if (place / name).is_file():
            return place / name
    others = sorted(p.name for p in place.glob(f"{_STEM}*") if p.is_file())
    what = f", only {others[0]}" if others else ""
    if any(name.endswith(".index.json") for name in others):
        what = (
            ": they are in several files, save the U-Net again by diffusers with"
            ' save_pretrained(FOLDER, max_shard_size="100GB")'
        )
    raise ModelError(f"{place} holds no weights {' or '.join(_WEIGHTS)}{what}")


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds no table of values")
    return values
