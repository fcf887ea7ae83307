"""Inputs are read as the model's data, or refused with a message that names the difference."""

import io
import json
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image, ImageOps

from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.data.inputs import read_samples
from fastdpm.data.spec import DataSpec
from tests.conftest import IMAGE, SOUND, VOCODER
from tests.messages import tells

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
    names, x, *_ = read_samples(_write(tmp_path / "a.png", pixels), GREY)
    assert names == [str(tmp_path / "a.png")]
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[0, 0].numpy(), pixels / 127.5 - 1, atol=1e-7)


def test_a_folder_and_an_archive_are_read_in_order(tmp_path, pixels):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, name in enumerate(("b.png", "a.png", "c.png")):
        _write(folder / name, np.full((8, 8), 10 * i))
    (folder / "notes.txt").write_text("no image")
    names, x, *_ = read_samples(folder, GREY)
    assert [Path(name).name for name in names] == ["a.png", "b.png", "c.png"]
    assert ((x[:, 0, 0, 0] + 1) * 127.5).round().tolist() == [10, 0, 20]
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in ("b.png", "a.png", "c.png"):
            archive.write(folder / name, name)
    torch.testing.assert_close(read_samples(tmp_path / "in.zip", GREY)[1], x)
    torch.testing.assert_close(read_samples(folder, GREY, n=2)[1], x[:2])
    names, both, *_ = read_samples([folder, folder / "b.png"], GREY)
    torch.testing.assert_close(both, torch.cat([x, x[1:2]]))
    assert len(read_samples([folder, folder / "b.png"], GREY, n=3)[0]) == 3


def test_an_image_of_another_size_is_refused_unless_it_is_to_be_resized(tmp_path):
    left = np.zeros((20, 40))
    left[:, 20:] = 255
    path = _write(tmp_path / "wide.png", left)
    with pytest.raises(DataError, match=tells("wide.png", "40 x 20", "8 x 8", "`resize`")):
        read_samples(path, GREY)
    x = read_samples(path, GREY, resize=True).x
    assert x.shape == (1, 1, 8, 8)
    assert x[0, 0, :, 0].max() < -0.8
    assert x[0, 0, :, -1].min() > 0.8
    assert x.abs().max() <= 1


def test_colors_are_dropped_only_with_resize_and_gray_becomes_rgb(tmp_path, pixels):
    red = np.zeros((8, 8, 3))
    red[..., 0] = 255
    path = _write(tmp_path / "red.png", red)
    with pytest.raises(DataError, match=tells("red.png", "8 x 8 RGB", "8 x 8 gray", "`resize`")):
        read_samples(path, GREY)
    grey = read_samples(path, GREY, resize=True)[1]
    assert grey.unique().numel() == 1
    x = read_samples(_write(tmp_path / "grey.png", pixels), COLOUR).x
    torch.testing.assert_close(x[:, 0], x[:, 2])


