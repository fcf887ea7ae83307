"""What a model folder's ``config.json`` says, checked while it is read; no network is needed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule
from fastdpm.core.structure import build_versioned, plain
from fastdpm.data.spec import DataSpec

if TYPE_CHECKING:
    from fastdpm.models.features import FeaturesConfig

FORMAT = "fastdpm-model"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONDITIONS = "conditions.safetensors"
MODEL_FILES = (CONFIG, WEIGHTS, CARD, CONDITIONS)
DIFFUSERS_PIPELINE = "model_index.json"
OTHER_NETWORKS = ("vae", "vqvae", "text_encoder")  # of pipelines that are more than a U-Net
BUILTIN = Path(__file__).parent.parent / "assets" / "models"
PREDICTIONS = ("epsilon", "v", "x0")
Config = TypeVar("Config", "ModelConfig", "FeaturesConfig")


@dataclass(frozen=True)
class ModelConfig:
    """A model without its weights.

    Attributes:
        name: For people and file names.
        network: "type", a name in ``fastdpm.networks.build.NETWORKS``, and the arguments of that
            network; "custom" for one that only exists in memory.
        schedule: As :meth:`fastdpm.VarianceSchedule.from_config` takes it.
        data: What it was trained on.
        recipe: The recommended way to sample.
        prediction: What the network returns: "epsilon", "v" or "x0".
        time_scale: The network is given the zero-based step times this.
        licence: SPDX expression, or what is known.
        attribution: Whom to name.
        provenance: How the weights came to be (command, steps, time, loss ...).
        weights_sha256: Checksum of ``model.safetensors``; empty before it is written.
    """

    name: str
    network: dict[str, Any]
    schedule: dict[str, Any]
    data: DataSpec
    recipe: Recipe = field(default_factory=Recipe)
    prediction: str = "epsilon"
    time_scale: float = 1.0
    licence: str = "unknown"
    attribution: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        check_one_of("prediction", self.prediction, PREDICTIONS)
        if not 0 < self.time_scale < math.inf:
            raise InvalidArgumentError(f"time_scale must be above 0, got {self.time_scale}")
        VarianceSchedule.from_config(self.schedule)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; unset values are left out."""
        body: dict[str, Any] = plain(self)
        return {"format": FORMAT, "version": 1} | body

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelConfig:
        """Read :meth:`to_dict` back.

        Raises:
            InvalidArgumentError: If it is no model's configuration, or a value does not fit.
        """
        return build_versioned(cls, data, "model", FORMAT)


def check_name(name: str) -> None:
    """Raise InvalidArgumentError unless a model may have this name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InvalidArgumentError(
            "a model's name is made of letters, digits, '.', '_' and '-', and names files,"
            f" got {name!r}"
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
