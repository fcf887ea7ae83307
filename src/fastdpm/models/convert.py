"""Turning a published checkpoint into a model folder."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.condition import read_mel
from fastdpm.data.files import check_new_folder, new_folder
from fastdpm.models.card import model_card
from fastdpm.models.config import MODEL_FILES, ModelConfig, check_name
from fastdpm.models.find import find_model
from fastdpm.models.folder import check_fits, write_folder
from fastdpm.networks.weights import check_same


def convert(
    source: str | Path,
    out: Path,
    *,
    preset: str | Path | None = None,
    layout: str | None = None,
    name: str | None = None,
    half: bool = False,
    overwrite: bool = False,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Write a model folder from a checkpoint, a folder of diffusers or a name on a hub.

    The weights are streamed from file to file, in the type that they have.

    Args:
        source: A published checkpoint, or whatever else :func:`fastdpm.load_model` opens.
        out: The folder, which appears only once it is whole.
        preset: The preset that describes a checkpoint, a name or a TOML file; recognised if None.
        layout: One of :data:`fastdpm.models.formats.table.FORMATS`; recognised if None.
        name: Of the model; the preset's if None, or the folder's where several presets fit.
        half: Store the weights as 16-bit floating-point numbers.
        overwrite: Replace a model folder that is there.

    Returns:
        The configuration as written, and what a reader must know.

    Raises:
        InvalidArgumentError: If ``out`` cannot be written, or the checkpoint fits no preset.
        ModelError: If the file is damaged, would execute code or does not fit.
    """
    replaced = MODEL_FILES if overwrite else ()
    advice = "" if overwrite else ", or add --overwrite if it is a model folder"
    check_new_folder(out, replaced, advice)
    if overwrite and Path(source).resolve().is_relative_to(out.resolve()):
        raise InvalidArgumentError(f"{source} lies in {out}: choose another --out")
    if name is not None:
        check_name(name)
    found = find_model(source if preset is None else preset, source if preset else None, layout)
    weights = found.read()
    config = replace(found.config, name=name or _name(found.config, out, bool(found.notes)))
    try:
        network = check_fits(config)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"{source}: {error}") from None
    check_same(Path(source), network.state_dict(), weights, "its own configuration")
    made = {
        "converted_from": Path(source).name,
        "checkpoint_sha256": found.config.weights_sha256,
        "converted_by": f"fastdpm {version('fastdpm')}",
    }
    config = replace(config, provenance=config.provenance | made)
    with new_folder(out, replaced) as folder:
        dtype = torch.float16 if half else None
        card = model_card(config)
        conditions = None if found.conditions is None else read_mel(found.conditions)
        written = write_folder(folder, config, weights, card, conditions, dtype)
    return written, found.notes


def _name(config: ModelConfig, out: Path, ambiguous: bool) -> str:
    if not ambiguous:
        return config.name
    try:
        check_name(out.name)
    except InvalidArgumentError:
        return config.name
    return out.name
