"""Mel spectrograms equal those each vocoder was trained on, and are aligned with the sound."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fastdpm import InvalidArgumentError
from fastdpm.core.structure import build, plain
from fastdpm.data.mel import log_mel, mel_filters
from fastdpm.data.spec import MelSpec
from tests.messages import tells

Array = NDArray[np.float64]

SPEC = MelSpec(sample_rate=8000, n_fft=256, hop_length=64, bands=40, f_min=50.0, f_max=4000.0)
# As the authors of DiffWave and LMNT set theirs up, at a quarter of the window and of the bands.
AUTHORS = MelSpec(22050, 256, 64, 20, 0.0, 8000.0, scale="natural", centred=True)
LMNT = MelSpec(22050, 256, 64, 20, 20.0, 11025.0, "decibel", True, "htk", True)


def _frames(sound: Array, spec: MelSpec, first: int) -> Array:
    """Magnitudes of windows from sample ``first`` on, one each hop, by the sum of a DFT."""
    n = np.arange(spec.n_fft)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(spec.n_fft // 2 + 1), n) / spec.n_fft)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / spec.n_fft)
    columns = []
    for start in range(first, first + len(sound), spec.hop_length):
        at = np.abs(n + start)  # mirrored at the first sample, and below at the last
        at = np.where(at >= len(sound), 2 * (len(sound) - 1) - at, at)
        columns.append(np.abs(waves @ (hann * sound[at])))
    return np.stack(columns, axis=1)


def _triangles(spec: MelSpec, from_mel: Callable[[float], float], top: float) -> Array:
    """Filters between equal steps in mel from f_min to ``top`` mel, value by value."""
    bottom = 2595 * math.log10(1 + spec.f_min / 700)  # 0 for 0 Hz on Slaney's scale as well
    steps = [bottom + (top - bottom) * i / (spec.bands + 1) for i in range(spec.bands + 2)]
    hz = [from_mel(step) for step in steps]
    out = np.zeros((spec.bands, spec.n_fft // 2 + 1))
    for band in range(spec.bands):
        left, middle, right = hz[band : band + 3]
        for k in range(out.shape[1]):
            f = k * spec.sample_rate / spec.n_fft
            if left < f <= middle:
                out[band, k] = (f - left) / (middle - left)
            elif middle < f < right:
                out[band, k] = (right - f) / (right - middle)
            if spec.filters == "slaney":
                out[band, k] *= 2 / (right - left)
    return out


def _slaney_hz(mel: float) -> float:
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def _htk_hz(mel: float) -> float:
    return 700 * (10 ** (mel / 2595) - 1)


def _sounds() -> NDArray[np.float32]:
    """Loud noise, whispered noise and silence, shape (2, 1024)."""
    sounds = np.random.default_rng(0).uniform(-1, 1, (2, 1024))
    sounds[:, 300:600] *= 1e-4
    sounds[:, 600:900] = 0
    return sounds.astype(np.float32)


def test_the_authors_vocoder_gets_natural_logarithms_of_centred_frames():
    """Tacotron 2's STFT: https://github.com/NVIDIA/tacotron2, layers.py and stft.py."""
    sounds = _sounds()
    filters = _triangles(AUTHORS, _slaney_hz, 15 + 27 * math.log(8) / math.log(6.4))
    out = log_mel(torch.from_numpy(sounds), AUTHORS).numpy()
    for sound, found in zip(sounds.astype(np.float64), out, strict=True):
        mel = filters @ _frames(sound, AUTHORS, -128)
        np.testing.assert_allclose(found, np.log(np.maximum(mel, 1e-5)), atol=2e-4)
    assert out.min() == pytest.approx(math.log(1e-5), abs=1e-5)


def test_lmnts_vocoder_gets_decibels_of_normalised_centred_frames():
    """torchaudio's MelSpectrogram: https://github.com/lmnt-com/diffwave, preprocess.py."""
    sounds = 20 * _sounds()  # so loud that the upper end counts as well
    filters = _triangles(LMNT, _htk_hz, 2595 * math.log10(1 + 11025 / 700))
    energy = 256 * 3 / 8  # of a Hann window
    out = log_mel(torch.from_numpy(sounds), LMNT).numpy()
    for sound, found in zip(sounds.astype(np.float64), out, strict=True):
        mel = filters @ _frames(sound, LMNT, -128) / math.sqrt(energy)
        decibel = 20 * np.log10(np.maximum(mel, 1e-5)) - 20
        np.testing.assert_allclose(found, np.clip((decibel + 100) / 100, 0, 1), atol=2e-5)
    assert (out.min(), out.max()) == (0, 1)


