"""Finding the U-Net, the scheduler and the weights in a folder of diffusers.

A pipeline folder holds ``model_index.json``, ``unet/`` and ``scheduler/``; in the first published
ones, the files of both are next to ``model_index.json``. Training scripts write folders
``checkpoint-N`` with ``unet/`` and, for averaged weights, ``unet_ema/``, without a scheduler.
Weights are one file, of a variant such as fp16, or several files with an index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

from fastdpm.core import limits
from fastdpm.core.errors import DataError, InvalidArgumentError, ModelError
from fastdpm.models.config import CONFIG, DIFFUSERS_PIPELINE, OTHER_NETWORKS, training_checkpoints

SCHEDULER = "scheduler_config.json"
FROM_PIPELINE = "open it in Python with fastdpm.integrations.diffusers.from_pipeline"
_STEM = "diffusion_pytorch_model"
_FILE = re.compile(rf"{_STEM}(?:\.(?P<variant>[\w-]+))?\.(?P<kind>safetensors|bin)")
_INDEX = re.compile(
    rf"{_STEM}(?:\.(?P<before>[\w-]+))?\.(?P<kind>safetensors|bin)\.index(?:\.(?P<after>[\w-]+))?"
    r"\.json"
)
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
_AVERAGED_FIRST = ("unet_ema", "unet")
_DEFAULT_SCHEDULER = {"_class_name": "DDPMScheduler"}  # of the training scripts of diffusers


class WeightsFiles(NamedTuple):
    """The weights of a U-Net.

    Attributes:
        path: The weights file, or the index of several.
        files: The weights files.
        notes: Notes for the user.
    """

    path: Path
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def find_unet(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Find the folder of a U-Net: averaged weights first, and the latest of several checkpoints.

    Returns:
        The folder, and notes for the user on what was chosen.

    Raises:
        InvalidArgumentError: If the pipeline has other networks, or no U-Net.
        ModelError: If a file cannot be read.
    """
    notes = []
    checkpoints = training_checkpoints(folder)
    if checkpoints:
        rest = f", the latest of {len(checkpoints)}" if len(checkpoints) > 1 else ""
        notes.append(f"{checkpoints[-1].name} is used{rest}")
    place = checkpoints[-1] if checkpoints else folder
    unet = _unet_folder(place)
    if unet.name == "unet_ema":
        notes.append("the averaged weights in unet_ema are used")
    elif (unet.parent / "unet_ema" / CONFIG).is_file():
        notes.append(f"{unet.name} is not averaged: unet_ema beside it holds averaged weights")
    return unet, tuple(notes)


