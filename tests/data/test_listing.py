"""What lies beside samples is passed over; what could be a sample is never left out silently."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fastdpm import DataError
from fastdpm.data.inputs import read_samples
from fastdpm.data.listing import READ, find_shards
from tests import hostile as h
from tests.conftest import IMAGE, SOUND
from tests.messages import tells

GRAY = IMAGE.data


def _first(folder: Path, **choices) -> list[int]:
    """The first pixel of each sample."""
    x = read_samples(folder, GRAY, **choices).x
    return [int(v) for v in ((x[:, 0, 0, 0] + 1) * 127.5).round().tolist()]


def _png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "beside",
    [
        "._1.png",
        ".ipynb_checkpoints/1-checkpoint.png",
        ".DS_Store",
        "__MACOSX/1.png",
        "sub/__MACOSX/._1.png",
        "Thumbs.db",
        "desktop.ini",
        ".hidden/deep/1.png",
    ],
)
def test_hidden_and_system_files_are_no_samples(tmp_path, beside):
    folder = tmp_path / ".data"  # itself hidden, but named
    for name, content in (("1.png", _png(1)), (beside, b"\0\5\26\7"), ("sub/2.png", _png(2))):
        h.make(folder / name, content)
    with zipfile.ZipFile(tmp_path / "x.ZIP", "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder))
    assert _first(folder) == [1, 2]
    assert _first(tmp_path / "x.ZIP") == [1, 2]


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    h.make(tmp_path / "real" / "1.png", _png(1))
    h.make(tmp_path / "data" / "2.png", _png(2))
    (tmp_path / "data" / "a").symlink_to("../real")
    (tmp_path / "data" / "b").symlink_to("../real")
    (tmp_path / "data" / "up").symlink_to("..")
    (tmp_path / "data" / "3.png").symlink_to("../real/1.png")
    assert _first(tmp_path / "data") == [2, 1, 1]


@pytest.mark.parametrize("suffix", READ["image"])
def test_every_image_format_that_is_read_when_named_is_read_in_a_folder(tmp_path, suffix):
    Image.fromarray(np.full((8, 8), 100, dtype=np.uint8)).save(tmp_path / f"a{suffix.upper()}")
    assert _first(tmp_path) == _first(tmp_path / f"a{suffix.upper()}") == [100]


@pytest.mark.parametrize("suffix", READ["audio"])
def test_every_sound_format_that_is_read_when_named_is_read_in_a_folder(tmp_path, suffix):
    kind = {".oga": "OGG", ".aif": "AIFF"}.get(suffix, suffix[1:].upper())
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(kind, "PCM_16")
    h.make(tmp_path / f"a{suffix}", h.sound(kind=kind, subtype=subtype))
    x = read_samples(tmp_path, SOUND.data, resize=True).x
    assert 0.3 < float(x.abs().max()) < 0.7


def test_a_file_that_could_be_a_sample_is_refused_by_name_and_other_files_are_not(tmp_path):
    h.make(tmp_path / "1.png", _png(1))
    h.make(tmp_path / "labels.csv", "1,2")
    h.make(tmp_path / "song.m4a", "no image")
    assert _first(tmp_path) == [1]
    h.make(tmp_path / "sub" / "2.HEIC", b"x")
    with pytest.raises(DataError, match=tells("2.HEIC", "HEIC", "PNG")):
        read_samples(tmp_path, GRAY)


def test_a_record_that_lists_a_file_of_another_kind_is_refused(tmp_path):
    h.record(files=["0.png", "notes.txt"])(tmp_path / "x")
    h.make(tmp_path / "x" / "notes.txt", "mine")
    with pytest.raises(DataError, match=tells("notes.txt")):
        read_samples(tmp_path / "x", GRAY)


def _table(path: Path, column: str, values: list[int]) -> None:
    encoded = [{"bytes": _png(value), "path": None} for value in values]
    pq.write_table(pa.table({column: encoded, "label": values}), path)


def test_parquet_files_are_read_in_all_their_parts(tmp_path):
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for i, values in enumerate(([1, 2], [3], [4, 5, 6])):
        _table(folder / "deep" / f"train-{i:05d}-of-00003.parquet", "img", values)
    h.make(folder / "README.md", "about")
    part = folder / "deep" / "train-00001-of-00003.parquet"
    assert _first(folder) == _first(part) == [1, 2, 3, 4, 5, 6]
    assert _first(folder, n=4) == [1, 2, 3, 4]
    assert [path.name[6:11] for path in find_shards(part)] == ["00000", "00001", "00002"]
    _table(folder / "test.parquet", "img", [7])
    with pytest.raises(DataError, match=tells("test.parquet", 2)):
        read_samples(folder, GRAY)
    assert _first(folder / "test.parquet") == [7]
    (folder / "test.parquet").unlink()
    (folder / "deep" / "train-00002-of-00003.parquet").unlink()
    for place in (folder, part):
        with pytest.raises(DataError, match=tells("train-00002-of-00003.parquet", 1, 3)):
            read_samples(place, GRAY)


def test_a_table_of_many_rows_is_read_at_any_index(tmp_path):
    from fastdpm.data.datasets import open_dataset

    _table(tmp_path / "x.PARQUET", "image", list(range(150)))
    data = open_dataset(tmp_path / "x.PARQUET")
    assert (data.modality, len(data)) == ("image", 150)
    assert [file.label for file in data.files([0, 63, 64, 149])] == [0, 63, 64, 149]


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        *(("more.npz", "1.png"), ("sub/more.ZIP", "1.png"), ("train.parquet", "1.png")),
        *(("more.npz", "notes.txt"), ("more.zip", "notes.txt")),
    ],
)
def test_files_that_hold_samples_are_not_passed_over_in_a_folder(tmp_path, name, beside):
    h.make(tmp_path / name, b"x")
    h.make(tmp_path / beside, _png(1))
    with pytest.raises(DataError, match=tells(name, "pass it alone")):
        _first(tmp_path)
