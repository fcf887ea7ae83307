"""Mel spectrograms follow Slaney's scale and stay aligned with the sound."""

import math

import numpy as np
import pytest
import torch

from fastdpm import InvalidArgumentError
from fastdpm.models.config import MelSpec
from fastdpm.models.mel import log_mel, mel_filters

SPEC = MelSpec(sample_rate=8000, n_fft=256, hop_length=64, bands=40, f_min=50.0, f_max=4000.0)


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
    with pytest.raises(InvalidArgumentError, match="a multiple of 64"):
        log_mel(torch.zeros(1, samples), SPEC)


@pytest.mark.parametrize(
    "change", [{"f_max": 5000.0}, {"f_min": 4000.0}, {"bands": 0}, {"hop_length": 60}]
)
def test_impossible_specs_are_refused(change):
    with pytest.raises(InvalidArgumentError):
        MelSpec(**{**vars(SPEC), **change})
