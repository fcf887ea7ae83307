"""Metrics of pairs: the sounds of a vocoder and the recordings they were made from.

Nothing is rescaled, shifted or warped, because a vocoder's output is aligned with its recording.
Spectra use Hann windows centered at every hop, with the sound mirrored at its ends.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fastdpm.core.errors import (
    DataError,
    InvalidArgumentError,
    check_installed,
    check_one_of,
)
from fastdpm.data.mel import mel_filters
from fastdpm.data.spec import MelSpec
from fastdpm.data.stft import magnitudes
from fastdpm.evaluation.scores import Metric

Array = NDArray[np.float64]
Sounds = NDArray[np.floating[Any]] | Sequence[NDArray[np.floating[Any]]]

LEAST_RATE = 8000
MEL_FLOOR = 1e-5
STFT_FLOOR = 10**-3.5
CEPSTRAL_COEFFICIENTS = 13
WINDOWS_MS = (25.0, 50.0, 10.0)
PESQ_MODES = {8000: "nb", 16000: "wb"}
# pesq crashes the process above 50 utterances; one takes at least 0.4 s with its pause
PESQ_LIMIT_SECONDS = 15.0
_ROUNDING = 1e-5


class Resolution(NamedTuple):
    """A short-time Fourier transform: sizes in samples."""

    n_fft: int
    window: int
    hop: int


@dataclass(frozen=True)
class SpeechMetric(Metric):
    """A metric of pairs of sounds.

    Attributes:
        measure: Computes it from the reference and the generated sound, both of shape (samples,)
            in [-1, 1], and their sample rate in Hz; NaN if undefined.
        library: The package that it needs, from the extra ``speech``, or None. The version of the
            package decides the values.
        sample_rates: Sample rates it is defined for, in Hz; None for any.
    """

    measure: Callable[[Array, Array, int], float]
    library: str | None = None
    sample_rates: tuple[int, ...] | None = None

    def wrong_rate(self, sample_rate: int) -> str | None:
        """Why it is not defined for a sample rate; None if it is."""
        if self.sample_rates is None or sample_rate in self.sample_rates:
            return None
        return f"{self.key} takes {' or '.join(map(str, self.sample_rates))} Hz, not {sample_rate}"

    def left_out(self, sample_rate: int) -> str | None:
        """Why it cannot be computed at a sample rate on this installation; None if it can."""
        if wrong := self.wrong_rate(sample_rate):
            return f"{wrong}: it is left out"
        if self.library is not None and importlib.util.find_spec(self.library) is None:
            return f"{self.name} is left out: run `pip install 'fastdpm[speech]'`"
        return None


def compare_sounds(
    reference: Sounds,
    generated: Sounds,
    sample_rate: int,
    metrics: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Compare generated sounds with their recordings.

    Args:
        reference: Shape (n, samples), in [-1, 1], or n sounds of their own lengths.
        generated: The same shapes; sound i was made from recording i.
        sample_rate: Of all sounds, in Hz, at least 8000.
        metrics: Keys of ``SPEECH_METRICS``; by default those of :func:`usable_metrics`.

    Returns:
        Values of every pair by the key of the metric, shape (n,); NaN where undefined.

    Raises:
        InvalidArgumentError: If the sounds do not form pairs or are too short, or a metric is
            unknown or not defined at this sample rate.
        DataError: If a sound has values that are not finite or outside [-1, 1].
        MissingExtraError: If a metric in ``metrics`` needs a package that is not installed.
    """
    sample_rate = _check_rate(sample_rate)
    chosen = _choose(metrics, sample_rate)
    pairs = _check_pairs(reference, generated, sample_rate)
    values = np.array([[m.measure(*pair, sample_rate) for pair in pairs] for m in chosen])
    return dict(zip((m.key for m in chosen), values, strict=True))


def usable_metrics(sample_rate: int) -> tuple[tuple[SpeechMetric, ...], tuple[str, ...]]:
    """The metrics available at a sample rate in Hz, and one line for each of the others."""
    reasons = [(m, m.left_out(sample_rate)) for m in SPEECH_METRICS]
    usable = tuple(m for m, reason in reasons if reason is None)
    return usable, tuple(reason for _, reason in reasons if reason is not None)


