"""Conversion of file values to data and back, and the record of a folder of samples."""

import json

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError
from fastdpm.data.pixels import from_pixels, to_pixels
from fastdpm.data.record import SampleRecord, read_record
from fastdpm.data.sound import from_pcm, to_pcm
from fastdpm.data.spec import DataSpec
from tests.messages import tells


def test_every_pixel_and_every_16_bit_value_comes_back():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    pcm = np.arange(-(2**15), 2**15).astype(np.int16)
    np.testing.assert_array_equal(to_pixels(from_pixels(pixels.transpose(0, 3, 1, 2))), pixels)
    np.testing.assert_array_equal(to_pcm(from_pcm(pcm).numpy()), pcm)


def test_values_beyond_a_file_are_cut_and_others_rounded_to_the_nearest():
    sound = np.array([1.5, 1.0, -1.0, -7.0, 0.6 / 2**15, -0.6 / 2**15], dtype=np.float32)
    assert to_pcm(sound).tolist() == [32767, 32767, -32768, -32768, 1, -1]
    images = torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0]).reshape(1, 1, 1, 5)
    assert to_pixels(images).ravel().tolist() == [0, 0, 128, 255, 255]


def test_a_record_survives_its_file(tmp_path):
    assert read_record(tmp_path) is None
    record = SampleRecord(["000001.wav"], None, {"seed": 3, "n": 1}, [0.5])
    record.write(tmp_path)
    assert read_record(tmp_path) == record
    body = json.loads((tmp_path / "samples.json").read_text())
    keys = ["format", "complete", "seed", "n", "gain", "files", "picture"]
    assert list(body) == keys
    assert body["complete"] is False


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "{}", '{"files": 3}', '{"files": [3]}'],
)
def test_what_is_no_record_is_refused(tmp_path, body):
    (tmp_path / "samples.json").write_text(body)
    with pytest.raises(DataError, match=tells("samples.json")):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        ({"modality": "image", "shape": (3, 10**30, 8)}, "shape", 10**30),
        ({"modality": "audio", "shape": (1, 8), "sample_rate": 10**400}, "sample_rate", 10**400),
        ({"modality": "image", "shape": (3, 8, 8), "classes": 10**30}, "classes", 10**30),
    ],
)
def test_absurd_sizes_are_refused_in_one_line(arguments, name, value):
    shown = value if name == "shape" else f"{value:,}"
    with pytest.raises(InvalidArgumentError, match=tells(name, "too large", shown)) as caught:
        DataSpec(**arguments)
    assert "\n" not in str(caught.value)
