"""Training data of every kind, and one-line errors for data that does not fit."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm import DataError, MissingExtraError
from fastdpm.data.mel import log_mel
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.training.data import load_training_data
from tests.messages import tells

RGB = DataSpec("image", (3, 4, 4))
SOUND = DataSpec("audio", (1, 100), sample_rate=8000)


def _png(value: int, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _wav(samples: np.ndarray, sample_rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _parquet(path: Path, column: str, values: list[Any]) -> str:
    pq.write_table(pa.table({column: values, "label": list(range(len(values)))}), path)
    return str(path)


def test_images_are_the_same_from_parquet_folder_and_zip(tmp_path):
    pictures = [_png(v) for v in (0, 100, 255)]
    sources = [
        _parquet(tmp_path / "bytes.parquet", "image", pictures),
        _parquet(tmp_path / "struct.parquet", "image", [{"bytes": p} for p in pictures]),
        str(tmp_path / "folder"),
        str(tmp_path / "archive.zip"),
    ]
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("readme.txt", "no picture")
        for i, picture in enumerate(pictures):
            (tmp_path / "folder" / "inner" / f"{i}.png").write_bytes(picture)
            archive.writestr(f"{i}.PNG", picture)
    for source in sources:
        values = load_training_data(source, RGB).values
        assert values.shape == (3, 3, 4, 4)
        assert values[:, 0, 0, 0].tolist() == [0, 100, 255]


def test_images_reach_the_network_in_minus_one_to_one(tmp_path):
    rows = load_training_data(_parquet(tmp_path / "x.parquet", "image", [_png(0), _png(255)]), RGB)
    x, condition = rows.batch(50, torch.Generator().manual_seed(0))
    assert condition is None
    assert sorted(set(x.flatten().tolist())) == [-1.0, 1.0]


def test_flipping_mirrors_about_half_of_the_images(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (4, 1))).save(buffer, "PNG")
    path = _parquet(tmp_path / "x.parquet", "image", [buffer.getvalue()])
    rows = load_training_data(path, DataSpec("image", (1, 4, 4)), horizontal_flip=True)
    x, _ = rows.batch(400, torch.Generator().manual_seed(0))
    rising = (x[:, 0, 0, 0] < x[:, 0, 0, 3]).float().mean()
    assert 0.4 < float(rising) < 0.6


def test_digits_hold_out_their_last_360_rows():
    rows = load_training_data("sklearn:digits", DataSpec("image", (1, 8, 8)))
    assert rows.values.shape == (1437, 1, 8, 8)
    assert int(rows.values.max()) == 255


def test_short_sounds_are_padded_and_long_ones_cropped(tmp_path):
    short, long = np.full(30, 0.5), np.linspace(-0.9, 0.9, 400)
    (tmp_path / "a.wav").write_bytes(_wav(short))
    (tmp_path / "b.wav").write_bytes(_wav(long))
    rows = load_training_data(str(tmp_path), SOUND)
    assert rows.lengths is not None
    assert rows.lengths.tolist() == [30, 400]
    for place, first in ((0.0, 70), (1.0, 0)):
        window = rows.windows(torch.tensor([0]), torch.tensor([[place]]))[0, 0]
        assert torch.nonzero(window).flatten().tolist() == list(range(first, first + 30))
    start, end = (rows.windows(torch.tensor([1]), torch.tensor([[p]]))[0, 0] for p in (0.0, 1.0))
    assert float(start[0]) == pytest.approx(-0.9, abs=1e-3)
    assert float(end[-1]) == pytest.approx(0.9, abs=1e-3)


def test_recordings_are_scaled_to_the_configured_peak(tmp_path):
    (tmp_path / "a.wav").write_bytes(_wav(np.array([0.1, -0.2, 0.05])))
    spec = DataSpec("audio", (1, 8), sample_rate=8000, peak=0.99)
    assert int(load_training_data(str(tmp_path), spec).values.abs().max()) == round(0.99 * 32768)


def test_a_batch_of_sound_comes_with_its_own_mel(tmp_path):
    mel = MelSpec(8000, 64, 16, 8, 0.0, 4000.0)
    spec = DataSpec("audio", (1, 128), sample_rate=8000, mel=mel)
    generator = np.random.default_rng(0)
    (tmp_path / "a.wav").write_bytes(_wav(generator.uniform(-0.5, 0.5, 1000)))
    sound, condition = load_training_data(str(tmp_path), spec).batch(
        3, torch.Generator().manual_seed(0)
    )
    assert condition is not None
    assert condition.shape == (3, 8, 8)
    torch.testing.assert_close(condition, log_mel(sound[:, 0], mel))


def test_data_that_does_not_fit_is_refused_in_one_line(tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    (tmp_path / "data.csv").write_text("1,2")
    (tmp_path / "none").mkdir()
    (tmp_path / "deep").mkdir()
    Image.fromarray(np.full((4, 4), 60000, dtype=np.uint16)).save(tmp_path / "deep" / "a.png")
    (tmp_path / "loud").mkdir()
    soundfile.write(tmp_path / "loud" / "a.wav", np.array([1.0, -3.0]), 8000, subtype="FLOAT")
    (tmp_path / "stereo").mkdir()
    (tmp_path / "stereo" / "a.wav").write_bytes(_wav(np.zeros((10, 2))))
    (tmp_path / "rate").mkdir()
    (tmp_path / "rate" / "a.wav").write_bytes(_wav(np.ones(10), 16000))
    (tmp_path / "silent").mkdir()
    (tmp_path / "silent" / "a.wav").write_bytes(_wav(np.zeros(10)))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "a.wav").write_bytes(_wav(np.full(50, 0.5))[:-40])
    normal = DataSpec("audio", (1, 100), sample_rate=8000, peak=0.9)
    cases: list[tuple[Path | str, DataSpec, list[object]]] = [
        (tmp_path / "missing", RGB, ["missing", "sklearn:digits"]),
        (tmp_path / "bad.parquet", RGB, ["bad.parquet"]),
        (tmp_path / "bad.zip", RGB, ["bad.zip"]),
        (tmp_path / "data.csv", RGB, ["data.csv", ".parquet", ".zip"]),
        (tmp_path / "none", RGB, ["none", ".png", ".jpg"]),
        (tmp_path / "none", SOUND, ["none", ".wav", ".flac"]),
        (
            _parquet(tmp_path / "s.parquet", "image", [_png(1, 5)]),
            RGB,
            ["s.parquet row 0", "(3, 5, 5)", "(3, 4, 4)"],
        ),
        (_parquet(tmp_path / "t.parquet", "image", [b"x"]), RGB, ["t.parquet row 0"]),
        (
            _parquet(tmp_path / "u.parquet", "picture", [b"x"]),
            RGB,
            ["u.parquet", "image", "picture"],
        ),
        (
            _parquet(tmp_path / "n.parquet", "image", [_png(1), None]),
            RGB,
            ["n.parquet row 1"],
        ),
        (tmp_path / "deep", RGB, ["a.png", "16-bit gray", "8-bit"]),
        (tmp_path / "loud", SOUND, ["a.wav", 3, "[-1, 1]"]),
        (tmp_path / "stereo", SOUND, ["a.wav", 2]),
        (tmp_path / "rate", SOUND, ["a.wav", "16000 Hz", "8000 Hz"]),
        (tmp_path / "silent", normal, ["a.wav", 0.9]),
        (tmp_path / "broken", SOUND, ["a.wav", "Format not recognised"]),
        (tmp_path / "cut", SOUND, ["a.wav", 30]),
        ("sklearn:digits", RGB, ["digits", "(1, 8, 8)", "(3, 4, 4)"]),
    ]
    for path, spec, values in cases:
        with pytest.raises(DataError, match=tells(*values)) as caught:
            load_training_data(str(path), spec)
        assert "\n" not in str(caught.value)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=tells("scikit-learn", "fastdpm[train]")):
        load_training_data("sklearn:digits", DataSpec("image", (1, 8, 8)))