def test_a_spec_without_a_scale_means_what_it_always_did():
    values = plain(SPEC)
    old = {name: values[name] for name in list(values)[:6]}
    assert build(MelSpec, old, "mel") == SPEC
    sounds = torch.from_numpy(_sounds())
    padded = torch.nn.functional.pad(sounds, (96, 96), mode="reflect")
    spectrum = torch.stft(
        padded, 256, 64, window=torch.hann_window(256), center=False, return_complex=True
    ).abs()
    mel = torch.from_numpy(mel_filters(SPEC)).to(sounds) @ spectrum
    assert torch.equal(log_mel(sounds, SPEC), (torch.log10(mel.clamp_min(1e-5)) + 5) / 5)
    frames = _frames(sounds[0].double().numpy(), SPEC, -96)
    np.testing.assert_allclose(spectrum[0], frames, atol=1e-4)


def test_a_spec_is_read_back_whole():
    assert build(MelSpec, plain(LMNT), "mel") == LMNT


@pytest.mark.parametrize("hop_length", [64, 128, 256])
@pytest.mark.parametrize("centred", [False, True])
def test_a_hop_has_one_frame(hop_length, centred):
    spec = MelSpec(8000, 256, hop_length, 8, 0.0, 4000.0, centred=centred)
    sound = torch.randn(1, 1024)
    out = log_mel(sound, spec)
    assert out.shape == (1, 8, 1024 // hop_length)
    # but for what is mirrored at the ends: the other frames of the sound, half a hop later
    if centred:
        shift = hop_length // 2
        later = log_mel(
            torch.nn.functional.pad(sound, (shift, hop_length - shift)),
            MelSpec(8000, 256, hop_length, 8, 0.0, 4000.0),
        )
        inside = slice(256 // hop_length, -256 // hop_length)
        torch.testing.assert_close(out[..., inside], later[..., :-1][..., inside])


def test_filters_have_unit_area_and_rising_peaks():
    filters = mel_filters(MelSpec(22050, 4096, 256, 80, 0.0, 8000.0))
    assert filters.shape == (80, 2049)
    area = filters.sum(axis=1) * (22050 / 4096)
    np.testing.assert_allclose(area, 1.0, atol=0.02)
    assert np.all(np.diff(filters.argmax(axis=1)) >= 0)


def test_the_scale_is_slaneys():
    """15 mels per kHz below 1 kHz, then 27 per factor 6.4: edges of a few filters by hand."""
    filters = mel_filters(MelSpec(16000, 16000, 1000, 1, 0.0, 6400.0))
    centre_mel = (15 + 27) / 2
    centre_hz = 1000 * math.exp((centre_mel - 15) * math.log(6.4) / 27)
    assert abs(int(filters[0].argmax()) - centre_hz) <= 1


def test_a_tone_lights_the_band_it_lies_in():
    t = torch.arange(6400) / 8000
    for hz in (200.0, 1000.0, 3000.0):
        mel = log_mel(torch.sin(2 * math.pi * hz * t)[None], SPEC)
        assert mel.shape == (1, 40, 100)
        band = int(mel[0, :, 50].argmax())
        peak = int(mel_filters(SPEC)[band].argmax()) * 8000 / 256
        assert abs(peak - hz) < 0.1 * hz + 32


def test_a_click_lights_the_frames_around_it():
    sound = torch.zeros(1, 6400)
    sound[0, 64 * 50 + 32] = 1.0
    loud = torch.nonzero(log_mel(sound, SPEC)[0].sum(0) > 0).flatten()
    assert loud.min() >= 48
    assert loud.max() <= 52
    assert 50 in loud.tolist()


def test_silence_is_zero():
    assert float(log_mel(torch.zeros(1, 640), SPEC).abs().max()) < 1e-6


@pytest.mark.parametrize("samples", [128, 6401])
def test_sounds_of_the_wrong_length_are_refused(samples):
    with pytest.raises(InvalidArgumentError, match=tells(256, 64, samples)):
        log_mel(torch.zeros(1, samples), SPEC)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"f_max": 5000.0}, ["f_min", "f_max", "4000 Hz", 50, 5000]),
        ({"f_min": 4000.0}, ["f_min", "f_max", "4000 Hz", "4000 and 4000"]),
        ({"bands": 0}, ["bands", 0]),
        ({"bands": 10**30}, ["bands", "too large", f"{10**30:,}"]),
        ({"sample_rate": 10**400}, ["sample_rate", "too large"]),
        ({"hop_length": 60}, ["hop_length", 60, "n_fft", 256]),
        ({"scale": "ln"}, ["log10", "natural", "decibel", "ln"]),
        ({"filters": "bark"}, ["slaney", "htk", "bark"]),
    ],
)
def test_impossible_specs_are_refused(change, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        MelSpec(**{**vars(SPEC), **change})
