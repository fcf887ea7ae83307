"""Paired sound metrics, against closed forms, other computations and their libraries."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError, MissingExtraError
from fastdpm.data.mel import log_mel, mel_filters
from fastdpm.evaluation.halves import mean_score
from fastdpm.evaluation.speech import (
    LEAST_RATE,
    MEL_FLOOR,
    PESQ_LIMIT_SECONDS,
    SPEECH_METRICS,
    STFT_FLOOR,
    Resolution,
    _cepstral_distortion,
    compare_sounds,
    log_mel_error,
    mel_cepstral_distortion,
    mel_spec,
    stft_distance,
    stft_resolutions,
    usable_metrics,
)
from tests.messages import tells

RATE = 8000
PLAIN = ["log_mel_error", "stft_distance", "mel_cepstral_distortion"]
WITHOUT_PESQ = "needs fastdpm[speech], whose pesq needs a compiler"


def _voice(seconds=1.5, rate=RATE, pitch=140.0, level=0.5):
    """Harmonics of a wavering pitch, four syllables a second, over faint breath."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * (pitch * t - 6 * np.cos(2 * np.pi * 1.3 * t))
    tone = sum(np.sin(k * phase) / k for k in range(1, 1 + int(0.4 * rate / pitch)))
    sound = tone * (0.55 - 0.45 * np.cos(2 * np.pi * 4 * t))
    sound += 0.05 * np.random.default_rng(0).standard_normal(len(t))
    return (level * sound / np.abs(sound).max()).astype(np.float32)


def _noisy(sound, snr_db, seed=1):
    noise = np.random.default_rng(seed).standard_normal(sound.shape)
    noise *= np.linalg.norm(sound) / np.linalg.norm(noise) / 10 ** (snr_db / 20)
    return np.clip(sound + noise, -1, 1).astype(np.float32)


def _score(key, real, made, rate=RATE):
    return float(compare_sounds([real], [made], rate, [key])[key][0])


@pytest.mark.parametrize("gain", [0.5, 1.7])
def test_a_gain_changes_log_mel_by_its_logarithm_and_the_cepstra_not_at_all(gain):
    sound = _voice(level=0.5)
    louder = gain * sound.astype(np.float64)
    spec = mel_spec(RATE)
    floor = math.log10(MEL_FLOOR)
    assert float(5 * log_mel(torch.from_numpy(sound)[None, :11968], spec).min() - 5) > floor + 1
    error = log_mel_error(sound.astype(np.float64), louder, RATE)
    assert error == pytest.approx(abs(math.log(gain)), rel=1e-9)
    assert mel_cepstral_distortion(sound.astype(np.float64), louder, RATE) < 1e-9


def test_a_gain_changes_the_stft_distance_by_its_distance_from_one_and_its_logarithm():
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    expected = 0.3 + abs(math.log(0.7))
    assert stft_distance(noise, 0.7 * noise, RATE) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000])
def test_identical_sounds_are_at_distance_zero(rate):
    sound = _voice(rate=rate)
    scores = compare_sounds([sound], [sound], rate, PLAIN)
    assert {key: score.mean() for key, score in scores.items()} == dict.fromkeys(PLAIN, 0.0)
    assert _score("stoi", sound, sound, rate) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_more_noise_makes_every_metric_worse(rate):
    sound = _voice(rate=rate)
    made = [_noisy(sound, snr) for snr in (40, 30, 20, 10, 0)]
    scores = compare_sounds([sound] * 5, made, rate)
    assert set(scores) == {metric.key for metric in usable_metrics(rate)[0]}
    for metric in usable_metrics(rate)[0]:
        worse = np.diff(scores[metric.key]) * (1 if metric.better == "lower" else -1)
        assert np.all(worse > 0), (metric.key, scores[metric.key])


def test_the_log_mel_error_is_that_of_the_mel_a_vocoder_is_conditioned_with():
    """Same bands and floor; only the frames at the ends stand elsewhere."""
    sound = _voice()[:9600]
    made = _noisy(sound, 20)
    mel = log_mel(torch.from_numpy(np.stack([sound, made])), mel_spec(RATE)).double()
    expected = 5 * math.log(10) * float((mel[0] - mel[1]).abs().mean())
    assert _score("log_mel_error", sound, made) == pytest.approx(expected, rel=0.02)


