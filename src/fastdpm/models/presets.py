"""Published models as settings: only the weights are missing.

A preset is a TOML file of ``fastdpm/assets/presets``, or one of your own: the network, schedule
and data of a checkpoint, how the paper compares methods on it, and where the files are published.
Source: Kong & Ping 2021, arXiv:2106.00132; their code, https://github.com/FengNiMa/FastDPM_pytorch.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.methods import find_named
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import build
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import ModelConfig

PRESETS = Path(__file__).parent.parent / "assets" / "presets"
METRICS = ("fid", "sound", "vocoder")


@dataclass(frozen=True)
class CompareSettings:
    """What a table of the paper compares.

    Attributes:
        steps: Values of S.
        methods: Keys of samplers' methods, as :func:`fastdpm.core.methods.find_named` takes them:
            "var-linear-k0" ..., "standard".
        n: Samples of each method at each S.
        metric: "fid" (Inception-v3), "sound" (a classifier of sounds), or "vocoder" (distances to
            the recordings).
    """

    steps: tuple[int, ...]
    methods: tuple[str, ...]
    n: int
    metric: str

    def __post_init__(self) -> None:
        check_one_of("metric", self.metric, METRICS)
        if not self.steps or min(self.steps) < 2 or self.n < 2:
            raise InvalidArgumentError(
                f"S and n must be at least 2, got S {list(self.steps)} and n {self.n}"
            )
        for key in self.methods:
            reason = ""
            try:
                if find_named(key) is not None:
                    continue
            except InvalidArgumentError as error:
                reason = f": {error}"
            raise InvalidArgumentError(
                f"a method is named like var-linear-k0 or standard, got {key!r}{reason}"
            )


@dataclass(frozen=True)
class PresetSource:
    """Where the files of a preset are published.

    Attributes:
        checkpoint: Name of the weights file.
        checkpoint_from: Address of the file or of the page that links it.
        attribution: Whom to name.
        reproduces: Which figures of the paper, in words.
        statistics: What samples are measured against: a file of statistics, or recordings.
        statistics_from: Address of that.
        license: Of the weights, an SPDX expression, or what is known.
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
    """Figures of the paper.

    Attributes:
        source: Where they were read.
        figures: By method, or "best" for the best method at each S; then by S.
    """

    source: str
    figures: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Preset:
    """A model without its weights, and how the paper samples it.

    Attributes:
        name: On the command line; that of its file.
        network: As :class:`fastdpm.models.config.ModelConfig` takes it, as do
        schedule: these,
        data: these,
        recipe: these,
        prediction: this
        time_scale: and this. In a preset of one's own, what a checkpoint's shapes tell may be
            left out of ``network``.
        compare: What the paper compares; None for models that it does not have.
        source: Where the files are.
        published: The paper's figures, as far as they are known.
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
                f"the schedule of preset {self.name} lacks num_train_steps (T), which cannot be"
                " guessed"
            )

    def model_config(self) -> ModelConfig:
        """The configuration of the model, its weights' checksum aside."""
        provenance: dict[str, Any] = {"preset": self.name}
        if self.source.checkpoint:
            provenance |= {
                "checkpoint": self.source.checkpoint,
                "checkpoint_from": self.source.checkpoint_from,
            }
        said = {"license": self.source.license, "attribution": self.source.attribution}
        return ModelConfig.of(self, provenance=provenance, **said)


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def is_preset(name: str) -> bool:
    """Whether :func:`read_preset` would take a name, or a file by its suffix."""
    return name.endswith(".toml") or name in presets()


def read_preset(name_or_file: str | Path) -> Preset:
    """Read a preset by its name, or from a TOML file of one's own.

    Raises:
        InvalidArgumentError: If there is none, or the file does not describe one.
    """
    name = str(name_or_file)
    path = PRESETS / f"{name}.toml"
    if name.endswith(".toml"):
        path = Path(name)
    else:
        check_one_of("preset", name, presets())
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgumentError(f"{path} is no preset: {error}") from None
    return build(Preset, values, f"preset {name}")
