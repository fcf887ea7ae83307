"""The published models that the paper samples, as settings: only the weights are missing.

A preset is a TOML file of ``fastdpm/presets``: the network, schedule and data of a published
checkpoint, how the paper compares methods on it, and where the files are published.
Source: Kong & Ping 2021, arXiv:2106.00132; their code, https://github.com/FengNiMa/FastDPM_pytorch.
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.recipe import Recipe
from fastdpm.models.checkpoint import read_checkpoint
from fastdpm.models.config import DataSpec, ModelConfig, build
from fastdpm.models.folder import check_fits, sha256
from fastdpm.models.model import Model, find_device

PRESETS = Path(__file__).parent.parent / "presets"
METRICS = ("fid", "sound", "vocoder")
_METHOD = re.compile(r"(var|step)-(linear|quadratic)-k(0(\.\d+)?|1)|standard(-large|-learned)?")


@dataclass(frozen=True)
class CompareSettings:
    """What a table of the paper compares.

    Attributes:
        steps: Values of S.
        methods: As ``fastdpm compare --methods`` takes them: "var-linear-k0" ..., "standard".
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
        for method in self.methods:
            if not _METHOD.fullmatch(method):
                raise InvalidArgumentError(
                    f"a method is named like var-linear-k0 or standard, got {method!r}"
                )


@dataclass(frozen=True)
class PresetSource:
    """Where the files of a preset are published.

    Attributes:
        reproduces: Which figures of the paper, in words.
        checkpoint: Name of the weights file.
        checkpoint_from: Address of the file or of the page that links it.
        statistics: What samples are measured against: a file of statistics, or recordings.
        statistics_from: Address of that.
        attribution: Whom to name.
    """

    reproduces: str
    checkpoint: str
    checkpoint_from: str
    statistics: str
    statistics_from: str
    attribution: str


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
    """A published model without its weights, and how the paper samples it.

    Attributes:
        name: On the command line; that of its file.
        network: As :class:`fastdpm.models.config.ModelConfig` takes it, as do
        schedule: these,
        data: these,
        recipe: and these.
        compare: What the paper compares.
        source: Where the files are.
        published: The paper's figures, as far as they are known.
        natural_mel: The network was trained on natural logarithms of mel magnitudes.
    """

    name: str
    network: dict[str, Any]
    schedule: dict[str, Any]
    data: DataSpec
    compare: CompareSettings
    source: PresetSource
    recipe: Recipe = field(default_factory=Recipe)
    published: Published | None = None
    natural_mel: bool = False

    def model_config(self) -> ModelConfig:
        """The configuration of the model, its weights' checksum aside."""
        return ModelConfig(
            name=self.name,
            network=self.network,
            schedule=self.schedule,
            data=self.data,
            recipe=self.recipe,
            attribution=self.source.attribution,
            provenance={
                "preset": self.name,
                "checkpoint": self.source.checkpoint,
                "checkpoint_from": self.source.checkpoint_from,
            },
        )


def presets() -> list[str]:
    """Names of all presets."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def read_preset(name: str) -> Preset:
    """Read a preset by its name.

    Raises:
        InvalidArgumentError: If there is none of that name.
    """
    check_one_of("preset", name, presets())
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    return build(Preset, tomllib.loads(text), f"preset {name}")


def load_preset(name: str, checkpoint: str | Path, device: str = "cpu") -> Model:
    """Load a published checkpoint into the network of a preset.

    Args:
        name: One of :func:`presets`.
        checkpoint: The published file, as :func:`fastdpm.models.checkpoint.read_checkpoint`
            takes it; its checksum becomes the config's ``weights_sha256``.
        device: As :func:`fastdpm.load_model` takes it.

    Raises:
        InvalidArgumentError: If there is no such preset or device name.
        ModelError: If the file is damaged, would execute code or does not fit.
        FastDPMError: If the device is absent.
    """
    preset = read_preset(name)
    config = preset.model_config()
    where, path = find_device(device), Path(checkpoint)
    network = check_fits(config)
    network.load_state_dict(read_checkpoint(path, network.state_dict()), assign=True)
    if preset.natural_mel:
        network.register_forward_pre_hook(_to_natural_mel)
    config = dataclasses.replace(config, weights_sha256=sha256(path))
    return Model(config, network.eval().requires_grad_(False).to(where))


def _to_natural_mel(_network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Bring a condition from the scale of ``log_mel``, (log10 m + 5) / 5, to log m.

    Both have the floor 1e-5, so that nothing is lost.
    """
    x, t, mel = inputs
    return x, t, (mel - 1) * (5 * math.log(10))