def mel_spec(sample_rate: int) -> MelSpec:
    """The mel bands of the metrics: windows of 32 to 64 ms, hops of a quarter, from 50 Hz.

    40 bands below 16 kHz and 80 above, so that no band is narrower than a frequency bin.
    """
    n_fft = _power_of_two(0.032 * sample_rate)
    bands = 40 if sample_rate < 16000 else 80
    return MelSpec(sample_rate, n_fft, n_fft // 4, bands, 50.0, sample_rate / 2)


def stft_resolutions(sample_rate: int) -> tuple[Resolution, ...]:
    """Three resolutions with windows of 25, 50 and 10 ms and hops of a fifth of the window.

    At 24 kHz these are the published ones (1024, 2048 and 512 points; windows of 600, 1200 and
    240 samples; hops of 120, 240 and 48, the last published as 50). At 8 kHz: 512, 1024 and 128
    points; windows of 200, 400 and 80.

    Source: Yamamoto et al. 2020, arXiv:1910.11480.
    """
    windows = [round(ms / 1000 * sample_rate) for ms in WINDOWS_MS]
    return tuple(Resolution(_power_of_two(1.5 * w), w, round(w / 5)) for w in windows)


def least_length(sample_rate: int) -> int:
    """Samples of the shortest sound that the metrics take at a sample rate in Hz."""
    # mirroring half a transform needs one more sample
    return 1 + max(r.n_fft for r in stft_resolutions(sample_rate)) // 2


def log_mel_error(reference: Array, generated: Array, sample_rate: int) -> float:
    """Mean absolute difference of the natural logarithms of mel spectrograms, in nepers.

    A neper is 8.686 dB. Mel magnitudes below 1e-5 count as 1e-5, the floor of the spectrograms
    that vocoders are conditioned on. For the bands, see :func:`mel_spec`.
    """
    ours, theirs = (_log_mel(sound, sample_rate) for sound in (generated, reference))
    return float(np.abs(ours - theirs).mean())


def mel_cepstral_distortion(reference: Array, generated: Array, sample_rate: int) -> float:
    """Mel-cepstral distortion in dB, mean over frames; frames are not realigned.

    (10 / ln 10) * sqrt(2 * sum_d (c_d - c'_d)^2), d = 1 ... 13, where log mel = c_0 +
    sum_d c_d * cos(pi * d * (k + 1/2) / K) over K bands. This is the root mean square over
    bands, in dB of amplitude, of the smoothed difference of two log-mel spectra without their
    levels. Other programs scale the coefficients differently: compare only values of this one.

    Source: Kubichek 1993, "Mel-cepstral distance measure for objective speech quality assessment".
    """
    difference = _log_mel(generated, sample_rate) - _log_mel(reference, sample_rate)
    return float(_cepstral_distortion(difference).mean())


def stft_distance(
    reference: Array,
    generated: Array,
    sample_rate: int,
    resolutions: Sequence[Resolution] | None = None,
) -> float:
    """Spectral convergence plus mean absolute log-magnitude difference, mean over resolutions.

    |S - S'|_F / |S|_F + mean |ln S - ln S'| with S the magnitudes of the reference; both parts
    have no unit. In the logarithm, magnitudes below 10^-3.5 count as 10^-3.5, slightly more than
    silence has after rounding to 16 bits. NaN for a silent reference.

    ``resolutions`` default to :func:`stft_resolutions`.

    Source: Yamamoto et al. 2020, arXiv:1910.11480, section 2.
    """
    if not reference.any():
        return math.nan
    distances = []
    for resolution in resolutions or stft_resolutions(sample_rate):
        ours, theirs = (_magnitudes(sound, resolution) for sound in (generated, reference))
        convergence = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        logs = (np.log(np.maximum(s, STFT_FLOOR)) for s in (ours, theirs))
        distances.append(convergence + np.abs(np.subtract(*logs)).mean())
    return float(np.mean(distances))


def pesq_score(reference: Array, generated: Array, sample_rate: int) -> float:
    """PESQ as MOS-LQO, 1 to 4.6: narrow-band at 8000 Hz, wide-band at 16000 Hz.

    NaN if the package finds no speech or a silent output, and for sounds below a quarter of a
    second or above 15 s, because many utterances would crash the package.

    Source: ITU-T P.862.1 and P.862.2, by the package pesq.
    """
    import pesq

    if not reference.any() or len(reference) > PESQ_LIMIT_SECONDS * sample_rate:
        return math.nan
    mode = PESQ_MODES[sample_rate]
    try:
        return float(pesq.pesq(sample_rate, reference, generated, mode))
    except (pesq.PesqError, ValueError):  # a ValueError for a silent output
        return math.nan


def stoi_score(reference: Array, generated: Array, sample_rate: int) -> float:
    """STOI, up to 1, of sounds resampled to 10 kHz.

    NaN if the reference is silent, or has less than about 0.4 s of sound within 40 dB of its
    loudest frame, for which the package returns 1e-5.

    Source: Taal et al. 2011, IEEE Transactions on Audio, Speech, and Language Processing 19(7), by
    the package pystoi.
    """
    import pystoi

    if not reference.any():
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, generated, sample_rate))
        except (RuntimeWarning, np.exceptions.AxisError):
            return math.nan


