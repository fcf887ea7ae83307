"""Turning a published checkpoint into a model folder."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from fastdpm.core.errors import InvalidArgumentError
from fastdpm.data.condition import read_mel
from fastdpm.data.files import new_folder
from fastdpm.models.config import MODEL_FILES, ModelConfig
from fastdpm.models.find import find_model
from fastdpm.models.folder import write_folder
from fastdpm.models.formats.diffusers_folder import model_name


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
        preset: The preset that describes a checkpoint, a name or a TOML file; recognized if None.
        layout: One of :data:`fastdpm.models.formats.table.FORMATS`; recognized if None.
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
    advice = "" if overwrite else ", or add `overwrite` if it is a model folder"
    with new_folder(out, replaced, advice) as folder:
        if overwrite and Path(source).resolve().is_relative_to(out.resolve()):
            raise InvalidArgumentError(f"{source} lies in {out}: choose another `out`")
        if preset is None:
            found = find_model(source, None, layout)
        else:
            found = find_model(preset, source, layout)
        _, weights = found.read()
        if name is None:
            name = model_name(out.name) if found.notes else found.config.name
        made = {
            "converted_from": Path(source).name,
            "checkpoint_sha256": found.config.weights_sha256,
            "converted_by": f"fastdpm {version('fastdpm')}",
        }
        config = replace(found.config, name=name, provenance=found.config.provenance | made)
        conditions = None if found.conditions is None else read_mel(found.conditions)
        dtype = torch.float16 if half else None
        written = write_folder(folder, config, weights, conditions, dtype)
    return written, found.notes
