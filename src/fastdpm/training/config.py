"""Training configurations: a TOML file that says which network learns what, and how."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import build
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import FeaturesConfig, FolderConfig, ModelConfig

CONFIGS = Path(__file__).parent / "configs"
PRECISIONS = ("auto", "float32", "bf16")
_LEAST = {
    "steps": 1,
    "batch_size": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "shift": 0,
    "gain_db": 0,
    "noise": 0,
}
_SHARES = ("ema_decay", "label_smoothing")
_AUGMENTS = {"horizontal_flip": "image", "shift": "image", "gain_db": "audio", "noise": "audio"}


@dataclass(frozen=True)
class TrainOptions:
    """How a network is trained.

    Attributes:
        steps: Optimizer steps.
        batch_size: Samples a step.
        learning_rate: After the warm-up.
        warmup_steps: Steps over which the learning rate rises from 0; after them it falls to 0
            along a cosine.
        ema_decay: Of the averaged weights that are kept, below 1.
        gradient_clip: Largest norm of the gradient.
        precision: "float32", "bf16", or "auto" (bf16 on a GPU).
        horizontal_flip: Mirror half of the images.
        seed: Of initial weights, batches and noise.
        checkpoint_minutes: Between checkpoints.
        sample_minutes: Between sample pictures.
    """

    steps: int
    batch_size: int
    learning_rate: float = 2e-4
    warmup_steps: int = 500
    ema_decay: float = 0.9995
    gradient_clip: float = 1.0
    precision: str = "auto"
    horizontal_flip: bool = False
    seed: int = 0
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _LEAST and not value >= _LEAST[name]:
                raise InvalidArgumentError(f"{name} must be at least {_LEAST[name]}, got {value}")
            if name in _SHARES and not 0 <= value < 1:
                raise InvalidArgumentError(f"{name} must lie in [0, 1), got {value}")
        if not (self.learning_rate > 0 and self.gradient_clip > 0):
            raise InvalidArgumentError("learning_rate and gradient_clip must be above 0")
        if not 0 <= self.seed < 2**32:
            raise InvalidArgumentError(f"seed must lie in [0, 2^32), got {self.seed}")
        check_one_of("precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class ClassifierOptions(TrainOptions):
    """How a classifier is trained: by SGD with Nesterov momentum 0.9.

    Attributes:
        weight_decay: L2 penalty of all weights.
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
        shift: Images are moved by up to this many pixels, their edges repeated.
        gain_db: Sounds are made softer by up to this.
        noise: White noise of up to this standard deviation is added to sounds.
    """

    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 0
    gain_db: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _RunConfig:
    """What every configuration says.

    ``MAKES`` is the configuration of the folder that comes out, ``DECIDES`` what of it must not
    change between a run and its continuation.
    """

    MAKES: ClassVar[type[FolderConfig]]
    DECIDES: ClassVar[tuple[str, ...]]
    name: str
    network: dict[str, Any]
    data: DataSpec
    training: TrainOptions
    license: str = "unknown"
    attribution: str = ""

    def __post_init__(self) -> None:
        modality = self.data.modality
        check_one_of("modality of training data", modality, ("image", "audio"))
        for name, suited in _AUGMENTS.items():
            if getattr(self.training, name, 0) and modality != suited:
                raise InvalidArgumentError(
                    f"{name} is for {suited} data, and this is {modality}: drop it"
                )
        self.MAKES.of(self)  # so that what does not fit is told now and not after the training

    @property
    def decisive(self) -> dict[str, Any]:
        """The tables that must not change between a run and its continuation, by name."""
        made = self.MAKES.of(self).to_dict()
        made["data"].pop("grey_levels", None)  # has no effect here
        return {name: made[name] for name in self.DECIDES} | {"training": asdict(self.training)}

    @property
    def identity(self) -> str:
        """All that must not change between a run and its continuation, as text."""
        tables = self.decisive
        return repr((*(tables[name] for name in self.DECIDES), self.training))

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """What differs from the :attr:`decisive` tables of an earlier run, a phrase for each."""
        found = []
        for table, value in self.decisive.items():
            other = saved.get(table)
            now, before = (
                v if isinstance(v, dict) else {"": v} if v else {} for v in (value, other)
            )
            for key in sorted(now.keys() | before.keys()):
                if now.get(key) != before.get(key):
                    name = f"{table}.{key}".rstrip(".")
                    found.append(f"{name} was {before.get(key)} and is {now.get(key)}")
        return found

    def replace(self, **options: int | None) -> Self:
        """The configuration with every training option that is not None put in its place."""
        given: Any = {name: value for name, value in options.items() if value is not None}
        return replace(self, training=replace(self.training, **given))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_RunConfig):
    """A model to train; the tables are those of :class:`fastdpm.models.config.ModelConfig`."""

    MAKES = ModelConfig
    DECIDES = ("network", "schedule", "data")
    schedule: dict[str, Any]
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(_RunConfig):
    """A feature network to train; see :class:`fastdpm.models.config.FeaturesConfig`.

    It learns to tell the ``classes``, the names of labels 0, 1, ..., apart.
    """

    MAKES = FeaturesConfig
    DECIDES = ("network", "classes", "data")
    classes: tuple[str, ...]
    training: ClassifierOptions


def read_train_config(name_or_path: str | Path) -> TrainConfig | ClassifierConfig:
    """Read a TOML file, or a configuration that comes with the package by its name.

    Raises:
        InvalidArgumentError: If it does not exist or a value does not fit.
    """
    path = CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise InvalidArgumentError(
            f"no training configuration {str(name_or_path)!r}: give a TOML file, or one of {known}"
        )
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgumentError(f"{path} is not TOML: {error}") from None
    if "classes" in data:
        return build(ClassifierConfig, data, str(path))
    return build(TrainConfig, data, str(path))
