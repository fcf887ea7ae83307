"""``sample --format``: every format holds the same values, resumes, and can be measured."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fastdpm import run
from fastdpm.cli.app import run as fastdpm
from fastdpm.data.inputs import read_samples
from fastdpm.data.sound import to_pcm
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import sha256
from fastdpm.output import folder as output
from fastdpm.output import sample_files
from tests.conftest import IMAGE, SOUND
from tests.messages import tells

CASES = [
    ("image", "png"),
    ("image", "webp"),
    ("image", "npz"),
    ("sound", "wav"),
    ("sound", "flac"),
    ("sound", "npz"),
]
every_format = pytest.mark.parametrize(("model", "format"), CASES)


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures of sounds take longer than all else."""

    def write(path: Path, *_: object) -> None:
        path.write_bytes(b"")

    monkeypatch.setattr(output, "write_picture", write)


@pytest.fixture
def sample(folders, tmp_path, capsys, monkeypatch):
    """Run the command on a small model; returns its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def sample(model: str, *arguments: str) -> tuple[int, str, str]:
        code = fastdpm(["sample", str(folders[model]), "-S", "4", *arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return sample


def _values(folder: Path) -> np.ndarray:
    """The samples of a folder, as 8- or 16-bit values: (n, H, W) or (n, samples)."""
    record = json.loads((folder / "samples.json").read_text())
    read = []
    for path in (folder / name for name in record["files"]):
        if path.suffix == ".npz":
            with np.load(path) as file:
                values = file["samples"]
            if values.dtype == np.float32:  # sounds
                return to_pcm(values)
            return np.asarray(values[..., 0])
        if path.suffix in (".wav", ".flac"):
            read.append(soundfile.read(path, dtype="int16")[0])
        else:
            with Image.open(path) as image:
                read.append(np.asarray(image.convert("L")))
    return np.stack(read)


def _names(model: str, format: str, count: int) -> set[str]:
    picture = {"image": "grid.png", "sound": "sounds.png"}[model]
    files = {f"{i:06d}.{format}" for i in range(count)} if format != "npz" else {"samples.npz"}
    return {"run.jsonl", "samples.json", picture, *files}


@every_format
def test_every_format_holds_the_values_of_the_default_one(
    sample, tmp_path, request, model, format
):
    if model == "sound":
        request.getfixturevalue("no_pictures")
    assert sample(model, "-n", "3", "--out", "default")[0] == 0
    code, _, err = sample(model, "-n", "3", "--out", "x", "--format", format)
    assert code == 0, err
    assert {p.name for p in (tmp_path / "x").iterdir()} == _names(model, format, 3)
    np.testing.assert_array_equal(_values(tmp_path / "x"), _values(tmp_path / "default"))
    if model == "image":
        first, second = (sha256(tmp_path / name / "grid.png") for name in ("x", "default"))
        assert first == second


@every_format
def test_every_format_resumes_where_it_was_interrupted(
    sample, no_pictures, tmp_path, monkeypatch, model, format
):
    calls = []

    def interrupt_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return run(*args, **kwargs)

    choice = ("--batch-size", "1", "--format", format)
    with monkeypatch.context() as patch:
        patch.setattr("fastdpm.models.model.run", interrupt_the_third)
        assert sample(model, "-n", "4", "--out", "x", *choice)[0] == 130
    assert json.loads((tmp_path / "x" / "samples.json").read_text())["complete"] is False
    code, out, err = sample(model, "-n", "4", "--out", "x", *choice, "--resume")
    assert code == 0, err
    assert re.search(tells(2, 4, "x"), out)  # drawn, and in the folder
    # And on from a finished run, which an archive holds as a whole.
    code, out, err = sample(model, "-n", "6", "--out", "x", *choice, "--resume")
    assert code == 0, err
    assert re.search(tells(2, 6, "x"), out)
    assert {p.name for p in (tmp_path / "x").iterdir()} == _names(model, format, 6)
    sample(model, "-n", "6", "--out", "whole", *choice)
    np.testing.assert_array_equal(_values(tmp_path / "x"), _values(tmp_path / "whole"))
    code, _, err = sample(model, "-n", "2", "--out", "x", *choice, "--overwrite")
    assert code == 0, err
    assert {p.name for p in (tmp_path / "x").iterdir()} == _names(model, format, 2)


@pytest.mark.parametrize("place", ["write_archive", "_write_record", "replace", "unlink"])
def test_an_archive_survives_a_kill_at_every_point_of_its_end(
    sample, no_pictures, tmp_path, monkeypatch, place
):
    class Killed(BaseException):
        pass

    owner = {"write_archive": sample_files, "_write_record": output.SampleFolder}.get(place, Path)
    before = getattr(owner, place)

    def killed(*args, **kwargs):
        if list((tmp_path / "x").rglob("samples.npz")) or place == "write_archive":
            raise Killed
        return before(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, killed)
        with pytest.raises(Killed):
            sample("image", "-n", "3", "--out", "x", "--format", "npz")
    code, _, err = sample("image", "-n", "3", "--out", "x", "--format", "npz", "--resume")
    assert code == 0, err
    assert {p.name for p in (tmp_path / "x").iterdir()} == _names("image", "npz", 3)
    sample("image", "-n", "3", "--out", "whole")
    np.testing.assert_array_equal(_values(tmp_path / "x"), _values(tmp_path / "whole"))


def test_resuming_in_another_format_is_refused(sample):
    sample("image", "-n", "2", "--out", "x")
    code, _, err = sample("image", "-n", "3", "--out", "x", "--format", "webp", "--resume")
    assert code == 2
    assert re.search(tells("x", "--format", "png", "webp"), err)


@pytest.mark.parametrize(("model", "format"), [c for c in CASES if c[1] != "npz"])
def test_samples_of_every_file_format_are_read_as_a_models_data(sample, tmp_path, model, format):
    sample(model, "-n", "2", "--out", "x", "--format", format)
    data = IMAGE.data if model == "image" else SOUND.data
    x = read_samples(tmp_path / "x", data).x
    assert x.shape == (2, *data.shape)


def test_a_folder_of_every_image_format_is_measured_as_the_same_samples(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    found = []
    for format in ("png", "webp", "npz"):
        drawn = ["sample", "digits", "-n", "20", "-S", "2", "--out", format, "--format", format]
        assert fastdpm(drawn) == 0
    for samples in ("png", "webp", "npz", "npz/samples.npz"):
        measured = ["evaluate", samples, "--against", "sklearn:digits-test", "--save", "f.json"]
        assert fastdpm(measured) == 0
        found.append(json.loads((tmp_path / "f.json").read_text())["metrics"])
    assert found[1:] == found[:-1]


def test_an_rgb_image_of_greys_stays_rgb_in_a_folder_of_webp(tmp_path):
    data = DataSpec("image", (3, 4, 4))
    pixels = np.full((4, 4, 3), 7, dtype=np.uint8)
    sample_files.write_sample(tmp_path / "0.webp", pixels, data)
    np.testing.assert_array_equal(sample_files.read_sample(tmp_path / "0.webp", data), pixels)