SPEECH_METRICS: tuple[SpeechMetric, ...] = (
    SpeechMetric("log_mel_error", "log-mel MAE (nepers)", "lower", log_mel_error),
    SpeechMetric("stft_distance", "multi-resolution STFT distance", "lower", stft_distance),
    SpeechMetric("mel_cepstral_distortion", "MCD (dB)", "lower", mel_cepstral_distortion),
    SpeechMetric("pesq", "PESQ (MOS-LQO)", "higher", pesq_score, "pesq", tuple(PESQ_MODES)),
    SpeechMetric("stoi", "STOI", "higher", stoi_score, "pystoi"),
)


def _choose(keys: Sequence[str] | None, sample_rate: int) -> tuple[SpeechMetric, ...]:
    if keys is None:
        return usable_metrics(sample_rate)[0]
    known = {m.key: m for m in SPEECH_METRICS}
    for key in keys:
        check_one_of("metric", key, known)
    chosen = tuple(known[key] for key in dict.fromkeys(keys))
    if not chosen:
        raise InvalidArgumentError(f"no metric to measure: choose some of {', '.join(known)}")
    for metric in chosen:
        if wrong := metric.wrong_rate(sample_rate):
            raise InvalidArgumentError(f"{wrong}: drop it")
        if metric.library is not None:
            check_installed(metric.library, metric.library, "speech")
    return chosen


def _check_rate(sample_rate: int) -> int:
    try:
        rate = operator.index(sample_rate)
    except TypeError:
        rate = 0
    if rate < LEAST_RATE:
        raise InvalidArgumentError(
            f"`sample_rate` must be a whole number of Hz, at least {LEAST_RATE}, got"
            f" {sample_rate!r}"
        )
    return rate


def _check_pairs(
    reference: Sounds, generated: Sounds, sample_rate: int
) -> list[tuple[Array, Array]]:
    if len(reference) != len(generated) or len(reference) < 1:
        raise InvalidArgumentError(
            f"{len(reference)} recordings and {len(generated)} generated sounds do not form"
            " pairs: pass equally many of both, at least one"
        )
    least = least_length(sample_rate)
    pairs = []
    for i, (real, made) in enumerate(zip(reference, generated, strict=True)):
        pair = (_check_sound(f"recording {i}", real), _check_sound(f"generated sound {i}", made))
        if len(pair[0]) != len(pair[1]):
            raise InvalidArgumentError(
                f"recording {i} has {len(pair[0])} samples, the sound generated from it"
                f" {len(pair[1])}: pad or cut them to one length"
            )
        if len(pair[0]) < least:
            raise InvalidArgumentError(
                f"recording {i} has {len(pair[0])} samples: the metrics need at least {least} at"
                f" {sample_rate} Hz"
            )
        pairs.append(pair)
    return pairs


def _check_sound(name: str, sound: NDArray[np.floating[Any]]) -> Array:
    if np.ndim(sound) != 1 or not np.issubdtype(np.asarray(sound).dtype, np.floating):
        raise InvalidArgumentError(
            f"{name} must be floats of shape (samples,), got {np.asarray(sound).dtype} of shape"
            f" {np.shape(sound)}"
        )
    values = np.asarray(sound, dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(
            f"{name} has values that are not finite: leave it out or generate it again"
        )
    peak = float(np.abs(values).max(initial=0.0))
    if peak > 1 + _ROUNDING:
        raise DataError(
            f"{name} has values up to {peak:g}, outside [-1, 1]: scale both sounds of"
            " the pair by the same factor"
        )
    return values


def _power_of_two(least: float) -> int:
    return 1 << math.ceil(math.log2(least))


def _magnitudes(sound: Array, resolution: Resolution) -> Array:
    padded = torch.from_numpy(np.pad(sound, resolution.n_fft // 2, mode="reflect"))
    window = torch.hann_window(resolution.window, dtype=torch.float64, device="cpu")
    return np.asarray(magnitudes(padded, window, resolution.hop, resolution.n_fft).T)


_filters = functools.lru_cache(maxsize=4)(mel_filters)


def _log_mel(sound: Array, sample_rate: int) -> Array:
    spec = mel_spec(sample_rate)
    spectra = _magnitudes(sound, Resolution(spec.n_fft, spec.n_fft, spec.hop_length))
    return np.log(np.maximum(spectra @ _filters(spec).T, MEL_FLOOR))


def _cepstral_distortion(difference: Array) -> Array:
    from scipy import fft

    bands = difference.shape[-1]
    orthonormal = fft.dct(difference, norm="ortho", axis=-1)[..., 1 : CEPSTRAL_COEFFICIENTS + 1]
    cepstra = orthonormal * math.sqrt(2 / bands)
    return np.asarray(10 / math.log(10) * np.sqrt(2 * (cepstra**2).sum(-1)))
