"""Finding a model wherever it is: built in, a folder, a hub's name, a published checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.hub import PREFIX, fetch
from fastdpm.models.checkpoint import State, choose_state, read_states
from fastdpm.models.config import BUILTIN, CONFIG, ModelConfig, names_in, read_config
from fastdpm.models.diffusers_folder import is_diffusers_folder, read_diffusers_folder
from fastdpm.models.folder import CONDITIONS, NETWORKS, WEIGHTS, check_fits, check_weights
from fastdpm.models.formats import FORMATS, Format, Shapes, infer
from fastdpm.models.presets import Preset, presets, read_preset
from fastdpm.models.weights import check_same, read_tensors, sha256

_SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors", ".toml")
_NEAR = 0.8  # of a preset's tensors: a file that has so many is a damaged or changed one of it


@dataclass(frozen=True)
class FoundModel:
    """A model by what is known of it before its weights are read.

    Attributes:
        config: Its configuration.
        weights: The file of its weights; None for a preset without a checkpoint.
        read: Reads them, checked against the configuration's checksum if it has one.
        conditions: File of the spectrograms that come with a vocoder, if there is one.
        notes: What a reader must know.
    """

    config: ModelConfig
    weights: Path | None
    read: Callable[[], State]
    conditions: Path | None = None
    notes: tuple[str, ...] = ()

    def checksum(self) -> str:
        """Of the weights, as the configuration says or the file is."""
        if self.weights is None:
            self.read()
        return self.config.weights_sha256 or (sha256(self.weights) if self.weights else "")


def is_model(name_or_path: str | Path) -> bool:
    """Whether :func:`find_model` would look for a model there, not for samples."""
    name, path = str(name_or_path), Path(name_or_path)
    named = name in names_in(BUILTIN) or name in presets() or name.startswith(PREFIX)
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
        layout: One of :data:`fastdpm.models.formats.FORMATS`, to insist on that layout of a
            checkpoint; recognised if None.

    Raises:
        InvalidArgumentError: If there is no such model, or a checkpoint fits no preset.
        ModelError: If its files are damaged, would execute code or do not fit together.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if checkpoint is not None:
        if name not in presets() and not name.endswith(".toml"):
            raise InvalidArgumentError(
                f"{name} is no preset, so a checkpoint beside it would change nothing: drop it,"
                f" or name one of {', '.join(presets())}, or a TOML file of your own"
            )
        return _of_checkpoint(Path(checkpoint), read_preset(name), layout)
    if name in names_in(BUILTIN):
        return _of_folder(BUILTIN / name)
    if name.startswith(PREFIX):
        return _of_folder(fetch(name))
    if name in presets() or name.endswith(".toml"):
        return _without_weights(read_preset(name))
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_checkpoint(path, None, layout)
    raise InvalidArgumentError(
        f"no model {name!r}: give a built-in name ({', '.join(names_in(BUILTIN)) or 'none'}), a"
        f" folder that holds {CONFIG}, hf:owner/name, a published checkpoint, or a preset with"
        " its checkpoint"
    )


def _of_folder(folder: Path) -> FoundModel:
    if is_diffusers_folder(folder):
        config, weights, read = read_diffusers_folder(folder)
        return FoundModel(config, weights, read)
    if not (folder / CONFIG).is_file():
        raise InvalidArgumentError(f"{folder} is no model folder: it holds no {CONFIG}")
    config = read_config(folder)
    conditions = folder / CONDITIONS
    return FoundModel(
        config,
        folder / WEIGHTS,
        lambda: read_tensors(check_weights(folder, config.weights_sha256)),
        conditions if conditions.is_file() else None,
    )


def _without_weights(preset: Preset) -> FoundModel:
    source = preset.source
    where = f" ({source.checkpoint}, {source.checkpoint_from})" if source else ""

    def missing() -> State:
        raise InvalidArgumentError(
            f"{preset.name} is a preset, which has no weights: give their file to --checkpoint"
            f"{where}"
        )

    return FoundModel(preset.model_config(), None, missing)


def _of_checkpoint(path: Path, preset: Preset | None, layout: str | None) -> FoundModel:
    """The model of a checkpoint: by its preset, or by the presets whose network it fits."""
    if layout is not None:
        check_one_of("format", layout, FORMATS)
    states = read_states(path)
    form = _recognised(path, states, layout)
    state = choose_state(path, states, lambda tensors: int(form.mark in tensors))
    notes: tuple[str, ...] = ()
    if preset is None:
        config, notes = _fitting(path, form, state)
    else:
        config = _completed(path, preset, form, state)
        check_same(path, check_fits(config).state_dict(), state, f"preset {preset.name}")
    config = replace(config, weights_sha256=sha256(path))
    return FoundModel(config, path, lambda: state, notes=notes)


def _recognised(path: Path, states: list[tuple[str, State]], layout: str | None) -> Format:
    for name, form in FORMATS.items():
        if layout in (None, name) and any(form.mark in state for _, state in states):
            return form
    if any("time_embedding.linear_1.weight" in state for _, state in states):
        raise InvalidArgumentError(
            f"{path} holds the weights of a diffusers network without its configuration: give the"
            " whole folder"
        )
    first = next((sorted(state)[0] for _, state in states), "nothing")
    known = "one of " + ", ".join(f"{name} ({form.title})" for name, form in FORMATS.items())
    wanted = f"of format {layout}" if layout else f"of a known format, {known}"
    raise ModelError(f"{path} is no checkpoint {wanted}: it holds {first}, say")


def _completed(path: Path, preset: Preset, form: Format, state: State) -> ModelConfig:
    """The configuration of a preset, with what the shapes tell where it leaves that out."""
    config = preset.model_config()
    kind = config.network.get("type")
    check_one_of(f"network type of preset {preset.name}", kind, NETWORKS)
    if kind != form.network:
        raise ModelError(
            f"{path} holds a network of {form.title} ({form.network}), but preset {preset.name}"
            f" describes {kind}: choose the preset of this file"
        )
    try:
        told = infer(form, _shapes(state), config.data.shape[-1])
    except InvalidArgumentError as error:
        raise ModelError(f"{path} does not fit preset {preset.name}: {error}") from None
    return replace(config, network=told | config.network)


def _fitting(path: Path, form: Format, state: State) -> tuple[ModelConfig, tuple[str, ...]]:
    """The configuration of the preset that a network fits to the last shape."""
    shapes = _shapes(state)
    fitting: list[ModelConfig] = []
    nearest: tuple[float, ModelConfig] | None = None
    for name in presets():
        config = read_preset(name).model_config()
        if config.network.get("type") != form.network:
            continue
        wanted = _shapes(check_fits(config).state_dict())
        if wanted == shapes:
            fitting.append(config)
        shared = len(wanted.items() & shapes.items()) / len(wanted)
        if nearest is None or shared > nearest[0]:
            nearest = (shared, config)
    if fitting:
        return _alike(path, fitting)
    if nearest is not None and nearest[0] >= _NEAR:
        network = check_fits(nearest[1])
        check_same(path, network.state_dict(), state, f"{nearest[1].name}, the nearest preset")
    raise InvalidArgumentError(
        f"{path} is a network of {form.title} that no preset describes: its schedule and data"
        " cannot be seen from the weights, write them in a TOML file of your own and give that as"
        " the preset (docs/open.md has one)"
    )


def _alike(path: Path, fitting: list[ModelConfig]) -> tuple[ModelConfig, tuple[str, ...]]:
    """One configuration for the presets that a network fits, if they say the same of it."""
    names = [config.name for config in fitting]
    told = ", ".join(names)
    first = fitting[0]
    said = [(c.network, c.schedule, c.data.shape, c.prediction, c.time_scale) for c in fitting]
    if any(each != said[0] for each in said):
        raise InvalidArgumentError(
            f"{path} fits the presets {told}, which differ in what cannot be seen from the"
            " weights: say which it is"
        )
    if len(fitting) == 1:
        return first, ()
    data = replace(first.data, description=" or ".join(c.data.description for c in fitting))
    config = replace(
        first,
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._") or "model",
        data=data,
        licence="unknown",
        attribution="",
        provenance={"checkpoint": path.name, "fits": told},
    )
    return config, (f"{path.name} fits {told} alike: name one of them where it matters",)


def _shapes(state: State) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
