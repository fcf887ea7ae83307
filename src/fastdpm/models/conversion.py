"""Conversion of published checkpoints to model folders."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from fastdpm.core.arguments import checked
from fastdpm.core.recipes import read_recipes
from fastdpm.data.condition import read_mel
from fastdpm.data.run_folder import RunFolder, check_folder
from fastdpm.models.config import ModelConfig
from fastdpm.models.find import find_model
from fastdpm.models.folder import write_folder
from fastdpm.models.formats.diffusers_folder import model_name


@checked
def convert(
    source: str | Path,
    out: str | Path,
    *,
    preset: str | Path | None = None,
    layout: str | None = None,
    variant: str | None = None,
    name: str | None = None,
    half: bool = False,
    recipes: str | Path | None = None,
    recipe: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Convert a checkpoint, a diffusers folder or a model on a hub to a model folder.

    The weights are copied tensor by tensor, so they need not fit into memory.

    Args:
        source: A published checkpoint, or anything else that :func:`fastdpm.load_model` opens.
        out: The new folder. It has a configuration only when it is complete.
        preset: Name or TOML file of the preset that describes the checkpoint; recognized from the
            weights if None.
        layout: Format of the checkpoint, a key of :data:`fastdpm.models.formats.table.FORMATS`;
            recognized from the weights if None.
        variant: The variant of the weights of a diffusers folder, such as "fp16".
        name: Name of the model. If None, the name of the preset, or that of ``out`` if several
            presets fit.
        half: Store the weights as float16 instead of in their own type.
        recipes: A TOML file of recipes to add to the model; see
            :func:`fastdpm.core.read_recipes`.
        recipe: Name of the recipe to recommend: one of the model's, of the file, or the key of a
            method. The recommended recipe stays as it is if None.
        overwrite: Replace an earlier conversion, when the new one is complete.
        resume: Start over in the folder of a conversion that was interrupted.

    Returns:
        The configuration as written, and notes for the user.

    Raises:
        InvalidArgumentError: If ``out`` cannot be written, or no preset fits the checkpoint.
        ModelError: If the checkpoint is damaged, would execute code when read, or does not fit
            the preset, or a weight is not finite or out of the range of float16.
    """
    out = Path(out)
    check_folder(out, resume=resume, overwrite=overwrite)
    if preset is None:
        found = find_model(source, None, layout, variant=variant)
    else:
        found = find_model(preset, source, layout, variant=variant)
    if name is None:
        several = "fits" in found.config.provenance
        name = model_name(out.name) if several else found.config.name
    conversion = {
        "converted_from": Path(source).name,
        "checkpoint_sha256": found.config.weights_sha256,
        "converted_by": f"fastdpm {version('fastdpm')}",
    }
    more = {} if recipes is None else read_recipes(recipes, found.config.recipe)
    config = replace(
        found.config,
        name=name,
        recipe=found.config.find_recipe(recipe, more),
        recipes={**(found.config.recipes or {}), **more} or None,
        provenance=found.config.provenance | conversion,
    )
    read = [*found.files, *([] if recipes is None else [Path(recipes)])]
    identity = {"half": half, **config.to_dict()}
    run = RunFolder.open(out, "convert", identity, resume=resume, overwrite=overwrite, inputs=read)
    with run:
        _, weights = found.read()
        conditions = None if found.conditions is None else read_mel(found.conditions)
        dtype = torch.float16 if half else None
        with run.batch() as folder:
            written = write_folder(folder, config, weights, conditions, dtype)
    return written, found.notes
