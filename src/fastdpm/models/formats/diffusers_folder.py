"""Diffusers folders: a U-Net with the configuration of its scheduler.

A pipeline folder holds ``model_index.json``, ``unet/`` and ``scheduler/``; in the first published
ones, the files of both are next to ``model_index.json``. A U-Net by itself has its
``scheduler_config.json`` in the same folder.
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
UNET_MARK = "time_embedding.linear_1.weight"  # a tensor that only U-Nets of diffusers have
_STEM = "diffusion_pytorch_model"
_WEIGHTS = (f"{_STEM}.safetensors", f"{_STEM}.bin")
_FROM_PIPELINE = "open it in Python with fastdpm.integrations.diffusers.from_pipeline"
# Names of attention layers before diffusers 0.12. Published models still use them.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(?<=\.)({'|'.join(_RENAMED)})(?=\.(weight|bias)$)")


def read_diffusers_folder(folder: Path) -> tuple[ModelConfig, Path, Callable[[], State]]:
    """Read the configurations of a diffusers folder and find its weights.

    Args:
        folder: A pipeline folder, or the folder of a U-Net.

    Returns:
        The configuration of the model, the weights file, and a function that reads the weights.

    Raises:
        InvalidArgumentError: If the network is not supported, or the scheduler has no variance
            schedule.
        ModelError: If a file is missing or damaged.
    """
    unet_folder = _unet_folder(folder)
    network = _read_json(unet_folder / CONFIG)
    kind = str(network.get("_class_name"))
    if kind not in CLASSES:
        raise InvalidArgumentError(
            f"{unet_folder / CONFIG} describes a {kind}: only {' and '.join(CLASSES)} can be"
            " opened from a folder, open other networks in Python with"
            " fastdpm.integrations.diffusers"
        )
    arguments = arguments_of(network)
    try:
        check_unet(kind, arguments)
        data = data_of(kind, arguments)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{unet_folder / CONFIG}: {error}") from None
    scheduler = _scheduler(folder, unet_folder)
    path = _weights(unet_folder)
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
    """The arguments in a diffusers configuration, without its metadata keys ("_...")."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def data_of(class_name: str, config: Mapping[str, Any]) -> DataSpec:
    """The data that a U-Net was trained on, from its configuration.

    Args:
        class_name: Name of a diffusers model class.
        config: Arguments of that class.

    Raises:
        InvalidArgumentError: If ``sample_size`` is missing.
    """
    size, channels = config.get("sample_size"), int(config.get("in_channels", 3))
    sizes = [n for n in (size if isinstance(size, list | tuple) else [size]) if isinstance(n, int)]
    if not sizes:
        raise InvalidArgumentError(
            "the configuration of the U-Net has no `sample_size`: set the size of its data"
        )
    if class_name != "UNet1DModel":
        shape = (channels, sizes[0], sizes[-1])
        return DataSpec("image", shape, classes=config.get("num_class_embeds"))
    rate = config.get("sample_rate") or None
    modality = "audio" if rate and channels == 1 else "series"
    return DataSpec(modality, (channels, sizes[0]), sample_rate=rate)


def recipe_of(scheduler: Mapping[str, Any]) -> Recipe:
    """The default recipe, with the scheduler's clipping and at most T steps.

    Clipping to a range other than [-1, 1] has no counterpart in a recipe and is dropped. Dynamic
    thresholding with a maximum of 1, the default of diffusers, is equal to clipping.

    Args:
        scheduler: Configuration of a scheduler; see
            :func:`fastdpm.models.formats.diffusers_config.complete`.
    """
    values, clip = complete(scheduler), clip_of(scheduler)
    if clip == "x0" and values["clip_sample_range"] != 1:
        clip = "none"
    elif clip == "dynamic" and values["sample_max_value"] == 1:
        clip = "x0"
    total = VarianceSchedule.from_config(schedule_of(scheduler)).num_train_steps
    return Recipe(num_steps=min(Recipe().num_steps, total), clip=clip)


def model_name(text: str) -> str:
    """Turn any text into a valid model name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"


def _published_name(folder: Path) -> str:
    """The name of a folder, or of the repository if the folder is in the cache of the hub."""
    path = folder.resolve()
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.parent.parent.name.rpartition("--")[2]
    return path.name


def _unet_folder(folder: Path) -> Path:
    """The folder of the U-Net: that of a pipeline's U-Net, or ``folder`` itself.

    Raises:
        InvalidArgumentError: If the pipeline has other networks, or no U-Net.
    """
    path = folder / DIFFUSERS_PIPELINE
    index = _read_json(path) if path.is_file() else {}
    parts = {n for n, v in index.items() if isinstance(v, list) and any(v)}
    latent = [name for name in OTHER_NETWORKS if name in parts or (folder / name).is_dir()]
    if latent:
        raise InvalidArgumentError(
            f"{folder} is a pipeline with {' and '.join(latent)}: {_FROM_PIPELINE}"
        )
    if (folder / "unet").is_dir():
        return folder / "unet"
    if index and not (folder / CONFIG).is_file():
        raise InvalidArgumentError(
            f"{folder} is a {index.get('_class_name')} without a U-Net, it contains"
            f" {', '.join(sorted(parts)) or 'nothing'}: pass the folder of a pipeline with a U-Net"
        )
    return folder


def _read(path: Path, kind: str) -> State:
    """Read weights and use the current names of attention layers."""
    state = choose_state(path, read_states(path))
    if kind == "UNet1DModel":  # its attention layers keep the former names
        return {f"unet.{name}": tensor for name, tensor in state.items()}
    return {
        "unet." + _OLD_ATTENTION.sub(lambda m: _RENAMED[m[1]], name): tensor
        for name, tensor in state.items()
    }


def _weights(folder: Path) -> Path:
    """The weights file of a U-Net; raises ModelError if there is none."""
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    others = sorted(p.name for p in folder.glob(f"{_STEM}*") if p.is_file())
    detail = f", only {others[0]}" if others else ""
    if any(name.endswith(".index.json") for name in others):
        detail = (
            ": the weights are split into several files, save the U-Net again with"
            ' unet.save_pretrained(FOLDER, max_shard_size="100GB")'
        )
    raise ModelError(f"{folder} holds no weights file {' or '.join(_WEIGHTS)}{detail}")


def _scheduler(folder: Path, unet_folder: Path) -> dict[str, Any]:
    """The scheduler configuration of a U-Net; raises ModelError if there is none."""
    folders = [folder / "scheduler", folder, unet_folder]
    if unet_folder == folder:  # possibly the unet/ of a pipeline folder
        folders.append(folder.parent / "scheduler")
    for path in (each / SCHEDULER for each in folders):
        if path.is_file():
            return _read_json(path)
    raise ModelError(
        f"{folder} holds no {SCHEDULER}, so the variance schedule of its network is unknown: save"
        " the scheduler there"
    )


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values