def test_the_log_mel_error_equals_another_transform_of_the_same_frames():
    sound, made = _voice(), _noisy(_voice(), 15)
    spec = mel_spec(16000)
    spectra = torch.stft(
        torch.from_numpy(np.stack([sound, made])).double(),
        spec.n_fft,
        spec.hop_length,
        window=torch.hann_window(spec.n_fft, dtype=torch.float64),
        return_complex=True,
    ).abs()
    logs = (torch.from_numpy(mel_filters(spec)) @ spectra).clamp_min(MEL_FLOOR).log()
    expected = float((logs[0] - logs[1]).abs().mean())
    assert _score("log_mel_error", sound, made, 16000) == pytest.approx(expected, rel=1e-9)


def test_the_stft_distance_equals_another_transform_at_the_published_resolutions():
    sound, made = _voice(), _noisy(_voice(), 15)
    published = [Resolution(1024, 600, 120), Resolution(2048, 1200, 240), Resolution(512, 240, 50)]
    total = 0.0
    for n_fft, window, hop in published:
        real, ours = (
            torch.stft(
                torch.from_numpy(x).double(),
                n_fft,
                hop,
                window,
                torch.hann_window(window, dtype=torch.float64),
                return_complex=True,
            ).abs()
            for x in (sound, made)
        )
        total += float((real - ours).square().sum().sqrt() / real.square().sum().sqrt())
        logs = ours.clamp_min(STFT_FLOOR).log() - real.clamp_min(STFT_FLOOR).log()
        total += float(logs.abs().mean())
    pair = (sound.astype(np.float64), made.astype(np.float64))
    assert stft_distance(*pair, 24000, published) == pytest.approx(total / 3, rel=1e-9)


def test_windows_last_as_long_at_every_rate_and_are_the_published_ones_at_24_khz():
    sizes = [(r.n_fft, r.window, r.hop) for r in stft_resolutions(24000)]
    assert sizes == [(1024, 600, 120), (2048, 1200, 240), (512, 240, 48)]
    for rate in (8000, 11025, 16000, 22050):
        seconds = [r.window / rate for r in stft_resolutions(rate)]
        np.testing.assert_allclose(seconds, [0.025, 0.05, 0.01], rtol=0.005)
        assert all(r.n_fft >= r.window for r in stft_resolutions(rate))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100])
def test_every_mel_band_sees_a_frequency(rate):
    assert mel_filters(mel_spec(rate)).sum(1).min() > 0


def test_the_distortion_of_one_cosine_over_the_bands_is_its_effective_level_in_decibels():
    k = np.arange(40) + 0.5
    rows = np.stack([0.3 * np.cos(np.pi * d * k / 40) for d in (0, 1, 7, 13, 14)])
    decibels = 20 / math.log(10) * 0.3 / math.sqrt(2)
    np.testing.assert_allclose(
        _cepstral_distortion(rows), [0, decibels, decibels, decibels, 0], atol=1e-12
    )


def test_the_distortion_equals_the_sum_over_cosines_written_out():
    sound, made = _voice(), _noisy(_voice(), 10)
    spec = mel_spec(RATE)
    spectra = torch.stft(
        torch.from_numpy(np.stack([sound, made])).double(),
        spec.n_fft,
        spec.hop_length,
        window=torch.hann_window(spec.n_fft, dtype=torch.float64),
        return_complex=True,
    ).abs()
    filters = torch.from_numpy(mel_filters(spec))
    logs = (filters @ spectra).clamp_min(MEL_FLOOR).log().numpy()
    cosines = np.cos(np.pi * np.outer(np.arange(1, 14), np.arange(40) + 0.5) / 40)
    cepstra = 2 / 40 * np.einsum("dk,ikf->idf", cosines, logs)
    squares = ((cepstra[0] - cepstra[1]) ** 2).sum(0)
    expected = float((10 / math.log(10) * np.sqrt(2 * squares)).mean())
    assert _score("mel_cepstral_distortion", sound, made) == pytest.approx(expected, rel=1e-9)


def test_rounding_to_16_bits_hardly_moves_the_distances():
    """Else silence, which recordings hold and vocoders nearly do, would drown the speech."""
    sound = np.concatenate([_voice(), np.zeros(RATE, dtype=np.float32)])
    dither = np.random.default_rng(0).uniform(-1, 1, len(sound))
    rounded = (np.round(sound * 32767 + dither) / 32767).astype(np.float32)
    scores = compare_sounds([sound], [rounded], RATE, PLAIN)
    assert scores["log_mel_error"].mean() < 0.02
    assert scores["stft_distance"].mean() < 0.02
    assert scores["mel_cepstral_distortion"].mean() < 0.1


