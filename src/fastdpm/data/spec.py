"""The data of a model: modality, shape, sample rate, and the mel spectrogram of a vocoder."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from fastdpm.core.arguments import checked_class
from fastdpm.core.errors import DataError, InvalidArgumentError, check_one_of
from fastdpm.core.limits import MAX_CLASSES, MAX_COUNT, MAX_SAMPLE_VALUES, check_limit

MODALITIES = ("image", "audio", "series")
MEL_SCALES = ("log10", "natural", "decibel")
MEL_FILTERS = ("slaney", "htk")
NO_CLASS = "none"  # the name of the class that stands for "no class"
_MAX_FILTERS = 2**26  # bands times half a window


@checked_class
@dataclass(frozen=True)
class MelSpec:
    """Parameters of a mel spectrogram.

    Attributes:
        sample_rate: Sample rate of the sound, in Hz.
        n_fft: Samples per analysis window (Hann).
        hop_length: Samples between frames; divides ``n_fft``.
        bands: Number of mel bands.
        f_min: Lowest frequency, in Hz.
        f_max: Highest frequency, in Hz, at most half the sample rate.
        scale: "log10", "natural" or "decibel"; see :func:`fastdpm.data.mel.log_mel`.
        centred: If True, frame i is centered at sample i * hop_length. If False, it is centered
            in the middle of hop i.
        filters: "slaney" or "htk"; see :mod:`fastdpm.data.mel`.
        normalised: Divide magnitudes by the L2 norm of the window.

    Raises:
        InvalidArgumentError: If a value is out of range.
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
        check_one_of("`scale` of mel", self.scale, MEL_SCALES)
        check_one_of("`filters` of mel", self.filters, MEL_FILTERS)
        for name in ("sample_rate", "n_fft", "hop_length", "bands"):
            _check_count(f"`{name}` of mel", getattr(self, name))
        check_limit("`n_fft` times `bands` of mel", self.n_fft * self.bands, _MAX_FILTERS)
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise InvalidArgumentError(
                f"`f_min` and `f_max` of mel must satisfy 0 <= f_min < f_max <="
                f" {self.sample_rate / 2:g} Hz, got {self.f_min:g} and {self.f_max:g}"
            )
        if self.n_fft % self.hop_length:
            raise InvalidArgumentError(
                f"`hop_length` of mel must divide `n_fft`, got {self.hop_length} and {self.n_fft}"
            )


@checked_class
@dataclass(frozen=True)
class DataSpec:
    """The data a model was trained on. Values lie in [-1, 1].

    Attributes:
        modality: "image", "audio" or "series" (other values over time).
        shape: Shape of one sample: (channels, height, width) for images, (1, samples) for audio,
            (channels, length) for series.
        sample_rate: In Hz; required for audio.
        peak: Recordings are scaled to this largest absolute value, in (0, 1]. None leaves them
            unscaled.
        mel: For a vocoder, the spectrogram used as the condition. Its samples may have any length.
        classes: Number of classes, with labels from 0; None for a network without class labels. A
            label that stands for "no class" is not counted.
        description: The data set, in words.
        grey_levels: Number of distinct values; by default 256 for images and 65,536 for audio.
            Only the likelihood of data depends on it.
        class_names: Names of the classes, in the order of their labels; None if they have none.

    Raises:
        InvalidArgumentError: If a value is out of range, or values contradict each other.
    """

    modality: str
    shape: tuple[int, ...]
    sample_rate: int | None = None
    peak: float | None = None
    mel: MelSpec | None = None
    classes: int | None = None
    description: str = ""
    grey_levels: int | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_one_of("modality", self.modality, MODALITIES)
        self._check_sizes()
        self._check_condition()
        self._check_class_names()
        if self.peak is not None and not 0 < self.peak <= 1:
            raise InvalidArgumentError(f"`peak` must be in (0, 1], got {self.peak}")
        if self.grey_levels is not None and not 2 <= self.grey_levels <= 2**32:
            raise InvalidArgumentError(
                f"`grey_levels` must be in [2, 2^32], got {self.grey_levels}"
            )

    def _check_sizes(self) -> None:
        """Check shape and sample rate."""
        axes = 3 if self.modality == "image" else 2
        if len(self.shape) != axes or min(self.shape) < 1:
            raise InvalidArgumentError(
                f"`shape` of {self.modality} data must have {axes} sizes of at least 1,"
                f" got {list(self.shape)}"
            )
        if math.prod(self.shape) > MAX_SAMPLE_VALUES:
            raise InvalidArgumentError(
                f"`shape` is too large: a sample may have at most {MAX_SAMPLE_VALUES:,} values,"
                f" got {list(self.shape)}"
            )
        if self.sample_rate is not None:
            _check_count("`sample_rate`", self.sample_rate)
        if self.modality == "audio" and (self.shape[0] != 1 or self.sample_rate is None):
            raise InvalidArgumentError(
                f"audio data must be mono and have a `sample_rate` in Hz, got {self.shape[0]}"
                f" channels and {self.sample_rate}"
            )

    def _check_condition(self) -> None:
        """Check classes and mel."""
        if self.classes is not None:
            _check_count("`classes`", self.classes, MAX_CLASSES)
            if self.mel is not None:
                raise InvalidArgumentError(
                    f"data has either `classes` or a `mel` condition, got {self.classes} classes"
                    " and a mel: remove one of them"
                )
        if self.mel is not None and self.mel.sample_rate != self.sample_rate:
            raise InvalidArgumentError(
                f"`sample_rate` of data and of mel must be equal, got {self.sample_rate} Hz and"
                f" {self.mel.sample_rate} Hz"
            )

    def _check_class_names(self) -> None:
        """Check that each class has one name, unlike any other name or label."""
        names = self.class_names
        if names is None:
            return
        if self.classes is None:
            raise InvalidArgumentError("`class_names` needs `classes`, their number: set it too")
        if len(names) != self.classes or len({name.lower() for name in names}) < len(names):
            raise InvalidArgumentError(
                f"`class_names` must hold a different name for each of the {self.classes}"
                f" classes, got {', '.join(map(str, names))}"
            )
        for label, name in enumerate(names):
            number = name.lstrip("+-").isdecimal() and name != str(label)
            readable = name.isprintable() and name == name.strip() and "," not in name
            if not name or number or not readable or name.lower() == NO_CLASS:
                raise InvalidArgumentError(
                    f"`class_names` must be words without commas, other than {NO_CLASS!r} and the"
                    f" number of another class, got {name!r}"
                )

    def deciding(self) -> dict[str, Any]:
        """The fields that determine samples and features, as JSON values, for digests."""
        values = dataclasses.asdict(self)
        del values["grey_levels"], values["class_names"]
        return values


def check_shape(name: str, found: tuple[int, ...], spec: DataSpec) -> None:
    """Raise DataError unless a sample has the shape of ``spec``."""
    if tuple(found) != spec.shape:
        raise DataError(
            f"{name} has shape {tuple(found)}, but shape {spec.shape} is expected: use other data,"
            " or change the configuration"
        )


def _check_count(name: str, value: int, limit: int = MAX_COUNT) -> None:
    """Raise InvalidArgumentError unless a count lies in [1, limit]."""
    if value < 1:
        raise InvalidArgumentError(f"{name} must be at least 1, got {value}")
    check_limit(name, value, limit)
