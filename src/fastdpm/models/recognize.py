"""Recognizing a published checkpoint by its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.data.tensors import sha256
from fastdpm.models.config import ModelConfig
from fastdpm.models.formats import table
from fastdpm.models.formats.checkpoint import State, choose_state, read_states
from fastdpm.models.formats.diffusers_folder import UNET_MARK, model_name
from fastdpm.models.formats.format import Format, Shapes
from fastdpm.models.presets import Preset, presets, read_preset
from fastdpm.networks.build import NETWORKS, check_fits
from fastdpm.networks.weights import check_same

_NEAR = 0.8  # of a preset's tensors: a file that has so many is a damaged or changed one of it


def recognize(
    path: Path, preset: Preset | None = None, layout: str | None = None
) -> tuple[ModelConfig, nn.Module, State, tuple[str, ...]]:
    """What a published checkpoint holds.

    Args:
        path: The file.
        preset: What it is said to hold; whichever it fits to the last shape if None.
        layout: One of :data:`fastdpm.models.formats.table.FORMATS`; recognized if None.

    Returns:
        The configuration of the model, its network on the meta device, the weights that were found
        to fit it, mapped from the file where that can be done, and what a reader must know.

    Raises:
        InvalidArgumentError: If no preset describes it, or several that contradict each other.
        ModelError: If it is damaged, would execute code or does not fit.
    """
    if layout is not None:
        check_one_of("`layout`", layout, table.FORMATS)
    form, marked = _recognized(path, read_states(path), layout)
    state = choose_state(path, marked)
    if preset is None:
        config, network, notes = _fitting(path, form, state)
        described = f"a network of {form.title}"
    else:
        config, network, notes = *_completed(path, preset, form, _shapes(state)), ()
        described = f"preset {preset.name}"
    check_same(path, network.state_dict(), state, described)
    return replace(config, weights_sha256=sha256(path)), network, state, notes


def _recognized(
    path: Path, states: list[tuple[str, State]], layout: str | None
) -> tuple[Format, list[tuple[str, State]]]:
    """The format of a file, and those of its states that have its mark."""
    for name, form in table.FORMATS.items():
        marked = [(key, state) for key, state in states if form.mark in state]
        if marked and layout in (None, name):
            return form, marked
    if any(UNET_MARK in state for _, state in states):
        raise InvalidArgumentError(
            f"{path} holds the weights of a diffusers network without its configuration: give the"
            " whole folder"
        )
    held = next((f"a tensor {sorted(state)[0]}" for _, state in states), "no named tensors")
    known = ", ".join(f"{name} ({form.title})" for name, form in table.FORMATS.items())
    wanted = f"of format {layout}" if layout else f"of a known format, one of {known}"
    raise ModelError(
        f"{path} is no checkpoint {wanted}: it holds {held}; a network of another kind is opened"
        " in Python by Model.wrap"
    )


def _completed(
    path: Path, preset: Preset, form: Format, shapes: Shapes
) -> tuple[ModelConfig, nn.Module]:
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
        network = form.infer(shapes, config.data.shape[-1]) | config.network
    except (ModelError, LookupError, ArithmeticError, ValueError) as error:
        raise ModelError(
            f"{path} does not fit preset {preset.name}: its tensors are not those of {form.title}"
            f" ({error})"
        ) from None
    unstated = form.unstated(network)
    if unstated:
        raise InvalidArgumentError(
            f"preset {preset.name} must say {unstated} under [network]: weights do not show it"
        )
    try:
        return replace(config, network=network), check_fits(network, config.data)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"preset {preset.name}: {error}") from None


def _fitting(
    path: Path, form: Format, state: State
) -> tuple[ModelConfig, nn.Module, tuple[str, ...]]:
    """The configuration of the preset that a network fits to the last shape."""
    shapes = _shapes(state)
    configs = [read_preset(name).model_config() for name in presets()]
    built = [
        (config, check_fits(config.network, config.data))
        for config in configs
        if config.network.get("type") == form.network
    ]
    fitting = [(c, network) for c, network in built if _shapes(network.state_dict()) == shapes]
    if fitting:
        config, notes = _alike(path, [config for config, _ in fitting])
        return config, fitting[0][1], notes
    for config, network in sorted(built, key=lambda each: -_shared(each[1], shapes))[:1]:
        if _shared(network, shapes) >= _NEAR:
            check_same(path, network.state_dict(), state, f"{config.name}, the nearest preset")
    raise InvalidArgumentError(
        f"{path} is a network of {form.title} that no preset describes: its schedule and data"
        " cannot be seen from the weights, write them in a TOML file of your own and give that as"
        " the preset (docs/open.md has one)"
    )


def _shared(network: nn.Module, shapes: Shapes) -> float:
    """The share of a network's tensors that are among the shapes."""
    wanted = _shapes(network.state_dict())
    return len(wanted.items() & shapes.items()) / len(wanted)


def _alike(path: Path, fitting: list[ModelConfig]) -> tuple[ModelConfig, tuple[str, ...]]:
    """One configuration for the presets that a network fits, if they say the same of it."""
    told = ", ".join(config.name for config in fitting)
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
        name=model_name(path.stem),
        data=data,
        license="unknown",
        attribution="",
        provenance={"checkpoint": path.name, "fits": told},
    )
    return config, (f"{path.name} fits {told} alike: name one of them where it matters",)


def _shapes(state: State) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
