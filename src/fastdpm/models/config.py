"""Model folders without their networks: their files, places and kinds, and their ``config.json``.

Configurations are checked while they are read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
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
OTHER_NETWORKS = ("vae", "vqvae", "text_encoder")  # of pipelines that are more than a U-Net
BUILTIN = Path(__file__).parent.parent / "assets" / "models"
PREDICTIONS = ("epsilon", "v_prediction", "sample")
OLD_PREDICTIONS = MappingProxyType({"v": "v_prediction", "x0": "sample"})
Config = TypeVar("Config", bound="FolderConfig")


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """What every folder says of its network, the weights aside.

    Attributes:
        name: For people and file names.
        network: "type" and the arguments of that network.
        data: What it was trained on.
        license: SPDX expression, or what is known.
        attribution: Whom to name.
        provenance: How the weights came to be (command, steps, time, loss ...).
        weights_sha256: Checksum of ``model.safetensors``; empty before it is written.
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
                "a model's name is made of letters, digits, '.', '_' and '-', and names files,"
                f" got {self.name!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unset values are left out."""
        body: dict[str, Any] = plain(self)
        return {"format": self.FORMAT, "version": 1} | body

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read :meth:`to_dict` back.

        Raises:
            InvalidArgumentError: If it describes something else, or a value does not fit.
        """
        return build_versioned(cls, data, cls.MEANS, cls.FORMAT)

    @classmethod
    def of(cls, source: DataclassInstance, **more: Any) -> Self:
        """The ``SHARED`` fields that a preset or a training configuration has, and ``more``."""
        said = {f.name for f in fields(source)}
        return cls(**{n: getattr(source, n) for n in cls.SHARED if n in said}, **more)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(FolderConfig):
    """A model without its weights.

    Its network's type is a name in ``fastdpm.networks.build.NETWORKS``, or "custom" for one that
    only exists in memory.

    Attributes:
        schedule: As :meth:`fastdpm.VarianceSchedule.from_config` takes it.
        recipe: The recommended way to sample.
        prediction: What the network returns, in diffusers' words: "epsilon", "v_prediction" or
            "sample" (clean data). "v" and "x0" are read as the latter two.
        time_scale: The network is given the zero-based step times this.
    """

    FORMAT = "fastdpm-model"
    MEANS = "model"
    SHARED = (*FolderConfig.SHARED, "schedule", "recipe", "prediction", "time_scale")
    schedule: dict[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    prediction: str = "epsilon"
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        prediction = OLD_PREDICTIONS.get(self.prediction, self.prediction)
        object.__setattr__(self, "prediction", prediction)
        check_one_of("prediction", prediction, PREDICTIONS)
        if not 0 < self.time_scale < math.inf:
            raise InvalidArgumentError(f"time_scale must be above 0, got {self.time_scale}")
        VarianceSchedule.from_config(self.schedule)


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig(FolderConfig):
    """A feature network without its weights, an "image-classifier" or a "sound-classifier".

    Distances are named after it.

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
                f"a classifier needs at least two classes of different names, got {self.classes}"
            )


def builtin_models() -> list[str]:
    """Names of the models that come with the package."""
    return names_in(BUILTIN)


def names_in(base: Path) -> list[str]:
    """Names of the folders below ``base`` that hold a configuration."""
    return sorted(path.parent.name for path in base.glob(f"*/{CONFIG}"))


def find_in(base: Path, what: str, name_or_path: str | Path) -> Path:
    """The folder of a name below ``base``, or of a path; ``what`` is meant, for the error.

    Raises:
        InvalidArgumentError: If there is neither.
    """
    if str(name_or_path) in names_in(base):
        return base / str(name_or_path)
    path = Path(name_or_path)
    if (path / CONFIG).is_file():
        return path
    known = ", ".join(names_in(base)) or "none"
    raise InvalidArgumentError(
        f"no {what} {str(name_or_path)!r}: give a built-in name ({known}) or a folder that holds"
        f" {CONFIG}"
    )


def is_diffusers_folder(folder: Path) -> bool:
    """Whether diffusers wrote a folder: a pipeline, or a network alone."""
    if (folder / DIFFUSERS_PIPELINE).is_file():
        return True
    try:
        return "_class_name" in json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def read_config(folder: Path, kind: type[Config]) -> Config:
    """Read ``config.json``.

    Raises:
        ModelError: If it cannot be read or does not describe what ``kind`` does.
    """
    path = folder / CONFIG
    try:
        return kind.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path}: {error}") from None