def test_stoi_is_the_librarys():
    pystoi = pytest.importorskip("pystoi", reason="needs fastdpm[speech]")
    sound, made = _voice(), _noisy(_voice(), 5)
    assert _score("stoi", sound, made) == pytest.approx(pystoi.stoi(sound, made, RATE), abs=1e-6)


@pytest.mark.parametrize(("rate", "mode"), [(8000, "nb"), (16000, "wb")])
def test_pesq_is_the_librarys(rate, mode):
    pesq = pytest.importorskip("pesq", reason=WITHOUT_PESQ)
    sound, made = _voice(rate=rate), _noisy(_voice(rate=rate), 15)
    expected = pesq.pesq(rate, sound, made, mode)
    assert 1 < expected < 4.5
    assert _score("pesq", sound, made, rate) == pytest.approx(expected, abs=1e-4)


def test_pairs_that_stoi_cannot_judge_are_left_out():
    sound, silence = _voice(), np.zeros(12000, dtype=np.float32)
    blip = silence.copy()
    blip[6000:7000] = sound[1000:2000]
    made = [_noisy(sound, 10), sound, _noisy(blip, 10), _noisy(sound, 0)]
    scores = compare_sounds([sound, silence, blip, sound], made, RATE, ["stoi"])["stoi"]
    assert np.isnan(scores).tolist() == [False, True, True, False]
    assert mean_score(scores).value == pytest.approx(np.mean(scores[[0, 3]]))
    assert 0.2 < scores[3] < scores[0] < 1


def test_pairs_that_pesq_cannot_judge_are_left_out():
    pytest.importorskip("pesq", reason=WITHOUT_PESQ)
    sound, silence = _voice(), np.zeros(12000, dtype=np.float32)
    short, long = _voice(0.2), _voice(PESQ_LIMIT_SECONDS + 0.1)
    real = [sound, silence, sound, silence, short, long, sound]
    made = [_noisy(sound, 20), sound, silence, silence, short, long, _noisy(sound, 10)]
    scores = compare_sounds(real, made, RATE, ["pesq"])["pesq"]
    assert np.isnan(scores).tolist() == [False, True, True, True, True, True, False]
    assert mean_score(scores).value == pytest.approx(np.mean(scores[[0, 6]]))


