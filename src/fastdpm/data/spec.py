"""What a sample is: modality, shape, rate, and the mel spectrogram that conditions a vocoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from fastdpm.core.errors import DataError, InvalidArgumentError, check_one_of

MODALITIES = ("image", "audio", "series")


MEL_SCALES = ("log10", "natural", "decibel")


MEL_FILTERS = ("slaney", "htk")


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
            :func:`fastdpm.data.mel.log_mel`.
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
        grey_levels: How many values it takes, where that is not 256 for images or 65,536 for
            sounds; decides nothing but the likelihood of data.
    """

    modality: str
    shape: tuple[int, ...]
    sample_rate: int | None = None
    peak: float | None = None
    mel: MelSpec | None = None
    classes: int | None = None
    description: str = ""
    grey_levels: int | None = None

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
        if self.grey_levels is not None and not 2 <= self.grey_levels <= 2**32:
            raise InvalidArgumentError(
                f"grey_levels must lie in [2, 2^32], got {self.grey_levels}"
            )

    def deciding(self) -> dict[str, Any]:
        """Plain values of all that decides samples and features, for digests."""
        values = dataclasses.asdict(self)
        del values["grey_levels"]
        return values


def check_shape(name: str, found: tuple[int, ...], spec: DataSpec) -> None:
    """Raise DataError unless a sample has the shape that ``spec`` wants."""
    if tuple(found) != spec.shape:
        raise DataError(
            f"{name} has shape {tuple(found)}, but {spec.shape} is needed: change the data, or"
            " what it is for"
        )
