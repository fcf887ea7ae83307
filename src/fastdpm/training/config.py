"""Training configurations: TOML files with a network, its data and the training options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.core.limits import read_toml
from fastdpm.core.recipe import Recipe
from fastdpm.core.structure import build, changed
from fastdpm.core.text import shortened
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import FeaturesConfig, FolderConfig, ModelConfig
from fastdpm.training.optimizers import OPTIMIZERS

CONFIGS = Path(__file__).parent / "configs"
PRECISIONS = ("auto", "float32", "bf16")
DECAYS = ("cosine", "linear")
LOSS_WEIGHTS = ("simple", "min-snr")
_MINIMA = {
    "steps": 1,
    "batch_size": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
    "shift": 0,
    "gain_db": 0,
    "noise": 0,
}
_FRACTIONS = ("ema_decay", "label_smoothing", "label_dropout")
_SHARES = ("decay_share", "uniform_share")
_ABOVE_ZERO = ("learning_rate", "gradient_clip", "muon_learning_rate", "min_snr", "log_sigma_std")
_AUGMENTATIONS = {
    "horizontal_flip": "image",
    "shift": "image",
    "gain_db": "audio",
    "noise": "audio",
}


@dataclass(frozen=True)
class TrainOptions:
    """Training options.

    Attributes:
        steps: Number of optimizer steps, at least 1.
        batch_size: Samples per step, at least 1.
        learning_rate: Largest learning rate, reached after the warm-up; above 0.
        warmup_steps: Steps of linear warm-up from 0.
        decay: How the learning rate falls to 0 after the warm-up: "cosine", or "linear" over the
            last ``decay_share`` of the steps, before which it is constant.
        decay_share: In [0, 1]; 0 keeps the rate constant.
        ema_decay: Decay of the exponential moving average of the weights, in [0, 1). The average
            is the result of the training.
        gradient_clip: Maximum norm of the gradient, above 0.
        precision: "float32", "bf16", or "auto": bf16 on a GPU, and on a processor with AMX or
            AVX-512 BF16; else float32.
        horizontal_flip: Flip each image with probability 1/2.
        seed: Seed of initial weights, batches and noise, in [0, 2^32).
        checkpoint_minutes: Minutes between checkpoints.
        sample_minutes: Minutes between pictures of samples.

    Raises:
        InvalidArgumentError: If a value is out of range.
    """

    steps: int
    batch_size: int
    learning_rate: float = 2e-4
    warmup_steps: int = 500
    decay: str = "cosine"
    decay_share: float = 1.0
    ema_decay: float = 0.9995
    gradient_clip: float = 1.0
    precision: str = "auto"
    horizontal_flip: bool = False
    seed: int = 0
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 10.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in _MINIMA and not value >= _MINIMA[name]:
                raise InvalidArgumentError(
                    f"`{name}` must be at least {_MINIMA[name]}, got {value}"
                )
            if name in _FRACTIONS and not 0 <= value < 1:
                raise InvalidArgumentError(f"`{name}` must be in [0, 1), got {value}")
            if name in _SHARES and not 0 <= value <= 1:
                raise InvalidArgumentError(f"`{name}` must be in [0, 1], got {value}")
            if name in _ABOVE_ZERO and not 0 < value < math.inf:
                raise InvalidArgumentError(f"`{name}` must be above 0 and finite, got {value:g}")
        if not 0 <= self.seed < 2**32:
            raise InvalidArgumentError(f"`seed` must be in [0, 2^32), got {self.seed}")
        check_one_of("precision", self.precision, PRECISIONS)
        check_one_of("decay", self.decay, DECAYS)
        self._check_used("decay_share", "decay", self.decay == "linear", "linear")

    def _check_used(self, option: str, switch: str, used: bool, value: object) -> None:
        """Refuse an option that is set although another one turns it off."""
        if not used and getattr(self, option) != getattr(type(self), option):
            raise InvalidArgumentError(
                f"`{option}` would have no effect with `{switch}` {getattr(self, switch)}: drop"
                f" it, or set `{switch}` to {value}"
            )


@dataclass(frozen=True)
class DiffusionOptions(TrainOptions):
    """Training options of a diffusion model.

    Attributes:
        optimizer: "adam", or "muon": Muon for the kernels of convolutions except the first and
            the last, Adam for all other weights.
        muon_learning_rate: Largest learning rate of Muon, above 0; ``learning_rate`` is Adam's.
        real_steps: Train at real-valued steps, which sampling evaluates the network at. If False,
            steps are whole.
        uniform_share: Fraction of a batch whose steps are uniform, in [0, 1]. For the others, log
            sigma is normal, where sigma = sqrt(1 - r^2) / r for a level r. Below 1 needs
            ``real_steps``.
        log_sigma_mean: Mean of log sigma.
        log_sigma_std: Standard deviation of log sigma, above 0.
        loss_weight: "simple" for the squared error of the prediction, or "min-snr" to weight it
            by min(SNR, ``min_snr``), with SNR = r^2 / (1 - r^2), on the scale of the clean data.
        min_snr: Largest weight of "min-snr", above 0.
        label_dropout: Probability in [0, 1) that a label is replaced by the null class, which the
            network then learns. Models with a null class only.

    Source of "min-snr": Hang et al. 2023, arXiv:2303.09556.
    """

    optimizer: str = "adam"
    muon_learning_rate: float = 0.01
    real_steps: bool = True
    uniform_share: float = 1.0
    log_sigma_mean: float = -1.0
    log_sigma_std: float = 1.3
    loss_weight: str = "simple"
    min_snr: float = 5.0
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("optimizer", self.optimizer, OPTIMIZERS)
        check_one_of("loss_weight", self.loss_weight, LOSS_WEIGHTS)
        if not math.isfinite(self.log_sigma_mean):
            raise InvalidArgumentError(
                f"`log_sigma_mean` must be finite, got {self.log_sigma_mean}"
            )
        self._check_used("muon_learning_rate", "optimizer", self.optimizer == "muon", "muon")
        self._check_used("min_snr", "loss_weight", self.loss_weight == "min-snr", "min-snr")
        for name in ("log_sigma_mean", "log_sigma_std"):
            self._check_used(name, "uniform_share", self.uniform_share < 1, "less than 1")
        if self.uniform_share < 1 and not self.real_steps:
            raise InvalidArgumentError(
                f"`uniform_share` below 1 draws real-valued steps, got {self.uniform_share:g}:"
                " drop `real_steps = false`"
            )


@dataclass(frozen=True)
class ClassifierOptions(TrainOptions):
    """Training options of a classifier, which is trained by SGD with Nesterov momentum 0.9.

    Attributes:
        weight_decay: L2 penalty on all weights, at least 0.
        label_smoothing: Fraction of the target distributed over all classes, in [0, 1).
        shift: Maximum random shift of images, in pixels, at least 0; edges are repeated.
        gain_db: Maximum random attenuation of sounds, in dB, at least 0.
        noise: Maximum standard deviation of white noise added to sounds, at least 0.
    """

    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    shift: int = 0
    gain_db: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class _RunConfig:
    """Base class of the training configurations.

    ``MAKES`` is the configuration class of the folder that is written. ``DECIDES`` lists those of
    its fields that must not change when a run is resumed.
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
        for name, kind in _AUGMENTATIONS.items():
            if getattr(self.training, name, 0) and modality != kind:
                raise InvalidArgumentError(
                    f"`{name}` is for {kind} data, but the data is {modality}: drop it"
                )
        self.MAKES.of(self)  # raises now, not after the training, if the values are invalid

    @property
    def labeled(self) -> bool:
        """Whether training needs labels."""
        return self.data.classes is not None

    @property
    def decisive(self) -> dict[str, Any]:
        """The tables that must stay the same when a run is resumed, by name."""
        tables = self.MAKES.of(self).to_dict()
        for name in ("grey_levels", "class_names"):  # have no effect on training
            tables["data"].pop(name, None)
        decided = {name: tables[name] for name in self.DECIDES}
        return decided | {"training": asdict(self.training)}

    @property
    def identity(self) -> str:
        """Everything that must stay the same when a run is resumed, as text."""
        tables = self.decisive
        return repr((*(tables[name] for name in self.DECIDES), self.training))

    def differences(self, saved: Mapping[str, Any]) -> list[str]:
        """List what differs from the :attr:`decisive` tables of an earlier run."""
        return [
            f"{name} was {shortened(before)} and is {shortened(now)}"
            for name, before, now in changed(saved, self.decisive)
        ]

    def replace(self, **options: int | None) -> Self:
        """A copy with the training options that are not None."""
        changes: Any = {name: value for name, value in options.items() if value is not None}
        return replace(self, training=replace(self.training, **changes))


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_RunConfig):
    """Training configuration of a diffusion model.

    The tables of the TOML file are those of :class:`fastdpm.models.config.ModelConfig`, and
    "training" with the fields of :class:`DiffusionOptions`.

    Attributes:
        prediction: What the network learns to predict: "epsilon", "v_prediction" or "sample".

    Raises:
        InvalidArgumentError: If a value is invalid.
    """

    MAKES = ModelConfig
    DECIDES = ("network", "schedule", "data", "prediction")
    schedule: dict[str, Any]
    recipe: Recipe = field(default_factory=Recipe)
    prediction: str = "epsilon"
    training: DiffusionOptions

    def __post_init__(self) -> None:
        super().__post_init__()
        dropout, null = self.training.label_dropout, self.network.get("null_class") is True
        if dropout and not null:
            raise InvalidArgumentError(
                f"`label_dropout` {dropout:g} replaces labels by the null class: set null_class ="
                " true under [network], or drop label_dropout"
            )
        if null and not dropout:
            raise InvalidArgumentError(
                "null_class of [network] would stay untrained: set label_dropout under [training],"
                " such as 0.1, or drop null_class"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(_RunConfig):
    """Training configuration of a feature network.

    The tables of the TOML file are those of :class:`fastdpm.models.config.FeaturesConfig`, and
    "training" with the fields of :class:`ClassifierOptions`. ``classes`` are the names of labels
    0, 1, ...

    Raises:
        InvalidArgumentError: If a value is invalid.
    """

    MAKES = FeaturesConfig
    DECIDES = ("network", "classes", "data")
    classes: tuple[str, ...]
    training: ClassifierOptions

    @property
    def labeled(self) -> bool:
        """Whether training needs labels: always."""
        return True


def read_train_config(name_or_path: str | Path) -> TrainConfig | ClassifierConfig:
    """Read a training configuration.

    Args:
        name_or_path: Name of a configuration in the package, or path of a TOML file.

    Raises:
        InvalidArgumentError: If it does not exist, or a value is invalid.
    """
    path = CONFIGS / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.toml")))
        raise InvalidArgumentError(
            f"no training configuration {str(name_or_path)!r}: pass a TOML file, or one of {known}"
        )
    try:
        data = read_toml(path)
    except ValueError as error:  # not TOML, not UTF-8, or an integer of too many digits
        raise InvalidArgumentError(f"{path} is not TOML: {error}") from None
    if "classes" in data:
        return build(ClassifierConfig, data, str(path))
    return build(TrainConfig, data, str(path))
