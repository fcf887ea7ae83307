"""Diffusers folders: a U-Net with the configuration of its scheduler.

:mod:`fastdpm.models.formats.diffusers_files` describes the layouts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from fastdpm.core.errors import InvalidArgumentError, ModelError
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import bytes_digest, sha256
from fastdpm.models.config import CONFIG, ModelConfig
from fastdpm.models.formats.checkpoint import read_checkpoint
from fastdpm.models.formats.diffusers_config import clip_of, complete, prediction_of, schedule_of
from fastdpm.models.formats.diffusers_files import (
    WeightsFiles,
    find_scheduler,
    find_unet,
    find_weights,
    read_json,
)
from fastdpm.models.formats.states import State, unwrapped
from fastdpm.networks.diffusers_unet import CLASSES, check_unet

UNET_MARK = "time_embedding.linear_1.weight"  # a tensor that only U-Nets of diffusers have
_EMA_SETTINGS = frozenset(
    {"decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step"}
    | {"use_ema_warmup"}
)
# Names of attention layers before diffusers 0.12. Published models still use them.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_ATTENTION = re.compile(rf"(?<=\.)({'|'.join(_RENAMED)})(?=\.(weight|bias)$)")


class DiffusersModel(NamedTuple):
    """A model in a folder of diffusers.

    Attributes:
        config: Its configuration.
        weights: The weights file, or the index of several.
        read: Reads the weights, under the names of
            :class:`fastdpm.networks.diffusers_unet.DiffusersNetwork`.
        notes: Notes for the user on what was chosen or assumed.
    """

    config: ModelConfig
    weights: Path
    read: Callable[[], State]
    notes: tuple[str, ...]


def read_diffusers_folder(folder: Path, variant: str | None = None) -> DiffusersModel:
    """Read the configurations of a diffusers folder and find its weights.

    Args:
        folder: A pipeline folder, the folder of a U-Net, or one that a training script wrote.
        variant: The variant of the weights, such as "fp16"; see
            :func:`fastdpm.models.formats.diffusers_files.find_weights`.

    Raises:
        InvalidArgumentError: If the network is not supported, the scheduler has no variance
            schedule, or there is no such variant.
        ModelError: If a file is missing or damaged.
    """
    unet_folder, notes = find_unet(folder)
    network = read_json(unet_folder / CONFIG)
    kind = str(network.get("_class_name"))
    _check_class(unet_folder / CONFIG, kind)
    arguments = arguments_of(network)
    try:
        check_unet(kind, arguments)
        data = data_of(kind, arguments)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{unet_folder / CONFIG}: {error}") from None
    scheduler, assumed = find_scheduler(folder, unet_folder)
    files = find_weights(unet_folder, variant)
    config = ModelConfig(
        name=model_name(_published_name(folder)),
        network={"type": "diffusers", "class_name": kind, "config": arguments},
        schedule=schedule_of(scheduler),
        data=data,
        recipe=recipe_of(scheduler),
        prediction=prediction_of(scheduler),
        provenance={"layout": f"diffusers {network.get('_diffusers_version', '')}".strip()},
        weights_sha256=_digest(files),
    )
    notes += assumed + files.notes
    return DiffusersModel(config, files.path, lambda: _read(files, kind), notes)


def _check_class(path: Path, kind: str) -> None:
    """Raise InvalidArgumentError unless a network of this class can be opened from a folder."""
    if kind in CLASSES:
        return
    advice = "open other networks in Python with fastdpm.integrations.diffusers"
    if kind == "UNet2DConditionModel":
        advice = (
            "this one takes text embeddings: load it with diffusers, and open it in Python with"
            " fastdpm.integrations.diffusers.from_unet(unet, scheduler, encoder_hidden_states=...)"
            " or its pipeline with from_pipeline"
        )
    raise InvalidArgumentError(
        f"{path} describes a {kind}: only {' and '.join(CLASSES)} can be opened from a folder,"
        f" {advice}"
    )


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments in a diffusers configuration.

    Its metadata ("_...") and the settings of ``EMAModel``, which are stored beside them, are left
    out.
    """
    drop = _EMA_SETTINGS if config.keys() >= _EMA_SETTINGS else frozenset[str]()
    return {n: value for n, value in config.items() if not n.startswith("_") and n not in drop}


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


def _read(files: WeightsFiles, kind: str) -> State:
    """Read weights and use the current names of attention layers."""
    state: dict[str, Tensor] = {}
    for path in files.files:
        content = read_checkpoint(path)
        if not isinstance(content, Mapping) or not all(
            isinstance(name, str) and isinstance(tensor, Tensor)
            for name, tensor in content.items()
        ):
            raise ModelError(f"{path} holds other values than named tensors: save the U-Net again")
        state |= content
    old = kind == "UNet1DModel"  # its attention layers keep the former names
    rename = (lambda name: name) if old else _current_name
    return {f"unet.{rename(unwrapped(name))}": tensor for name, tensor in state.items()}


def _current_name(name: str) -> str:
    return _OLD_ATTENTION.sub(lambda match: _RENAMED[match[1]], name)


def _digest(files: WeightsFiles) -> str:
    """SHA-256 of the weights file, or of the names and checksums of several."""
    if len(files.files) == 1:
        return sha256(files.files[0])
    return bytes_digest(*(f"{path.name} {sha256(path)}\n".encode() for path in files.files))
