"""Arrays of samples are read by every command alike, and never misread."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError, evaluate
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.arrays import LabeledArray, fit_array, in_unit_range, read_array
from fastdpm.data.inputs import read_samples
from fastdpm.data.spec import DataSpec
from fastdpm.inverse.latents_file import read_latents
from fastdpm.training.data import load_training_data
from tests import hostile as h
from tests.conftest import IMAGE, SOUND, VOCODER
from tests.messages import tells

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
SIGNED = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32)
COLOR = DataSpec("image", (3, 8, 8))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["u1", "<f4", ">f4", "<f8", "<f2"])
def test_numpy_files_are_read_as_numpy_wrote_them(tmp_path, order, kind):
    values = np.asarray(PIXELS[..., 0].astype(kind), order=order)
    np.save(tmp_path / "x.npy", values)
    np.savez_compressed(tmp_path / "x.npz", values)
    for name in ("x.npy", "x.npz"):
        found = read_array(tmp_path / name)
        np.testing.assert_array_equal(found, values)
        assert found.dtype == values.dtype


def test_channels_are_found_first_or_last():
    color = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    for values, data in ((PIXELS, IMAGE.data), (color, COLOR), (SIGNED, IMAGE.data)):
        first = fit_array(LabeledArray("x", values.transpose(0, 3, 1, 2)), data)
        np.testing.assert_array_equal(fit_array(LabeledArray("x", values), data), first)
        assert first.shape[1:] == data.shape


def test_values_from_0_to_1_are_refused_but_bright_pixels_are_not(folders):
    bright = (PIXELS // 2 + 128) / 127.5 - 1
    assert bright.min() >= 0
    assert not in_unit_range(torch.from_numpy(bright).float())
    assert in_unit_range(PIXELS / 255)
    for name in ("encode", "edit"):
        x = torch.from_numpy(PIXELS / 255).float().permute(0, 3, 1, 2)
        with pytest.raises(InvalidArgumentError, match=tells("[0, 1]", "[-1, 1]", "2 * x - 1")):
            _python(name)(folders["image"], x)


def _python(name: str):
    import fastdpm
    from fastdpm import load_model

    if name == "edit":
        return lambda folder, x: fastdpm.edit(load_model(folder), x)
    from fastdpm import levels_step
    from fastdpm.inverse.encoding import encode

    def call(folder: Path, x: torch.Tensor):
        model = load_model(folder)
        return encode(model, x, levels_step(model.schedule, 3))

    return call


def test_arrays_are_inputs_of_a_model(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    names, x, *_ = read_samples(tmp_path / "x.npy", IMAGE.data, n=3)
    assert [Path(name).name for name in names] == ["x.npy:0", "x.npy:1", "x.npy:2"]
    np.testing.assert_allclose(x.numpy()[..., None][:, 0], PIXELS[:3] / 127.5 - 1, atol=1e-7)
    np.savez(tmp_path / "f.NPZ.npz", SIGNED)
    found = read_samples(tmp_path / "f.NPZ.npz", IMAGE.data).x
    np.testing.assert_array_equal(found[:, 0].numpy(), SIGNED[..., 0])
    np.save(tmp_path / "big.npy", np.full((2, 16, 12, 3), 51, dtype=np.uint8))
    fitted = read_samples(tmp_path / "big.npy", IMAGE.data, resize=True).x
    assert fitted.shape == (2, 1, 8, 8)
    assert fitted.unique().tolist() == pytest.approx([51 / 127.5 - 1])


def test_a_folder_of_one_array_is_encoded_and_trained_on_like_one_of_files(folders, tmp_path):
    image = str(folders["image"])
    for kind in ("png", "npz"):
        out = str(tmp_path / kind)
        assert fastdpm(["sample", image, "-n", "3", "--format", kind, "--out", out]) == 0
        file = str(tmp_path / f"{kind}.safetensors")
        assert fastdpm(["encode", image, out, "-S", "2", "--out", file]) == 0
    latents = [read_latents(tmp_path / f"{k}.safetensors").latents.x for k in ("png", "npz")]
    torch.testing.assert_close(*latents)
    values = [load_training_data(str(tmp_path / k), IMAGE.data).values for k in ("png", "npz")]
    torch.testing.assert_close(*values)


def test_a_folder_of_an_array_of_sounds_keeps_its_level_and_states_its_rate(tmp_path):
    sounds = np.random.default_rng(0).uniform(-0.5, 0.5, (3, 512)).astype(np.float32)
    h.array_run(8000, sounds)(tmp_path / "x")
    peak = replace(SOUND.data, peak=0.9)
    samples = read_samples(tmp_path / "x", peak)
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), sounds)
    assert samples.gain.tolist() == [1, 1, 1]
    rows = load_training_data(str(tmp_path / "x"), peak)
    assert rows.lengths is not None
    assert rows.lengths.tolist() == [512] * 3
    fast = replace(SOUND.data, sample_rate=16000)
    with pytest.raises(DataError, match=tells("x:0", "8000 Hz", "16000 Hz", "`resample`")):
        read_samples(tmp_path / "x", fast)
    assert read_samples(tmp_path / "x", fast, resample=True, resize=True).x.shape == (3, 1, 512)
    assert read_samples(tmp_path / "x", VOCODER.data).x.shape == (3, 1, 512)


def test_an_array_of_sounds_finds_its_feature_network_by_the_rate_of_the_record(tmp_path):
    generator = np.random.default_rng(0)
    sounds = (generator.uniform(-0.5, 0.5, (20, 8192)) * 2**15).round().astype(np.float32) / 2**15
    h.array_run(8000, sounds)(tmp_path / "x")
    files = {f"{i:02d}.wav": h.sound(sound) for i, sound in enumerate(sounds)}
    h.folder(files)(tmp_path / "y")
    found = [evaluate(str(tmp_path / name)) for name in "xy"]
    assert found[0].network == found[1].network
    assert found[0].scores == found[1].scores
    with pytest.raises(InvalidArgumentError, match=tells("`features`", "(20, 8192)")):
        evaluate(sounds)


def test_labels_of_a_record_are_those_of_its_samples(tmp_path):
    h.record(labels=[3, 1])(tmp_path / "x")
    labels = load_training_data(str(tmp_path / "x"), IMAGE.data).labels
    assert labels is not None
    assert labels.tolist() == [3, 1]
    h.array_run(None, PIXELS, labels=[3, 1, 2, 0])(tmp_path / "y")
    labels = load_training_data(str(tmp_path / "y"), IMAGE.data).labels
    assert labels is not None
    assert labels.tolist() == [3, 1, 2, 0]
    record = json.loads((tmp_path / "y" / "samples.json").read_text())
    (tmp_path / "y" / "samples.json").write_text(json.dumps(record | {"labels": [1]}))
    with pytest.raises(DataError, match=tells("labels", 4)):
        load_training_data(str(tmp_path / "y"), IMAGE.data)
