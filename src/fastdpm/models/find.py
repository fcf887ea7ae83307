"""Finding a model wherever it is, and what can be known of it before its weights are read.

A model is built in, a folder, a hub's name, a published checkpoint or a preset. Whatever needs
PyTorch is imported where a file of weights is opened, so that plans need none.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.models.config import (
    BUILTIN,
    CONDITIONS,
    CONFIG,
    WEIGHTS,
    ModelConfig,
    is_diffusers_folder,
    names_in,
    read_config,
)
from fastdpm.models.hub import PREFIX, fetch
from fastdpm.models.presets import Preset, is_preset, presets, read_preset

if TYPE_CHECKING:
    from torch import nn

    from fastdpm.models.formats.checkpoint import State

_SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class FoundModel:
    """A model by what is known of it before its weights are read.

    Attributes:
        config: Its configuration.
        weights: The file of its weights; None for a preset without a checkpoint.
        read: The network on the meta device, and the weights, which were found to fit it and the
            configuration's checksum if it has one.
        conditions: File of the spectrograms that come with a vocoder, if there is one.
        notes: What a reader must know.
    """

    config: ModelConfig
    weights: Path | None
    read: Callable[[], tuple[nn.Module, State]]
    conditions: Path | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def schedule(self) -> VarianceSchedule:
        """The variances that the model was trained with."""
        return VarianceSchedule.from_config(self.config.schedule)

    def checksum(self) -> str:
        """Of the weights, as the configuration says or the file is.

        Raises:
            InvalidArgumentError: If it is a preset without a checkpoint.
        """
        if self.config.weights_sha256:
            return self.config.weights_sha256
        if self.weights is None:
            _no_weights(self.config)
        from fastdpm.data.tensors import sha256

        return sha256(self.weights)


def is_model(name_or_path: str | Path) -> bool:
    """Whether :func:`find_model` would look for a model there, not for samples."""
    name, path = str(name_or_path), Path(name_or_path)
    named = name in names_in(BUILTIN) or is_preset(name) or name.startswith(PREFIX)
    folder = (path / CONFIG).is_file() or is_diffusers_folder(path)
    return named or folder or (path.suffix in _SUFFIXES)


def find_model(
    name_or_path: str | Path,
    checkpoint: str | Path | None = None,
    layout: str | None = None,
) -> FoundModel:
    """Find a model; its weights are not read yet, save for a look at a checkpoint's shapes.

    Args:
        name_or_path: A built-in name, a model folder, a diffusers folder, "hf:owner/name", a
            published checkpoint, or a preset (a name or a TOML file).
        checkpoint: The weights of a preset.
        layout: A layout of a checkpoint to insist on, one of
            :data:`fastdpm.models.formats.table.FORMATS`; recognized if None.

    Raises:
        InvalidArgumentError: If there is no such model, or a checkpoint fits no preset.
        ModelError: If its files are damaged, would execute code or do not fit together.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if is_preset(name) and checkpoint is not None:
        return _of_checkpoint(Path(checkpoint), read_preset(name), layout)
    _check_used(name, checkpoint, layout)
    if is_preset(name):
        config = read_preset(name).model_config()
        return FoundModel(config, None, partial(_no_weights, config))
    if name.startswith(PREFIX):
        return _of_folder(fetch(name))
    folder = BUILTIN / name if name in names_in(BUILTIN) else path
    if folder.is_dir():
        return _of_folder(folder)
    if path.is_file():
        return _of_checkpoint(path, None, layout)
    raise InvalidArgumentError(
        f"no model {name!r}: give a built-in name ({', '.join(names_in(BUILTIN)) or 'none'}), a"
        f" folder that holds {CONFIG}, hf:owner/name, a published checkpoint, or a preset with"
        " its checkpoint"
    )


def _check_used(name: str, checkpoint: str | Path | None, layout: str | None) -> None:
    """Raise InvalidArgumentError if a checkpoint or a layout beside this name changes nothing."""
    if checkpoint is not None:
        raise InvalidArgumentError(
            f"{name} is no preset, so a checkpoint beside it would change nothing: drop it,"
            f" or name one of {', '.join(presets())}, or a TOML file of your own"
        )
    if layout is not None and not Path(name).is_file():
        raise InvalidArgumentError(
            f"{name} is no checkpoint, so `layout` would change nothing: drop it"
        )


def _of_folder(folder: Path) -> FoundModel:
    foreign: Callable[[], State] | None = None
    if is_diffusers_folder(folder):
        from fastdpm.models.formats.diffusers_folder import read_diffusers_folder

        config, weights, foreign = read_diffusers_folder(folder)
    elif (folder / CONFIG).is_file():
        config, weights = read_config(folder, ModelConfig), folder / WEIGHTS
    else:
        raise InvalidArgumentError(f"{folder} is no model folder: it holds no {CONFIG}")

    def read() -> tuple[nn.Module, State]:
        from fastdpm.models.folder import network_of, read_weights
        from fastdpm.networks.build import check_fits

        state = foreign() if foreign else read_weights(folder, config.weights_sha256)
        network = network_of(weights, state, lambda: check_fits(config.network, config.data))
        return network, state

    conditions = folder / CONDITIONS
    own = foreign is None and conditions.is_file()
    return FoundModel(config, weights, read, conditions if own else None)


def _no_weights(config: ModelConfig) -> NoReturn:
    """Say what is wrong with a preset alone, and where its weights are if that is known."""
    made = config.provenance
    where = f" ({made['checkpoint']}, {made['checkpoint_from']})" if "checkpoint" in made else ""
    raise InvalidArgumentError(
        f"{config.name} is a preset, which has no weights: give their file to `checkpoint`{where}"
    )


def _of_checkpoint(path: Path, preset: Preset | None, layout: str | None) -> FoundModel:
    from fastdpm.models.recognize import recognize

    config, network, state, notes = recognize(path, preset, layout)
    # Each reader gets a network of its own to put the weights into.
    return FoundModel(config, path, lambda: (deepcopy(network), state), notes=notes)
