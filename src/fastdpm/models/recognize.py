"""Recognition of published checkpoints by the names and shapes of their tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.data.tensors import sha256
from fastdpm.models.config import ModelConfig
from fastdpm.models.formats import table
from fastdpm.models.formats.betas import describe_schedule
from fastdpm.models.formats.checkpoint import read_checkpoint
from fastdpm.models.formats.diffusers_folder import UNET_MARK, model_name
from fastdpm.models.formats.format import Format, Shapes
from fastdpm.models.formats.states import State, Weights, check_readable, choose_weights
from fastdpm.models.presets import Preset, presets, read_preset
from fastdpm.models.stated import overridden, stated_by
from fastdpm.networks.build import NETWORKS, check_fits
from fastdpm.networks.weights import check_same

# A file that has this share of a preset's tensors is compared with that preset in the message.
_SIMILAR = 0.8


class Recognized(NamedTuple):
    """The model in a checkpoint.

    Attributes:
        config: Its configuration.
        network: Its network, on PyTorch's meta device.
        state: Weights that fit the network, memory-mapped if possible.
        notes: Notes for the user: which weights are used, and what was assumed.
    """

    config: ModelConfig
    network: nn.Module
    state: State
    notes: tuple[str, ...]


def recognize(path: Path, preset: Preset | None = None, layout: str | None = None) -> Recognized:
    """Recognize the model in a published checkpoint.

    What the file itself states (the ``params`` of LMNT's files, a buffer ``betas`` beside the
    network) replaces what the preset says.

    Args:
        path: The checkpoint.
        preset: The preset that describes it; if None, the one that fits every shape.
        layout: Format, a key of :data:`fastdpm.models.formats.table.FORMATS`; recognized if None.

    Raises:
        InvalidArgumentError: If no preset fits, or several presets with different settings fit.
        ModelError: If the file is damaged, would execute code when read, or does not fit.
    """
    if layout is not None:
        check_one_of("`layout`", layout, table.FORMATS)
    content = read_checkpoint(path)
    form, weights, notes = _recognized(path, content, layout)
    stated = stated_by(path, form, content, weights)
    if preset is None:
        config, network, more = _matching_preset(path, form, weights.tensors, stated)
        notes += more
        description = f"a network of {form.title}"
    else:
        config, network = _completed(path, preset, form, _shapes(weights.tensors))
        description = f"preset {preset.name}"
        if stated:
            config, network, more = overridden(path, config, stated)
            notes += more
    check_same(path, network.state_dict(), weights.tensors, description)
    config = replace(config, weights_sha256=sha256(path))
    return Recognized(config, network, weights.tensors, notes)


def _recognized(
    path: Path, content: Any, layout: str | None
) -> tuple[Format, Weights, tuple[str, ...]]:
    """The format of a file, and the weights to use."""
    for name, form in table.FORMATS.items():
        if layout in (None, name) and (found := choose_weights(path, content, form.mark)):
            return form, *found
    if choose_weights(path, content, UNET_MARK):
        raise InvalidArgumentError(
            f"{path} holds the weights of a diffusers network without its configuration: pass the"
            " folder that contains both"
        )
    check_readable(path, content)
    known = ", ".join(f"{name} ({form.title})" for name, form in table.FORMATS.items())
    expected = f"of format {layout}" if layout else f"of a known format, one of {known}"
    raise ModelError(
        f"{path} is not a checkpoint {expected}: it holds {_first_tensor(content)}; open other"
        " networks in Python with Model.wrap"
    )


def _first_tensor(content: Any) -> str:
    """One of the named tensors at the top of a file or one level below, in words."""
    levels = [content, *(content.values() if isinstance(content, Mapping) else ())]
    for level in levels:
        if isinstance(level, Mapping):
            names = [str(name) for name, value in level.items() if isinstance(value, torch.Tensor)]
            if names:
                return f"a tensor {min(names)}"
    return "no named tensors"


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
    path: Path, form: Format, state: State, stated: dict[str, Any]
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
        network = matching[0][1]
        if stated:
            config, network, more = overridden(path, config, stated)
            notes += more
        return config, network, (_assumptions(path, config, form, stated), *notes)
    for config, network in sorted(candidates, key=lambda pair: -_overlap(pair[1], shapes))[:1]:
        if _overlap(network, shapes) >= _SIMILAR:
            check_same(path, network.state_dict(), state, f"{config.name}, the closest preset")
    if "schedule" in stated and "sample_rate" in stated.get("data", {}):
        base = _unnamed(path, candidates[0][0], form, shapes)
        config, network, _ = overridden(path, base, stated)
        return config, network, (_assumptions(path, config, form, stated),)
    raise InvalidArgumentError(
        f"{path} is a network of {form.title} that no preset describes: its schedule and data"
        " cannot be inferred from the weights, so describe them in your own TOML file and pass it"
        " as the preset (see docs/open.md)"
    )


def _unnamed(path: Path, like: ModelConfig, form: Format, shapes: Shapes) -> ModelConfig:
    """A configuration like that of a preset, for a network of other sizes."""
    network = {"type": form.network, **form.infer(shapes, like.data.shape[-1])}
    return replace(
        like,
        name=model_name(path.stem),
        network=network,
        data=replace(like.data, description=""),
        license="unknown",
        attribution="",
        provenance={"checkpoint": path.name},
    )


def _assumptions(path: Path, config: ModelConfig, form: Format, stated: dict[str, Any]) -> str:
    """What a file was taken for, and the settings that its weights do not show."""
    facts = [] if "schedule" in stated else [describe_schedule(config.schedule)]
    if config.data.sample_rate and "sample_rate" not in stated.get("data", {}):
        facts.append(f"{config.data.sample_rate:,} Hz")
    facts += [f"prediction {config.prediction}", f"time_scale {config.time_scale:g}"]
    facts += [
        f"{name} {value}"
        for name, value in _hidden(config.network, form)
        if name not in stated.get("network", {})
    ]
    made = config.provenance
    name = made.get("fits", made.get("preset", f"a network of {form.title}"))
    return (
        f"{path.name} was taken for {name}; its weights do not show the rest, so this was assumed:"
        f" {', '.join(facts)} (if it differs, describe the model in a TOML file; see docs/open.md)"
    )


def _hidden(network: Mapping[str, Any], form: Format) -> Iterator[tuple[str, Any]]:
    """The arguments of a network that weights do not show, with their values."""
    defaults = inspect.signature(NETWORKS[form.network]).parameters
    for name in form.hidden:
        value = network.get(name, defaults[name].default)
        beaten = name == "num_heads" and network.get("num_head_channels")
        if value is not None and not beaten:
            yield name, value


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
