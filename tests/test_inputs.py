"""What a user gives to a model is read as its data, or refused with what was found."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.inputs import conditions_for, read_all, read_samples
from fastdpm.models.config import DataSpec
from tests.conftest import IMAGE, SOUND, VOCODER

GREY, SPEECH, MEL_SPEECH = IMAGE.data, SOUND.data, VOCODER.data
COLOUR = DataSpec("image", (3, 8, 8))


def _write(path: Path, pixels) -> Path:
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


def _speak(path: Path, samples: int = 512, rate: int = 8000, scale: float = 0.5) -> Path:
    sound = scale * np.sin(np.arange(samples) * 2 * np.pi * 400 / rate)
    soundfile.write(path, sound, rate, subtype="FLOAT")
    return path


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 8))


def test_pixels_become_data_by_one_rule(tmp_path, pixels):
    names, x, _ = read_samples(_write(tmp_path / "a.png", pixels), GREY)
    assert names == [str(tmp_path / "a.png")]
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[0, 0].numpy(), pixels / 127.5 - 1, atol=1e-7)


def test_a_folder_and_an_archive_are_read_in_order(tmp_path, pixels):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(("b.png", "a.png", "c.png")):
        _write(folder / name, np.full((8, 8), 10 * i))
    (folder / "notes.txt").write_text("no image")
    names, x, _ = read_samples(folder, GREY)
    assert [Path(name).name for name in names] == ["a.png", "b.png", "c.png"]
    assert ((x[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [10, 0, 20]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("b.png", "a.png", "c.png"):
            archive.write(folder / name, name)
    torch.testing.assert_close(read_samples(tmp_path / "in.zip", GREY)[1], x)
    torch.testing.assert_close(read_samples(folder, GREY, n=2)[1], x[:2])
    names, both, _ = read_all([folder, folder / "b.png"], GREY)
    torch.testing.assert_close(both, torch.cat([x, x[1:2]]))
    assert len(read_all([folder, folder / "b.png"], GREY, n=3)[0]) == 3


def test_an_image_of_another_size_is_refused_unless_it_is_to_be_resized(tmp_path):
    left = np.zeros((20, 40))
    left[:, 20:] = 255
    path = _write(tmp_path / "wide.png", left)
    with pytest.raises(DataError, match=r"40 x 20 grey, the model's images are 8 x 8 grey.*--res"):
        read_samples(path, GREY)
    _, x, _ = read_samples(path, GREY, resize=True)
    assert x.shape == (1, 1, 8, 8)
    assert x[0, 0, :, 0].max() < -0.8
    assert x[0, 0, :, -1].min() > 0.8
    assert x.abs().max() <= 1


def test_colours_are_dropped_only_when_asked_and_grey_becomes_rgb(tmp_path, pixels):
    red = np.zeros((8, 8, 3))
    red[..., 0] = 255
    path = _write(tmp_path / "red.png", red)
    with pytest.raises(DataError, match="8 x 8 RGB, the model's images are 8 x 8 grey"):
        read_samples(path, GREY)
    grey = read_samples(path, GREY, resize=True)[1]
    assert grey.unique().numel() == 1
    _, x, _ = read_samples(_write(tmp_path / "grey.png", pixels), COLOUR)
    torch.testing.assert_close(x[:, 0], x[:, 2])


def test_sounds_are_scaled_to_the_peak_of_the_training_but_samples_are_not(tmp_path):
    scaled = replace(SPEECH, peak=0.9)
    path = _speak(tmp_path / "000000.wav")
    assert read_samples(path, SPEECH)[1].abs().max() == pytest.approx(0.5, abs=1e-3)
    assert read_samples(path, scaled)[1].abs().max() == pytest.approx(0.9, abs=1e-6)
    (tmp_path / "samples.json").write_text('{"files": ["000000.wav"]}')
    for own in (path, tmp_path):
        assert read_samples(own, scaled)[1].abs().max() == pytest.approx(0.5, abs=1e-3)


def test_the_gain_brings_a_sound_back_to_the_level_of_its_file(tmp_path):
    scaled = replace(SPEECH, peak=0.9)
    for name, scale in (("000000.wav", 0.5), ("000001.wav", 0.2)):
        _speak(tmp_path / name, scale=scale)
    paths = sorted(tmp_path.glob("*.wav"))
    files = torch.tensor(np.stack([soundfile.read(path)[0] for path in paths]))
    for samples in (read_samples(tmp_path, scaled), read_all(paths, scaled)):
        assert samples.gain.dtype == torch.float64
        torch.testing.assert_close(
            samples.x[:, 0] * samples.gain[:, None], files, atol=1e-6, rtol=0
        )
    assert read_samples(tmp_path, SPEECH).gain.tolist() == [1, 1]
    record = {"files": [path.name for path in paths]}
    for own, peaks in ((record, [0.5, 0.2]), (record | {"gain": [0.5, 0.2]}, [0.9, 0.9])):
        (tmp_path / "samples.json").write_text(json.dumps(own))
        samples = read_samples(tmp_path, scaled)
        assert samples.x.abs().amax((1, 2)).tolist() == pytest.approx(peaks, abs=1e-3)
        torch.testing.assert_close(
            samples.x[:, 0] * samples.gain[:, None], files, atol=1e-6, rtol=0
        )


def test_images_have_a_gain_of_one(tmp_path, pixels):
    assert read_samples(_write(tmp_path / "a.png", pixels), GREY).gain.tolist() == [1]
    assert read_samples(Path("sklearn:digits-test"), GREY, n=2).gain.tolist() == [1, 1]


def test_a_sound_of_another_length_is_centred_when_asked(tmp_path):
    short = _speak(tmp_path / "short.wav", 500)
    with pytest.raises(DataError, match=r"has 500 samples, the model's sounds have 512.*--resize"):
        read_samples(short, SPEECH)
    _, x, _ = read_samples(short, SPEECH, resize=True)
    whole = torch.from_numpy(soundfile.read(short, dtype="float32")[0])
    torch.testing.assert_close(x[0, 0, 6:506], whole)
    assert x[0, 0, :6].abs().max() == x[0, 0, 506:].abs().max() == 0
    long = _speak(tmp_path / "long.wav", 603)
    _, cut, _ = read_samples(long, SPEECH, resize=True)
    whole = torch.from_numpy(soundfile.read(long, dtype="float32")[0])
    torch.testing.assert_close(cut[0, 0], whole[45:557])


def test_a_sound_of_another_rate_is_resampled_when_asked(tmp_path):
    path = _speak(tmp_path / "fast.wav", 1024, 16000)
    with pytest.raises(DataError, match=r"16000 Hz, the model's sounds at 8000 Hz.*--resample"):
        read_samples(path, SPEECH)
    _, x, _ = read_samples(path, SPEECH, resample=True)
    wanted = 0.5 * np.sin(np.arange(512) * 2 * np.pi * 400 / 8000)
    np.testing.assert_allclose(x[0, 0, 20:-20], wanted[20:-20], atol=0.01)


def test_sounds_of_a_vocoder_are_padded_to_whole_frames_and_share_a_length(tmp_path):
    path = _speak(tmp_path / "a.wav", 1001)
    _, x, _ = read_samples(path, MEL_SPEECH)
    assert x.shape == (1, 1, 1008)
    _speak(tmp_path / "b.wav", 900)
    with pytest.raises(DataError, match=r"a\.wav has 1008 samples.*b\.wav 912.*one by one"):
        read_samples(tmp_path, MEL_SPEECH)
    with pytest.raises(DataError, match="has 1008 samples"):
        read_all([path, tmp_path / "b.wav"], MEL_SPEECH)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (np.full(512, np.nan), "not finite"),
        (np.full(512, 1.5), "outside"),
        (np.zeros((512, 2)), "mono"),
    ],
)
def test_sounds_that_are_no_data_are_refused(tmp_path, data, wanted):
    soundfile.write(tmp_path / "a.wav", data, 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=wanted):
        read_samples(tmp_path / "a.wav", SPEECH)


def test_what_is_no_data_at_all_is_refused_in_one_line(tmp_path):
    with pytest.raises(InvalidArgumentError, match=r"no input at .*: give an image"):
        read_samples(tmp_path / "none.png", GREY)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match="not a whole image"):
        read_samples(tmp_path / "broken.png", GREY, resize=True)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(DataError, match="not a whole sound file"):
        read_samples(tmp_path / "broken.wav", SPEECH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        read_samples(tmp_path / "empty", GREY)
    with pytest.raises(InvalidArgumentError, match="series are not read"):
        read_samples(tmp_path, DataSpec("series", (2, 16)))
    with pytest.raises(InvalidArgumentError, match="no input"):
        read_all([], GREY)


def test_samples_are_encoded_for_what_they_are_or_what_is_stated(tmp_path):
    sounds = read_samples(_speak(tmp_path / "a.wav", 640), MEL_SPEECH)[1]
    own = conditions_for(sounds, MEL_SPEECH, None)
    assert own is not None
    assert own.shape == (1, 8, 40)
    assert conditions_for(sounds, MEL_SPEECH, own) is own
    with pytest.raises(InvalidArgumentError, match="39 frames"):
        conditions_for(sounds, MEL_SPEECH, own[..., :39])
    x = torch.zeros(3, 1, 8, 8)
    assert conditions_for(x, GREY, None) is None
    classes = replace(GREY, classes=4)
    with pytest.raises(InvalidArgumentError, match="has classes: say of which"):
        conditions_for(x, classes, None)
    with pytest.raises(InvalidArgumentError, match=r"3 samples need one condition .* got 2"):
        conditions_for(x, classes, torch.tensor([1, 2]))
    assert conditions_for(x, classes, torch.tensor([1])) is not None
