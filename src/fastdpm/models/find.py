"""Finding a model by name, path, hub address or preset, without reading its weights.

PyTorch is imported only where a weights file is opened, because plans do not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fastdpm.core.errors import InvalidArgumentError, ModelError
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
from fastdpm.models.tuned import TunedPlan, read_tuned, tuned_files

if TYPE_CHECKING:
    from torch import nn

    from fastdpm.models.formats.states import State

_SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors")


@dataclass(frozen=True)
class FoundModel:
    """A model whose weights have not been read yet.

    Attributes:
        config: The configuration.
        weights: The weights file; None for a preset without a checkpoint.
        read: Returns the network on PyTorch's meta device, and weights that fit it. If the
            configuration has a checksum, it is verified.
        conditions: File with the example conditions of a vocoder, or None.
        notes: Notes for the user.
        plan_files: Files of tuned plans, by S.
    """

    config: ModelConfig
    weights: Path | None
    read: Callable[[], tuple[nn.Module, State]]
    conditions: Path | None = None
    notes: tuple[str, ...] = ()
    plan_files: Mapping[int, Path] = field(default_factory=dict)

    @cached_property
    def schedule(self) -> VarianceSchedule:
        """The variances that the model was trained with."""
        return VarianceSchedule.from_config(self.config.schedule)

    @cached_property
    def plans(self) -> dict[int, TunedPlan]:
        """The tuned plans in the model folder, by S.

        Raises:
            ModelError: If a file is damaged.
        """
        plans = {num_steps: read_tuned(path) for num_steps, path in self.plan_files.items()}
        for num_steps, tuned in plans.items():
            if tuned.num_steps != num_steps:
                raise ModelError(
                    f"{self.plan_files[num_steps]} has {tuned.num_steps} rows: rename it to"
                    f" S{tuned.num_steps}.json"
                )
        return plans

    @property
    def files(self) -> list[Path]:
        """The files that it is read from, as far as they are known."""
        config = None if self.weights is None else self.weights.with_name(CONFIG)
        files = (self.weights, self.conditions, config, *self.plan_files.values())
        return [path for path in files if path is not None and path.exists()]

    def checksum(self) -> str:
        """The SHA-256 of the weights, from the configuration or computed from the file.

        Raises:
            InvalidArgumentError: If the model is a preset without a checkpoint.
        """
        if self.config.weights_sha256:
            return self.config.weights_sha256
        if self.weights is None:
            _no_weights(self.config)
        from fastdpm.data.tensors import sha256

        return sha256(self.weights)


def is_model(name_or_path: str | Path) -> bool:
    """Whether a name or path refers to a model, as opposed to samples."""
    name, path = str(name_or_path), Path(name_or_path)
    named = name in names_in(BUILTIN) or is_preset(name) or name.startswith(PREFIX)
    folder = (path / CONFIG).is_file() or is_diffusers_folder(path)
    return named or folder or (path.suffix in _SUFFIXES)


def find_model(
    name_or_path: str | Path,
    checkpoint: str | Path | None = None,
    layout: str | None = None,
    variant: str | None = None,
) -> FoundModel:
    """Find a model. Of the weights, at most the names and shapes are read.

    Args:
        name_or_path: A built-in name, a model folder, a diffusers folder, "hf:owner/name", a
            published checkpoint, or a preset (a name or a TOML file).
        checkpoint: The weights file of a preset.
        layout: Required format of the checkpoint, a key of
            :data:`fastdpm.models.formats.table.FORMATS`; recognized from the weights if None.
        variant: The variant of the weights of a diffusers folder, such as "fp16".

    Raises:
        InvalidArgumentError: If there is no such model or variant, or no preset fits the
            checkpoint.
        ModelError: If a file is damaged or would execute code when read, or the files do not
            belong together.
    """
    name, path = str(name_or_path), Path(name_or_path)
    folder = BUILTIN / name if name in names_in(BUILTIN) else path
    if name.startswith(PREFIX) and checkpoint is None and layout is None:
        folder = fetch(name, variant)
    if variant is not None and not is_diffusers_folder(folder):
        raise InvalidArgumentError(
            f"{name} is not a diffusers folder, so `variant` has no effect: drop it"
        )
    if is_preset(name) and checkpoint is not None:
        return _of_checkpoint(Path(checkpoint), read_preset(name), layout)
    _check_used(name, checkpoint, layout)
    if is_preset(name):
        config = read_preset(name).model_config()
        return FoundModel(config, None, partial(_no_weights, config))
    if folder.is_dir():
        return _of_folder(folder, variant)
    if path.is_file():
        return _of_checkpoint(path, None, layout)
    raise InvalidArgumentError(
        f"no model {name!r}: pass a built-in name ({', '.join(names_in(BUILTIN)) or 'none'}), a"
        f" folder that contains {CONFIG}, hf:owner/name, a published checkpoint, or a preset with"
        " its checkpoint"
    )


def _check_used(name: str, checkpoint: str | Path | None, layout: str | None) -> None:
    """Raise InvalidArgumentError if a checkpoint or layout would have no effect on this name."""
    if checkpoint is not None:
        raise InvalidArgumentError(
            f"{name} is not a preset, so `checkpoint` has no effect: drop it, or pass a preset:"
            f" one of {', '.join(presets())}, or your own TOML file"
        )
    if layout is not None and not Path(name).is_file():
        raise InvalidArgumentError(
            f"{name} is not a checkpoint, so `layout` has no effect: drop it"
        )


def _of_folder(folder: Path, variant: str | None) -> FoundModel:
    """The model of a model folder or a diffusers folder."""
    read_diffusers: Callable[[], State] | None = None
    notes: tuple[str, ...] = ()
    if is_diffusers_folder(folder):
        from fastdpm.models.formats.diffusers_folder import read_diffusers_folder

        config, weights, read_diffusers, notes = read_diffusers_folder(folder, variant)
    elif (folder / CONFIG).is_file():
        config, weights = read_config(folder, ModelConfig), folder / WEIGHTS
    else:
        raise InvalidArgumentError(f"{folder} is not a model folder: it contains no {CONFIG}")

    def read() -> tuple[nn.Module, State]:
        from fastdpm.models.folder import network_of, read_weights
        from fastdpm.networks.build import check_fits

        state = read_diffusers() if read_diffusers else read_weights(folder, config.weights_sha256)
        network = network_of(weights, state, lambda: check_fits(config.network, config.data))
        return network, state

    conditions = folder / CONDITIONS
    has_conditions = read_diffusers is None and conditions.is_file()
    plans = {} if read_diffusers else tuned_files(folder)
    return FoundModel(config, weights, read, conditions if has_conditions else None, notes, plans)


def _no_weights(config: ModelConfig) -> NoReturn:
    """Raise the error for a preset without a checkpoint; it says where the weights are."""
    source = config.provenance
    where = ""
    if "checkpoint" in source:
        where = f" ({source['checkpoint']}, {source['checkpoint_from']})"
    raise InvalidArgumentError(
        f"{config.name} is a preset without weights: pass the weights file as `checkpoint`{where}"
    )


def _of_checkpoint(path: Path, preset: Preset | None, layout: str | None) -> FoundModel:
    """The model of a published checkpoint."""
    from fastdpm.models.recognize import recognize

    found = recognize(path, preset, layout)
    # Every call of ``read`` returns its own network, because weights are loaded into it.
    read = lambda: (deepcopy(found.network), found.state)  # noqa: E731
    return FoundModel(found.config, path, read, notes=found.notes)
