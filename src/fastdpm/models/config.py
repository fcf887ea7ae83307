"""Configurations of model folders: ``config.json``, file names, and where built-in models are.

Configurations are validated when they are built. PyTorch is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from fastdpm.core.errors import DataError, InvalidArgumentError, ModelError, check_one_of
from fastdpm.core.limits import read_json
from fastdpm.core.methods import check_name, find_gits, find_named
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.structure import build_versioned, plain
from fastdpm.data.spec import DataSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONDITIONS = "conditions.safetensors"
MODEL_FILES = (CONFIG, WEIGHTS, CARD, CONDITIONS)
DIFFUSERS_PIPELINE = "model_index.json"
OTHER_NETWORKS = ("vae", "vqvae", "text_encoder")  # a pipeline with these is not a U-Net alone
BUILTIN = Path(__file__).parent.parent / "assets" / "models"
PREDICTIONS = ("epsilon", "v_prediction", "sample")
OLD_PREDICTIONS = MappingProxyType({"v": "v_prediction", "x0": "sample"})
Config = TypeVar("Config", bound="FolderConfig")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """Base class of the configurations of model folders and feature networks.

    Attributes:
        name: Name of the network, of letters, digits, ".", "_" and "-".
        network: "type" and the arguments of that network class.
        data: The data it was trained on.
        license: License of the weights: an SPDX expression, or a description.
        attribution: Whom to credit.
        provenance: How the weights were made (command, steps, time, loss ...).
        weights_sha256: SHA-256 of ``model.safetensors``; empty before it is written.

    Raises:
        InvalidArgumentError: If a value is invalid.
    """

    FORMAT: ClassVar[str]
    MEANS: ClassVar[str]
    SHARED: ClassVar[tuple[str, ...]] = ("name", "network", "data", "license", "attribution")
    name: str
    network: dict[str, Any]
    data: DataSpec
    license: str = "unknown"
    attribution: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InvalidArgumentError(
                "`name` must start with a letter or digit and hold only letters, digits, '.', '_'"
                f" and '-', got {self.name!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON values; values that are None are omitted."""
        body: dict[str, Any] = plain(self)
        return {"format": self.FORMAT, "version": 1} | body

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a configuration from the values of :meth:`to_dict`.

        Raises:
            InvalidArgumentError: If the format is another one, or a value is invalid.
        """
        return build_versioned(cls, data, cls.MEANS, cls.FORMAT)

    @classmethod
    def of(cls, source: DataclassInstance, **more: Any) -> Self:
        """Build a configuration from the fields that ``source`` shares with it, and ``more``.

        ``source`` is a preset or a training configuration.
        """
        shared = {f.name for f in fields(source)}.intersection(cls.SHARED)
        return cls(**{name: getattr(source, name) for name in shared}, **more)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(FolderConfig):
    """Configuration of a diffusion model.

    The network's "type" is a key of ``fastdpm.networks.build.NETWORKS``, or "custom" for a network
    that only exists in memory.

    Attributes:
        schedule: Variance schedule; see :meth:`fastdpm.VarianceSchedule.from_config`.
        recipe: Recommended sampling recipe.
        recipes: Further recipes by name.
        prediction: What the network predicts: "epsilon", "v_prediction" or "sample" (clean data),
            as in diffusers. The former names "v" and "x0" are accepted for the last two.
        time_scale: The network is evaluated at the zero-based step times this factor, above 0.
    """

    FORMAT = "fastdpm-model"
    MEANS = "model"
    SHARED = (*FolderConfig.SHARED, "schedule", "recipe", "prediction", "time_scale")
    schedule: dict[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    recipes: dict[str, Recipe] | None = None
    prediction: str = "epsilon"
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        prediction = OLD_PREDICTIONS.get(self.prediction, self.prediction)
        object.__setattr__(self, "prediction", prediction)
        check_one_of("prediction", prediction, PREDICTIONS)
        if not 0 < self.time_scale < math.inf:
            raise InvalidArgumentError(
                f"`time_scale` must be above 0 and finite, got {self.time_scale}"
            )
        VarianceSchedule.from_config(self.schedule)
        for name in self.recipes or {}:
            check_name(name)

    def find_recipe(
        self, name: str | Recipe | None = None, more: Mapping[str, Recipe] | None = None
    ) -> Recipe:
        """Look up a recipe by name; return one that is no name as it is.

        Args:
            name: The name of one of ``more`` or of ``recipes``, or the key of a method, such as
                "unipc-3-step-trailing", which changes the recommended recipe; None is the
                recommended recipe itself.
            more: Recipes that are not part of the model.

        Raises:
            InvalidArgumentError: If there is no such recipe.
        """
        if not isinstance(name, str):
            return self.recipe if name is None else name
        own = {**(self.recipes or {}), **(more or {})}
        if name in own:
            try:
                own[name].compile(VarianceSchedule.from_config(self.schedule))
            except InvalidArgumentError as error:
                raise InvalidArgumentError(f"recipe {name!r}: {error}") from None
            return own[name]
        method = find_named(name)
        if method is None and find_gits(name) is not None:
            raise InvalidArgumentError(
                f"{name} needs trajectories of the model: `fastdpm recommend` and `compare` draw"
                " them, and write the levels for `at_levels`"
            )
        if method is None:
            known = f"one of {', '.join(own)}, or " if own else ""
            raise InvalidArgumentError(
                f"no recipe {name!r}: pass {known}the key of a method, such as var-linear-k0 or"
                " unipc-3-step-trailing; for recipes of a file, set `recipes` too"
            )
        return self.with_method(method.recipe)

    def with_method(self, recipe: Recipe) -> Recipe:
        """The sampler and levels of a recipe, with the S, clipping and guidance of our own."""
        mine = self.recipe
        count = None if recipe.takes_all_steps else mine.num_steps
        return recipe.replace(num_steps=count, clip=mine.clip, guidance_scale=mine.guidance)

    @property
    def null_class(self) -> int | None:
        """The label that stands for "no class": one more than the last class; None without it."""
        return self.data.classes if self.network.get("null_class") is True else None


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(FolderConfig):
    """Configuration of a feature network: an "image-classifier" or a "sound-classifier".

    Distances computed with it carry its name.

    Attributes:
        classes: Names of the classes, in the order of the logits.
    """

    FORMAT = "fastdpm-features"
    MEANS = "feature network"
    SHARED = (*FolderConfig.SHARED, "classes")
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.classes)) < max(2, len(self.classes)):
            raise InvalidArgumentError(
                f"`classes` must hold at least two different names, got {self.classes}"
            )


def builtin_models() -> list[str]:
    """Names of the models that come with the package."""
    return names_in(BUILTIN)


def names_in(base: Path) -> list[str]:
    """Names of the folders in ``base`` that hold a configuration."""
    return sorted(path.parent.name for path in base.glob(f"*/{CONFIG}"))


def find_in(base: Path, what: str, name_or_path: str | Path) -> Path:
    """The folder of a built-in name, or of a path.

    Args:
        base: Folder of the built-in networks.
        what: What is searched for, such as "model", for the message.
        name_or_path: Name of a folder in ``base``, or path of a folder with a configuration.

    Raises:
        InvalidArgumentError: If there is no such name or folder.
    """
    if str(name_or_path) in names_in(base):
        return base / str(name_or_path)
    path = Path(name_or_path)
    if (path / CONFIG).is_file():
        return path
    known = ", ".join(names_in(base)) or "none"
    raise InvalidArgumentError(
        f"no {what} {str(name_or_path)!r}: pass a built-in name ({known}) or a folder that"
        f" contains {CONFIG}"
    )


def is_diffusers_folder(folder: Path) -> bool:
    """Whether a folder holds a pipeline or a network of diffusers, or checkpoints of one."""
    if (folder / DIFFUSERS_PIPELINE).is_file() or training_checkpoints(folder):
        return True
    if (folder / "unet" / CONFIG).is_file() or (folder / "unet_ema" / CONFIG).is_file():
        return True
    path = folder / CONFIG
    try:
        return path.is_file() and "_class_name" in read_json(path)
    except (OSError, ValueError, TypeError, DataError):
        return False


def training_checkpoints(folder: Path) -> list[Path]:
    """The folders ``checkpoint-N`` that a training script of diffusers wrote, the latest last.

    Empty if ``folder`` holds a model itself.
    """
    parts = ("", "unet", "unet_ema")
    if any((folder / part / CONFIG).is_file() for part in parts):
        return []
    if (folder / DIFFUSERS_PIPELINE).is_file():
        return []
    found = [
        (int(number), path)
        for path in folder.glob("checkpoint-*")
        if (number := path.name.removeprefix("checkpoint-")).isdecimal()
        and any((path / part / CONFIG).is_file() for part in parts[1:])
    ]
    return [path for _, path in sorted(found)]


def read_config(folder: Path, kind: type[Config]) -> Config:
    """Read the ``config.json`` of a folder.

    Args:
        folder: A model folder, or the folder of a feature network.
        kind: The class of the configuration.

    Raises:
        ModelError: If the file cannot be read, or is not a valid configuration of ``kind``.
    """
    path = folder / CONFIG
    try:
        return kind.from_dict(read_json(path))
    except (OSError, ValueError, DataError) as error:
        raise ModelError(f"{path}: {error}") from None
