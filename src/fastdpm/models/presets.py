"""Presets: descriptions of published models, without their weights.

A preset is a TOML file, from ``fastdpm/assets/presets`` or your own. It describes the network, the
schedule and the data of a checkpoint, how the paper compares methods on it, and where the files
are published.
Source: Kong & Ping 2021, arXiv:2106.00132; their code, https://github.com/FengNiMa/FastDPM_pytorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.limits import read_toml
from fastdpm.core.methods import find_named
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import build
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig

PRESETS = Path(__file__).parent.parent / "assets" / "presets"
METRICS = ("fid", "sound", "vocoder")


@dataclass(frozen=True)
class CompareSettings:
    """The settings of a comparison in the paper.

    Attributes:
        steps: Values of S, each at least 1.
        methods: Names of sampling methods, such as "var-linear-k0" or "standard"; see
            :func:`fastdpm.core.methods.find_named`.
        n: Number of samples per method and S, at least 2.
        metric: "fid" (Inception-v3), "sound" (a sound classifier) or "vocoder" (distances to the
            recordings).

    Raises:
        InvalidArgumentError: If a value is out of range or a name is unknown.
    """

    steps: tuple[int, ...]
    methods: tuple[str, ...]
    n: int
    metric: str

    def __post_init__(self) -> None:
        check_one_of("metric", self.metric, METRICS)
        if not self.steps or min(self.steps) < 1:
            raise InvalidArgumentError(
                f"`steps` must hold values of at least 1, got {list(self.steps)}"
            )
        if self.n < 2:
            raise InvalidArgumentError(f"`n` must be at least 2, got {self.n}")
        for key in self.methods:
            reason = ""
            try:
                if find_named(key) is not None:
                    continue
            except InvalidArgumentError as error:
                reason = f": {error}"
            raise InvalidArgumentError(
                f"the name of a method must be like var-linear-k0 or standard, got {key!r}{reason}"
            )


@dataclass(frozen=True)
class PresetSource:
    """Where the files of a preset are published.

    Attributes:
        checkpoint: Name of the weights file.
        checkpoint_from: URL of the file, or of a page that links to it.
        attribution: Whom to credit.
        reproduces: Which results of the paper it reproduces, in words.
        statistics: The reference of the metric: a statistics file, or recordings.
        statistics_from: URL of the reference.
        license: License of the weights: an SPDX expression, or a description.
    """

    checkpoint: str = ""
    checkpoint_from: str = ""
    attribution: str = ""
    reproduces: str = ""
    statistics: str = ""
    statistics_from: str = ""
    license: str = "unknown"


@dataclass(frozen=True)
class Published:
    """Results in the paper.

    Attributes:
        source: Where in the paper they are.
        figures: Values of the metric, by method and then by S. The key "best" stands for the best
            method at each S.
    """

    source: str
    figures: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Preset:
    """A model without its weights, and how the paper samples it.

    ``network``, ``schedule``, ``data``, ``recipe``, ``prediction`` and ``time_scale`` are those of
    :class:`fastdpm.models.config.ModelConfig`.

    Attributes:
        name: Name of the preset.
        network: Arguments that can be inferred from the shapes of a checkpoint may be omitted.
        schedule: Variance schedule.
        data: The data of the model.
        recipe: Recommended sampling recipe.
        prediction: What the network predicts.
        time_scale: Factor of the network's step.
        compare: The comparison in the paper, or None.
        source: Where the files are published.
        published: Results in the paper, or None.

    Raises:
        InvalidArgumentError: If the schedule has no number of training steps.
    """

    name: str
    network: dict[str, Any]
    schedule: dict[str, Any]
    data: DataSpec
    recipe: Recipe = field(default_factory=Recipe)
    prediction: str = "epsilon"
    time_scale: float = 1.0
    compare: CompareSettings | None = None
    source: PresetSource = PresetSource()
    published: Published | None = None

    def __post_init__(self) -> None:
        if not self.schedule.keys() & {"num_train_steps", "betas"}:
            raise InvalidArgumentError(
                f"the schedule of preset {self.name} has no num_train_steps: add T, the number of"
                " training steps"
            )

    def model_config(self) -> ModelConfig:
        """The configuration of the model, without the checksum of its weights."""
        provenance: dict[str, Any] = {"preset": self.name}
        if self.source.checkpoint:
            provenance |= {
                "checkpoint": self.source.checkpoint,
                "checkpoint_from": self.source.checkpoint_from,
            }
        credit = {"license": self.source.license, "attribution": self.source.attribution}
        return ModelConfig.of(self, provenance=provenance, **credit)


def presets() -> list[str]:
    """Names of the presets in the package."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def is_preset(name: str) -> bool:
    """Whether a name is that of a preset or of a TOML file."""
    return name.endswith(".toml") or name in presets()


def read_preset(name_or_file: str | Path) -> Preset:
    """Read a preset by its name, or from your own TOML file.

    A TOML file can name a built-in preset as ``base`` and change some of its settings: the keys of
    ``network`` and ``data`` one by one, any other key as a whole.

    Raises:
        InvalidArgumentError: If there is no such preset, or the file is not a valid preset.
    """
    name = str(name_or_file)
    path = PRESETS / f"{name}.toml"
    if name.endswith(".toml"):
        path = Path(name)
    else:
        check_one_of("preset", name, presets())
    try:
        values = read_toml(path)
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"{path} cannot be read as a preset: {error}") from None
    if "base" in values:
        values = _based(values, path)
    return build(Preset, values, f"preset {name}")


def _based(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values of a built-in preset with those of a file in their place."""
    check_one_of("base", values["base"], presets())
    base = read_toml(PRESETS / f"{values['base']}.toml")
    own = {key: value for key, value in values.items() if key != "base"}
    for key in ("network", "data"):
        if isinstance(own.get(key), dict):
            own[key] = base[key] | own[key]
    return base | {"name": path.stem} | own