def _png_of_16_bits(pixels: np.ndarray) -> bytes:
    """An RGB file of 16 bits a channel, which Pillow reads but does not write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        end = zlib.crc32(name + body).to_bytes(4, "big")
        return len(body).to_bytes(4, "big") + name + body + end

    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("data", [GREY, COLOUR])
def test_an_image_that_would_lose_something_is_refused_by_what_it_is(tmp_path, data, resize):
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    rgb = Image.merge("RGB", [grey, grey, grey])
    wide = np.full((8, 8), 60000, dtype=np.uint16)
    palette = rgb.quantize(8)
    cases = [
        (_encoded(Image.fromarray(wide)), ["16-bit gray", "8-bit"]),
        (_png_of_16_bits(np.stack([wide] * 3, axis=-1)), ["16-bit RGB", "8-bit"]),
        (_encoded(Image.fromarray(wide), "TIFF"), ["16-bit gray", "8-bit"]),
        (_encoded(grey.convert("F"), "TIFF"), ["32-bit float", "8-bit"]),
        (_encoded(grey.convert("I"), "TIFF"), ["32-bit gray", "8-bit"]),
        (_encoded(rgb.convert("CMYK"), "JPEG"), ["CMYK", "8-bit"]),
        (_encoded(grey.convert("LA")), ["gray", "transparency"]),
        (_encoded(rgb.convert("RGBA")), ["RGB", "transparency"]),
        (_encoded(palette, transparency=0), ["palette", "transparency"]),
        (_encoded(palette, transparency=bytes([0, 99, 255])), ["palette", "transparency"]),
        (_encoded(grey, transparency=0), ["gray", "transparency"]),
        (_encoded(rgb, transparency=(0, 0, 0)), ["RGB", "transparency"]),
    ]
    for encoded, values in cases:
        (tmp_path / "a.png").write_bytes(encoded)
        with pytest.raises(DataError, match=tells("a.png", *values)) as caught:
            read_samples(tmp_path / "a.png", data, resize=resize)
        assert "\n" not in str(caught.value)


def test_a_palette_is_read_as_rgb_or_as_gray_if_all_its_colors_are_gray(tmp_path, pixels):
    grey = Image.fromarray(pixels.astype(np.uint8) // 8 * 8)
    grey.convert("RGB").quantize(256).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as image:
        assert image.mode == "P"
    x = read_samples(tmp_path / "grey.png", GREY).x
    np.testing.assert_allclose(x[0, 0].numpy(), np.asarray(grey) / 127.5 - 1, atol=1e-7)
    torch.testing.assert_close(read_samples(tmp_path / "grey.png", COLOUR).x, x.expand(1, 3, 8, 8))
    bands = np.repeat([[255, 0, 0], [0, 128, 255]], 32, axis=0).reshape(8, 8, 3)
    Image.fromarray(bands.astype(np.uint8)).quantize(2).save(tmp_path / "colour.png")
    x = read_samples(tmp_path / "colour.png", COLOUR).x
    np.testing.assert_allclose(x[0].numpy(), bands.transpose(2, 0, 1) / 127.5 - 1, atol=1e-7)
    with pytest.raises(DataError, match=tells("colour.png", "8 x 8 RGB", "8 x 8 gray")):
        read_samples(tmp_path / "colour.png", GREY)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_photo_is_read_as_its_exif_orientation_turns_it(tmp_path, kind, orientation):
    photo = Image.fromarray(np.add.outer(np.arange(4) * 60, np.arange(8) * 8).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{kind.lower()}"
    encoded = _encoded(photo, kind, **{"tiffinfo" if kind == "TIFF" else "exif": exif})
    path.write_bytes(encoded)
    with Image.open(io.BytesIO(encoded)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape == ((8, 4) if 5 <= orientation <= 8 else (4, 8))
    x = read_samples(path, DataSpec("image", (1, *expected.shape))).x
    np.testing.assert_allclose(x[0, 0].numpy(), expected / 127.5 - 1, atol=1e-7)
    size = f"{expected.shape[1]} x {expected.shape[0]}"
    with pytest.raises(DataError, match=tells(path, size, "8 x 8")):
        read_samples(path, GREY)
    fitted = ImageOps.fit(Image.fromarray(expected), (8, 8), Image.Resampling.LANCZOS)
    x = read_samples(path, GREY, resize=True).x
    np.testing.assert_allclose(x[0, 0].numpy(), np.asarray(fitted) / 127.5 - 1, atol=1e-7)


def test_damaged_exif_does_not_keep_an_image_from_being_read(tmp_path, pixels):
    exif = Image.Exif()
    exif[274] = 6
    encoded = _encoded(Image.fromarray(pixels.astype(np.uint8)), exif=exif)
    header = exif.tobytes()[6:14]  # byte order and the place of the tags, behind "Exif"
    assert header in encoded
    for damage in (b"MMMMMMMM", header[:4] + b"\xff" * 4):
        body = encoded.replace(header, damage)
        start = body.index(b"eXIf")
        end = start + 4 + int.from_bytes(body[start - 4 : start], "big")
        checked = body[:end] + zlib.crc32(body[start:end]).to_bytes(4, "big") + body[end + 4 :]
        (tmp_path / "a.png").write_bytes(checked)
        x = read_samples(tmp_path / "a.png", GREY).x
        np.testing.assert_allclose(x[0, 0].numpy(), pixels / 127.5 - 1, atol=1e-7)


def test_images_are_not_resampled(tmp_path, pixels):
    for path in (_write(tmp_path / "a.png", pixels), Path("sklearn:digits-test")):
        with pytest.raises(InvalidArgumentError, match=tells("`resample`")):
            read_samples(path, GREY, resample=True)


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
    for samples in (read_samples(tmp_path, scaled), read_samples(paths, scaled)):
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


def test_a_sound_of_another_length_is_centered_with_resize(tmp_path):
    short = _speak(tmp_path / "short.wav", 500)
    with pytest.raises(DataError, match=tells("short.wav", 500, 512, "`resize`")):
        read_samples(short, SPEECH)
    x = read_samples(short, SPEECH, resize=True).x
    whole = torch.from_numpy(soundfile.read(short, dtype="float32")[0])
    torch.testing.assert_close(x[0, 0, 6:506], whole)
    assert x[0, 0, :6].abs().max() == x[0, 0, 506:].abs().max() == 0
    long = _speak(tmp_path / "long.wav", 603)
    cut = read_samples(long, SPEECH, resize=True).x
    whole = torch.from_numpy(soundfile.read(long, dtype="float32")[0])
    torch.testing.assert_close(cut[0, 0], whole[45:557])


def test_a_sound_of_another_rate_is_resampled_with_resample(tmp_path):
    path = _speak(tmp_path / "fast.wav", 1024, 16000)
    with pytest.raises(DataError, match=tells("fast.wav", "16000 Hz", "8000 Hz", "`resample`")):
        read_samples(path, SPEECH)
    x = read_samples(path, SPEECH, resample=True).x
    expected = 0.5 * np.sin(np.arange(512) * 2 * np.pi * 400 / 8000)
    np.testing.assert_allclose(x[0, 0, 20:-20], expected[20:-20], atol=0.01)


def test_sounds_of_a_vocoder_are_padded_to_whole_frames_and_share_a_length(tmp_path):
    path = _speak(tmp_path / "a.wav", 1001)
    x = read_samples(path, MEL_SPEECH).x
    assert x.shape == (1, 1, 1008)
    _speak(tmp_path / "b.wav", 900)
    with pytest.raises(DataError, match=tells("a.wav", 1008, "b.wav", 912, "`resize`")):
        read_samples(tmp_path, MEL_SPEECH)
    with pytest.raises(DataError, match=tells("a.wav", 1008, "b.wav", 912)):
        read_samples([path, tmp_path / "b.wav"], MEL_SPEECH)


@pytest.mark.parametrize(("peak", "rate"), [(None, 8000), (0.9, 8000), (None, 44100)])
def test_sounds_that_are_no_data_are_refused_each_in_its_own_line(tmp_path, peak, rate):
    broken = np.zeros(512)
    broken[5:8] = np.nan, np.inf, -np.inf
    cases: list[tuple[np.ndarray, list[object]]] = [
        (np.zeros((512, 2)), [2]),
        (np.zeros(0), []),
        (broken, ["3 of 512"]),
    ]
    if peak is None:
        cases.append((np.full(512, 1.5), [1.5, "[-1, 1]"]))
    else:
        cases.append((np.zeros(512), [0.9]))
    for sound, values in cases:
        soundfile.write(tmp_path / "a.wav", sound, rate, subtype="FLOAT")
        with pytest.raises(DataError, match=tells("a.wav", *values)) as caught:
            read_samples(tmp_path / "a.wav", replace(SPEECH, peak=peak), resample=True)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AIFF", "FLAC"])
def test_a_sound_that_is_cut_off_is_refused_and_not_taken_short(tmp_path, kind):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 2000)
    path = tmp_path / "a.wav"
    soundfile.write(path, sound, 8000, format=kind, subtype="PCM_16")
    whole = path.read_bytes()
    assert read_samples(path, SPEECH, resize=True).x.shape == (1, 1, 512)
    for cut in (len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=tells("a.wav")):
            read_samples(path, SPEECH, resize=True)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF024])
def test_a_sound_whose_header_leaves_its_length_open_is_read(tmp_path, length):
    path = _speak(tmp_path / "a.wav")
    whole = path.read_bytes()
    place = whole.index(b"data") + 4
    path.write_bytes(whole[:place] + length.to_bytes(4, "little") + whole[place + 4 :])
    assert read_samples(path, SPEECH).x.abs().max() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_resampling_a_loud_sound_does_not_push_it_out_of_range(tmp_path, rate):
    square = np.sign(np.sin(np.arange(rate // 5) * 2 * np.pi * 400 / rate + 0.1))
    soundfile.write(tmp_path / "a.wav", square, rate, subtype="FLOAT")
    x = read_samples(tmp_path / "a.wav", SPEECH, resample=True, resize=True).x
    assert 0.99 < x.abs().max() <= 1
    scaled = read_samples(
        tmp_path / "a.wav", replace(SPEECH, peak=0.9), resample=True, resize=True
    )
    assert float(scaled.gain) == pytest.approx(1 / 0.9, rel=1e-6)
    torch.testing.assert_close(scaled.x / 0.9, x)


def test_what_is_no_data_at_all_is_refused_in_one_line(tmp_path):
    with pytest.raises(InvalidArgumentError, match=tells("none.png")):
        read_samples(tmp_path / "none.png", GREY)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match=tells("broken.png")):
        read_samples(tmp_path / "broken.png", GREY, resize=True)
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    with pytest.raises(DataError, match=tells("broken.wav", "Format not recognised")):
        read_samples(tmp_path / "broken.wav", SPEECH)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=tells("empty", ".png", ".jpg")):
        read_samples(tmp_path / "empty", GREY)
    with pytest.raises(InvalidArgumentError, match=tells("series")):
        read_samples(tmp_path, DataSpec("series", (2, 16)))
    with pytest.raises(InvalidArgumentError):
        read_samples([], GREY)