def find_scheduler(folder: Path, unet: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read the configuration of the scheduler of a U-Net.

    Args:
        folder: The folder that the user named.
        unet: The folder of the U-Net.

    Returns:
        The configuration, and a note if it was assumed: folders of training scripts may have none.

    Raises:
        ModelError: If there is no scheduler, or the file cannot be read.
    """
    folders = [folder / "scheduler", folder, unet, unet.parent / "scheduler"]
    in_training = unet.name == "unet_ema" or unet.parent.name.startswith("checkpoint-")
    if in_training:  # the pipeline may be around its checkpoints
        folders.append(unet.parent.parent / "scheduler")
    found = next((each / SCHEDULER for each in folders if (each / SCHEDULER).is_file()), None)
    if found is not None:
        return read_json(found), ()
    if not in_training:
        raise ModelError(
            f"{folder} holds no {SCHEDULER}, so the variance schedule of its network is"
            " unknown: save the scheduler there"
        )
    note = (
        f"there is no {SCHEDULER}, so the default of diffusers' training scripts is assumed:"
        " T = 1,000, linear betas from 0.0001 to 0.02, prediction epsilon; save the scheduler"
        f" to {unet} if it was another one"
    )
    return dict(_DEFAULT_SCHEDULER), (note,)


def unet_part(has: Callable[[str], bool]) -> str:
    """The folder of the U-Net in a folder of diffusers, averaged weights first; "" for itself.

    Args:
        has: Whether the folder has a file.
    """
    return next((part for part in _AVERAGED_FIRST if has(f"{part}/{CONFIG}")), "")


def find_weights(folder: Path, variant: str | None = None) -> WeightsFiles:
    """Find the weights of a U-Net: one file, several with an index, or those of a variant.

    Args:
        folder: The folder of the U-Net.
        variant: The variant, such as "fp16"; by default the weights without one, or the only one.

    Raises:
        InvalidArgumentError: If there is no such variant, or several and none was chosen.
        ModelError: If there are no weights, or a file of the index is missing.
    """
    names = [path.name for path in folder.glob(f"{_STEM}*") if path.is_file()]
    found = _by_variant(names)
    if not found:
        detail = f", only {min(names)}" if names else ""
        raise ModelError(
            f"{folder} holds no weights file {_STEM}.safetensors or {_STEM}.bin{detail}"
        )
    chosen = _choose_variant(str(folder), found, variant)
    path = folder / found[chosen]
    notes = (f"the weights are the variant {chosen}",) if chosen else ()
    files = _shards(path) if path.suffix == ".json" else (path,)
    return WeightsFiles(path, files, notes)


def weights_among(where: str, names: Collection[str], variant: str | None = None) -> list[str]:
    """The names of the weights among the files of a folder, such as one on a hub.

    Args:
        where: The folder, for messages.
        names: Its files.
        variant: See :func:`find_weights`.

    Returns:
        One file, an index and its files, or nothing if there are no weights.

    Raises:
        InvalidArgumentError: See :func:`find_weights`.
    """
    found = _by_variant(names)
    if not found:
        return []
    chosen = _choose_variant(where, found, variant)
    index = _INDEX.fullmatch(found[chosen])
    if index is None:
        return [found[chosen]]
    parts = []
    for name in sorted(names):
        whole = _FILE.fullmatch(_SHARD.sub("", name)) if _SHARD.search(name) else None
        if whole and (whole["variant"] or "", whole["kind"]) == (chosen, index["kind"]):
            parts.append(name)
    return [found[chosen], *parts]


def _choose_variant(where: str, found: Collection[str], variant: str | None) -> str:
    """The variant of the weights to use; "" for those without a name."""
    if variant is not None and variant not in found:
        named = ", ".join(filter(None, found)) or "none"
        raise InvalidArgumentError(
            f"{where} has no `variant` {variant!r} of its weights, only {named}: drop it, or"
            " choose another one"
        )
    if variant is None and "" not in found and len(found) > 1:
        raise InvalidArgumentError(
            f"{where} holds the variants {', '.join(found)} of its weights: keep one of them, or"
            " choose one by `variant` of load_model or `fastdpm convert --variant`"
        )
    if variant is not None:
        return variant
    return "" if "" in found else next(iter(found))


def _by_variant(names: Collection[str]) -> dict[str, str]:
    """The weights file or index of each variant; the variant "" is that without a name."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in sorted(names):
        whole, index = _FILE.fullmatch(name), _INDEX.fullmatch(name)
        match = whole or index
        if match is None or (whole and _SHARD.search(name)):
            continue
        variant = whole["variant"] if whole else match["before"] or match["after"]
        rank = (match["kind"] == "bin") + 2 * (whole is None)
        found.setdefault(variant or "", []).append((rank, name))
    return {variant: min(ranked)[1] for variant, ranked in found.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ModelError: If it cannot be read, or is not an object.
    """
    try:
        values = limits.read_json(path)
    except (OSError, ValueError, DataError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names; all of them are beside it."""
    parts = read_json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
        raise ModelError(f"{index} has no weight_map from tensors to files: download it again")
    names = sorted(set(parts.values()))
    missing = [n for n in names if Path(n).name != n or not (index.parent / n).is_file()]
    if missing or not names:
        raise ModelError(
            f"{index} names {len(names)} files, of which {len(missing)} are missing"
            f" ({', '.join(missing[:4])}): download them too"
        )
    return tuple(index.parent / name for name in names)


def _unet_folder(folder: Path) -> Path:
    """The folder of the U-Net: that of a pipeline's U-Net, or ``folder`` itself.

    Raises:
        InvalidArgumentError: If the pipeline has other networks, or no U-Net.
    """
    path = folder / DIFFUSERS_PIPELINE
    index = read_json(path) if path.is_file() else {}
    parts = {n for n, v in index.items() if isinstance(v, list) and any(v)}
    latent = [name for name in OTHER_NETWORKS if name in parts or (folder / name).is_dir()]
    if latent:
        raise InvalidArgumentError(
            f"{folder} is a pipeline with {' and '.join(latent)}: {FROM_PIPELINE}"
        )
    part = unet_part(lambda name: (folder / name).is_file())
    if part:
        return folder / part
    if index and not (folder / CONFIG).is_file():
        raise InvalidArgumentError(
            f"{folder} is a {index.get('_class_name')} without a U-Net, it contains"
            f" {', '.join(sorted(parts)) or 'nothing'}: pass the folder of a pipeline with a U-Net"
        )
    return folder