@pytest.mark.parametrize("period", [0.38, 0.4, 0.42])
def test_the_longest_sound_that_pesq_takes_does_not_crash_it(period):
    """As many utterances as fit: a crash would end the process, so another one measures."""
    pytest.importorskip("pesq", reason=WITHOUT_PESQ)
    program = f"""
import numpy as np
from fastdpm.evaluation.speech import compare_sounds
t = np.arange(int({PESQ_LIMIT_SECONDS} * 8000)) / 8000
noise = np.random.default_rng(0).standard_normal(len(t))
x = (0.2 * noise * (t % {period} < 0.45 * {period})).clip(-1, 1)
print(compare_sounds([x], [0.9 * x], 8000, ["pesq"])["pesq"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_silent_recording_has_no_stft_distance():
    silence = np.zeros(RATE, dtype=np.float32)
    made = _noisy(_voice(1.0), 20)
    assert math.isnan(_score("stft_distance", silence, made))
    assert math.isfinite(_score("log_mel_error", silence, made))


def test_mean_and_standard_error_are_over_the_pairs_that_have_a_value():
    score = mean_score(np.array([1.0, math.nan, 2.0, 6.0]))
    assert score.value == 3.0
    assert score.error == pytest.approx(math.sqrt(7 / 3))
    none = mean_score(np.array([math.nan, math.nan]))
    assert math.isnan(none.value)
    assert math.isnan(none.error)
    assert math.isnan(mean_score(np.array([1.0])).error)


def test_pairs_of_different_lengths_score_as_they_would_alone():
    real = [_voice(0.5), _voice(1.1, pitch=200.0), _voice(0.7, pitch=90.0)]
    made = [_noisy(sound, 10, seed) for seed, sound in enumerate(real)]
    together = compare_sounds(real, made, RATE)
    for i in range(3):
        for key, alone in compare_sounds(real[i : i + 1], made[i : i + 1], RATE).items():
            assert together[key][i] == alone[0]


def test_an_array_is_its_rows():
    real = np.stack([_voice(pitch=p) for p in (100.0, 180.0)])
    made = np.stack([_noisy(row, 20) for row in real])
    array = compare_sounds(real, made, RATE, PLAIN)
    rows = compare_sounds(list(real), list(made), RATE, PLAIN)
    for key in PLAIN:
        np.testing.assert_array_equal(array[key], rows[key])


def test_level_and_time_are_not_made_equal():
    sound = _voice()
    assert _score("log_mel_error", sound, 0.5 * sound) > 0.6
    later = np.roll(sound, RATE // 8)
    for key in PLAIN:
        assert _score(key, sound, later) > 2 * _score(key, sound, _noisy(sound, 40))


@pytest.mark.parametrize(
    ("change", "error", "values"),
    [
        ({"made": []}, InvalidArgumentError, ["1 recordings", "0 generated"]),
        ({"real": [], "made": []}, InvalidArgumentError, ["0 recordings", "0 generated"]),
        ({"made": [np.zeros(7999)]}, InvalidArgumentError, ["recording 0", 8000, 7999]),
        (
            {"real": [np.zeros(500)], "made": [np.zeros(500)]},
            InvalidArgumentError,
            ["recording 0", 500, 513, "8000 Hz"],
        ),
        ({"made": [np.full(8000, np.nan)]}, DataError, ["generated sound 0"]),
        ({"real": [np.full(8000, np.inf)]}, DataError, ["recording 0"]),
        ({"made": [np.full(8000, 1.2)]}, DataError, ["generated sound 0", 1.2, "[-1, 1]"]),
        (
            {"made": [np.zeros((1, 8000))]},
            InvalidArgumentError,
            ["generated sound 0", "(1, 8000)"],
        ),
        (
            {"made": [np.zeros(8000, dtype=np.int16)]},
            InvalidArgumentError,
            ["generated sound 0", "int16"],
        ),
        ({"rate": 4000}, InvalidArgumentError, ["sample_rate", LEAST_RATE, 4000]),
        ({"rate": 8000.5}, InvalidArgumentError, ["sample_rate", 8000.5]),
        ({"metrics": ["mos"]}, InvalidArgumentError, ["metric", "log_mel_error", "stoi", "mos"]),
        ({"metrics": []}, InvalidArgumentError, ["log_mel_error", "stoi"]),
        (
            {"metrics": ["pesq"], "rate": 22050},
            InvalidArgumentError,
            ["pesq", 8000, "16000 Hz", 22050],
        ),
    ],
)
def test_what_makes_no_pairs_is_refused_in_one_line(change, error, values):
    sound = np.zeros(8000, dtype=np.float32)
    arguments = {"real": [sound], "made": [sound], "rate": RATE, "metrics": PLAIN} | change
    with pytest.raises(error, match=tells(*values)) as caught:
        compare_sounds(
            arguments["real"], arguments["made"], arguments["rate"], arguments["metrics"]
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("key", "library"), [("pesq", "pesq"), ("stoi", "pystoi")])
def test_a_missing_library_is_named_or_its_metric_left_out(monkeypatch, key, library):
    monkeypatch.setitem(sys.modules, library, None)
    sound = _voice()
    with pytest.raises(MissingExtraError, match=tells(library, "fastdpm[speech]")):
        compare_sounds([sound], [sound], RATE, [key])
    usable, reasons = usable_metrics(RATE)
    assert key not in {metric.key for metric in usable}
    assert any(re.search(tells(key.upper(), "fastdpm[speech]"), line) for line in reasons)
    assert key not in compare_sounds([sound], [sound], RATE)


def test_a_metric_that_does_not_take_the_rate_is_left_out_and_says_so():
    usable, reasons = usable_metrics(22050)
    assert "pesq" not in {metric.key for metric in usable}
    assert "pesq takes 8000 or 16000 Hz, not 22050: it is left out" in reasons


def test_the_table_names_every_metric_once_with_its_direction():
    assert len({m.key for m in SPEECH_METRICS}) == len({m.name for m in SPEECH_METRICS}) == 5
    assert {m.key for m in SPEECH_METRICS if m.better == "higher"} == {"pesq", "stoi"}
    assert {m.library for m in SPEECH_METRICS} == {None, "pesq", "pystoi"}
