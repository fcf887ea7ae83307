"""What a model folder's ``config.json`` says, checked while it is read; no network is needed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastdpm.core.errors import InvalidArgumentError, ModelError, check_one_of
from fastdpm.core.recipe import Recipe
from fastdpm.core.schedule import VarianceSchedule

FORMAT = "fastdpm-model"
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
CONDITIONS = "conditions.safetensors"
MODEL_FILES = (CONFIG, WEIGHTS, CARD, CONDITIONS)
DIFFUSERS_PIPELINE = "model_index.json"
BUILTIN = Path(__file__).parent.parent / "builtin"
PREDICTIONS = ("epsilon", "v", "x0")
MODALITIES = ("image", "audio", "series")
MEL_SCALES = ("log10", "natural", "decibel")
MEL_FILTERS = ("slaney", "htk")

_T = TypeVar("_T")


@dataclass(frozen=True)
class MelSpec:
    """How a mel spectrogram is computed.

    Attributes:
        sample_rate: Of the sound, in Hz.
        n_fft: Samples per analysis window (Hann).
        hop_length: Samples from one frame to the next; divides ``n_fft``.
        bands: Mel bands.
        f_min: Lowest frequency, in Hz.
        f_max: Highest frequency, in Hz, at most half the sample rate.
        scale: Of the values: "log10", "natural" or "decibel"; see
            :func:`fastdpm.models.mel.log_mel`.
        centred: Whether frame i lies around sample i * hop; around the middle of its hop if not.
        filters: "slaney", of unit area on Slaney's mel scale, or "htk", of unit height on HTK's.
        normalised: Whether magnitudes are divided by the root of the window's energy.
    """

    sample_rate: int
    n_fft: int
    hop_length: int
    bands: int
    f_min: float
    f_max: float
    scale: str = "log10"
    centred: bool = False
    filters: str = "slaney"
    normalised: bool = False

    def __post_init__(self) -> None:
        check_one_of("mel scale", self.scale, MEL_SCALES)
        check_one_of("mel filters", self.filters, MEL_FILTERS)
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise InvalidArgumentError(
                f"mel frequencies must satisfy 0 <= f_min < f_max <= {self.sample_rate / 2:g} Hz,"
                f" got {self.f_min:g} and {self.f_max:g}"
            )
        if self.bands < 1 or self.hop_length < 1 or self.n_fft % self.hop_length:
            raise InvalidArgumentError(
                f"mel needs at least one band and a hop that divides n_fft, got {self.bands}"
                f" bands, hop {self.hop_length}, n_fft {self.n_fft}"
            )


@dataclass(frozen=True)
class DataSpec:
    """The data a model was trained on.

    Attributes:
        modality: "image", "audio" or "series" (of other values over time).
        shape: Of one sample: (channels, height, width), (1, samples) or (channels, length). Values
            lie in [-1, 1].
        sample_rate: In Hz, for audio.
        peak: Recordings are scaled to this peak, in (0, 1]; left as they are if not given.
        mel: How the condition is computed, for a vocoder; its samples may have any length.
        classes: How many classes the network is told apart by their numbers, from 0; None if it
            takes none.
        description: Which data, in words.
    """

    modality: str
    shape: tuple[int, ...]
    sample_rate: int | None = None
    peak: float | None = None
    mel: MelSpec | None = None
    classes: int | None = None
    description: str = ""

    def __post_init__(self) -> None:
        check_one_of("modality", self.modality, MODALITIES)
        axes = 3 if self.modality == "image" else 2
        if len(self.shape) != axes or min(self.shape) < 1:
            raise InvalidArgumentError(
                f"the shape of {self.modality} data has {axes} sizes of at least 1,"
                f" got {list(self.shape)}"
            )
        if self.modality == "audio" and (self.shape[0] != 1 or not self.sample_rate):
            raise InvalidArgumentError("audio data is mono and needs its sample_rate in Hz")
        if self.classes is not None and (self.classes < 1 or self.mel is not None):
            raise InvalidArgumentError(
                f"classes must be at least 1, and stand beside no mel, got {self.classes}"
            )
        if self.mel is not None and self.mel.sample_rate != self.sample_rate:
            raise InvalidArgumentError(
                f"the data has {self.sample_rate} Hz, its mel {self.mel.sample_rate} Hz"
            )
        if self.peak is not None and not 0 < self.peak <= 1:
            raise InvalidArgumentError(f"peak must lie in (0, 1], got {self.peak}")


@dataclass(frozen=True)
class ModelConfig:
    """A model without its weights.

    Attributes:
        name: For people and file names.
        network: "type", a name in ``fastdpm.models.folder.NETWORKS``, and the arguments of that
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

    def computes(self) -> str:
        """Digest of what decides the model's samples beside its weights, 16 hex digits."""
        data = dataclasses.asdict(self.data) | {"description": ""}
        decides = (self.network, self.schedule, self.prediction, self.time_scale, data)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]

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


def find_folder(name_or_path: str | Path) -> Path:
    """The folder of a built-in name or a path.

    Raises:
        InvalidArgumentError: If there is neither.
    """
    return find_in(BUILTIN, "model", name_or_path)


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


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        ModelError: If it cannot be read or does not describe a model.
    """
    path = folder / CONFIG
    try:
        return ModelConfig.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise ModelError(f"{path}: {error}") from None


def build(kind: type[_T], data: Mapping[str, Any], where: str) -> _T:
    """Make a dataclass from plain values, naming what is missing, unknown or of the wrong type.

    Raises:
        InvalidArgumentError: If the values do not fit ``kind``.
    """
    if not isinstance(data, Mapping):
        raise InvalidArgumentError(f"{where} must be a table of values, got {data!r}")
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise InvalidArgumentError(
            f"{where} does not know {', '.join(unknown)}: it takes {', '.join(fields)}"
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InvalidArgumentError(f"{where} lacks {', '.join(missing)}")
    return kind(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()})


def build_versioned(kind: type[_T], data: Mapping[str, Any], what: str, name: str) -> _T:
    """Make a dataclass from what was written as format ``name``, version 1.

    Raises:
        InvalidArgumentError: If it is another format or version, or a value does not fit.
    """
    if not isinstance(data, Mapping) or data.get("format") != name or data.get("version") != 1:
        raise InvalidArgumentError(f'not a {what}: needs "format": "{name}", "version": 1')
    body = {k: v for k, v in data.items() if k not in ("format", "version")}
    return build(kind, body, "config")


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    origin = typing.get_origin(hint) or hint
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(typing.get_args(hint)[0], v, where) for v in value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or (origin is not bool and isinstance(value, bool)):
        raise InvalidArgumentError(f"{where} must be a {origin.__name__}, got {value!r}")
    return value


def plain(value: Any) -> Any:
    """Values for JSON from dataclasses and tuples; what is None is left out."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {name: plain(v) for name, v in fields.items() if v is not None}
    return list(value) if isinstance(value, tuple) else value
