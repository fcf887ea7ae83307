"""Recognising a published checkpoint by its tensors."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.data.tensors import sha256
from fastdpm.models.config import ModelConfig
from fastdpm.models.folder import check_fits
from fastdpm.models.formats.checkpoint import State, choose_state, read_states
from fastdpm.models.formats.table import FORMATS, Format, Shapes, infer
from fastdpm.models.presets import Preset, presets, read_preset
from fastdpm.networks.build import NETWORKS
from fastdpm.networks.weights import check_same

_NEAR = 0.8  # of a preset's tensors: a file that has so many is a damaged or changed one of it


def recognise(
    path: Path, preset: Preset | None = None, layout: str | None = None
) -> tuple[ModelConfig, State, tuple[str, ...]]:
    """What a published checkpoint holds.

    Args:
        path: The file.
        preset: What it is said to hold; whichever it fits to the last shape if None.
        layout: One of :data:`fastdpm.models.formats.table.FORMATS`; recognised if None.

    Returns:
        The configuration of the model, its weights, mapped from the file where that can be done,
        and what a reader must know.

    Raises:
        InvalidArgumentError: If no preset describes it, or several that contradict each other.
        ModelError: If it is damaged, would execute code or does not fit.
    """
    if layout is not None:
        check_one_of("format", layout, FORMATS)
    states = read_states(path)
    form = _recognised(path, states, layout)
    state = choose_state(path, states, lambda s: len(s) if form.mark in s else 0)
    notes: tuple[str, ...] = ()
    if preset is None:
        config, notes = _fitting(path, form, state)
    else:
        config = _completed(path, preset, form, state)
        check_same(path, check_fits(config).state_dict(), state, f"preset {preset.name}")
    return replace(config, weights_sha256=sha256(path)), state, notes


def _recognised(path: Path, states: list[tuple[str, State]], layout: str | None) -> Format:
    for name, form in FORMATS.items():
        if layout in (None, name) and any(form.mark in state for _, state in states):
            return form
    if any("time_embedding.linear_1.weight" in state for _, state in states):
        raise InvalidArgumentError(
            f"{path} holds the weights of a diffusers network without its configuration: give the"
            " whole folder"
        )
    held = next((f"a tensor {sorted(state)[0]}" for _, state in states), "no named tensors")
    known = "one of " + ", ".join(f"{name} ({form.title})" for name, form in FORMATS.items())
    wanted = f"of format {layout}" if layout else f"of a known format, {known}"
    raise ModelError(
        f"{path} is no checkpoint {wanted}: it holds {held}; a network of another kind is opened"
        " in Python by Model.wrap"
    )


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
    except ModelError as error:
        raise ModelError(f"{path} does not fit preset {preset.name}: {error}") from None
    network = told | config.network
    attends = form.network == "adm-unet" and network["attention_resolutions"]
    if attends and not config.network.keys() & {"num_heads", "num_head_channels"}:
        raise InvalidArgumentError(
            f"preset {preset.name} must say num_heads or num_head_channels under [network]:"
            " weights do not show how many heads an attention has"
        )
    return replace(config, network=network)


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
    said = [
        (c.network | {"dropout": 0.0}, c.schedule, c.data.shape, c.prediction, c.time_scale)
        for c in fitting
    ]
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
