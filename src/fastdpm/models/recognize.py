"""Recognition of published checkpoints by the names and shapes of their tensors."""

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

# A file that has this share of a preset's tensors is compared with that preset in the message.
_SIMILAR = 0.8


def recognize(
    path: Path, preset: Preset | None = None, layout: str | None = None
) -> tuple[ModelConfig, nn.Module, State, tuple[str, ...]]:
    """Recognize the model in a published checkpoint.

    Args:
        path: The checkpoint.
        preset: The preset that describes it; if None, the one that fits every shape.
        layout: Format, a key of :data:`fastdpm.models.formats.table.FORMATS`; recognized if None.

    Returns:
        The configuration of the model, its network on PyTorch's meta device, weights that fit it
        (memory-mapped if possible), and notes for the user.

    Raises:
        InvalidArgumentError: If no preset fits, or several presets with different settings fit.
        ModelError: If the file is damaged, would execute code when read, or does not fit.
    """
    if layout is not None:
        check_one_of("`layout`", layout, table.FORMATS)
    form, marked = _recognized(path, read_states(path), layout)
    state = choose_state(path, marked)
    if preset is None:
        config, network, notes = _matching_preset(path, form, state)
        description = f"a network of {form.title}"
    else:
        config, network, notes = *_completed(path, preset, form, _shapes(state)), ()
        description = f"preset {preset.name}"
    check_same(path, network.state_dict(), state, description)
    return replace(config, weights_sha256=sha256(path)), network, state, notes


def _recognized(
    path: Path, states: list[tuple[str, State]], layout: str | None
) -> tuple[Format, list[tuple[str, State]]]:
    """The format of a file, and its states that contain the marker tensor of that format."""
    for name, form in table.FORMATS.items():
        marked = [(key, state) for key, state in states if form.mark in state]
        if marked and layout in (None, name):
            return form, marked
    if any(UNET_MARK in state for _, state in states):
        raise InvalidArgumentError(
            f"{path} holds the weights of a diffusers network without its configuration: pass the"
            " folder that contains both"
        )
    found = next((f"a tensor {sorted(state)[0]}" for _, state in states), "no named tensors")
    known = ", ".join(f"{name} ({form.title})" for name, form in table.FORMATS.items())
    expected = f"of format {layout}" if layout else f"of a known format, one of {known}"
    raise ModelError(
        f"{path} is not a checkpoint {expected}: it holds {found}; open other networks in Python"
        " with Model.wrap"
    )


def _completed(
    path: Path, preset: Preset, form: Format, shapes: Shapes
) -> tuple[ModelConfig, nn.Module]:
    """The configuration of a preset, completed with arguments inferred from the shapes."""
    config = preset.model_config()
    kind = config.network.get("type")
    check_one_of(f"network type of preset {preset.name}", kind, NETWORKS)
    if kind != form.network:
        raise ModelError(
            f"{path} holds a network of {form.title} ({form.network}), but preset {preset.name}"
            f" describes a {kind}: choose another preset"
        )
    try:
        inferred = form.infer(shapes, config.data.shape[-1])
        if config.null_class is not None and inferred.get("num_classes"):
            inferred["num_classes"] -= 1  # the last row of the embedding is the null class
        network = inferred | config.network
    except (ModelError, LookupError, ArithmeticError, ValueError) as error:
        raise ModelError(
            f"{path} does not fit preset {preset.name}: its tensors are not those of {form.title}"
            f" ({error})"
        ) from None
    unstated = form.unstated(network)
    if unstated:
        raise InvalidArgumentError(
            f"preset {preset.name} must set {unstated} under [network]: it cannot be inferred from"
            " the weights"
        )
    try:
        return replace(config, network=network), check_fits(network, config.data)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"preset {preset.name}: {error}") from None


def _matching_preset(
    path: Path, form: Format, state: State
) -> tuple[ModelConfig, nn.Module, tuple[str, ...]]:
    """The configuration and network of the preset whose shapes equal those of ``state``."""
    shapes = _shapes(state)
    configs = [read_preset(name).model_config() for name in presets()]
    candidates = [
        (config, check_fits(config.network, config.data))
        for config in configs
        if config.network.get("type") == form.network
    ]
    matching = [
        (config, network)
        for config, network in candidates
        if _shapes(network.state_dict()) == shapes
    ]
    if matching:
        config, notes = _merged(path, [config for config, _ in matching])
        return config, matching[0][1], notes
    for config, network in sorted(candidates, key=lambda pair: -_overlap(pair[1], shapes))[:1]:
        if _overlap(network, shapes) >= _SIMILAR:
            check_same(path, network.state_dict(), state, f"{config.name}, the closest preset")
    raise InvalidArgumentError(
        f"{path} is a network of {form.title} that no preset describes: its schedule and data"
        " cannot be inferred from the weights, so describe them in your own TOML file and pass it"
        " as the preset (see docs/open.md)"
    )


def _overlap(network: nn.Module, shapes: Shapes) -> float:
    """The share of a network's tensors that are among ``shapes``, by name and shape."""
    expected = _shapes(network.state_dict())
    return len(expected.items() & shapes.items()) / len(expected)


def _merged(path: Path, configs: list[ModelConfig]) -> tuple[ModelConfig, tuple[str, ...]]:
    """One configuration for several matching presets, if their settings are equal."""
    names = ", ".join(config.name for config in configs)
    first = configs[0]
    settings = [
        (c.network | {"dropout": 0.0}, c.schedule, c.data.shape, c.prediction, c.time_scale)
        for c in configs
    ]
    if any(each != settings[0] for each in settings):
        raise InvalidArgumentError(
            f"{path} fits the presets {names}, whose settings differ in ways that the weights do"
            " not show: choose one of them as the preset"
        )
    if len(configs) == 1:
        return first, ()
    data = replace(first.data, description=" or ".join(c.data.description for c in configs))
    config = replace(
        first,
        name=model_name(path.stem),
        data=data,
        license="unknown",
        attribution="",
        provenance={"checkpoint": path.name, "fits": names},
    )
    note = f"{path.name} fits {names} equally: choose one as the preset if the difference matters"
    return config, (note,)


def _shapes(state: State) -> Shapes:
    """The shapes of a state, by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
