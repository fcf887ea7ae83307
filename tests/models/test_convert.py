"""Conversion writes a complete model folder or none, and it samples like the checkpoint."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.data.tensors import read_tensors, write_tensors
from fastdpm.models import conversion as module
from fastdpm.models.conversion import convert
from fastdpm.models.find import find_model
from fastdpm.models.load import open_model
from tests.messages import tells
from tests.models.test_find import CASES, _state, tiny  # noqa: F401


def _left(folder: Path) -> list[str]:
    """Whatever lies there beside the presets and their checkpoints."""
    return sorted(p.name for p in folder.iterdir() if p.suffix not in (".toml", ".pt"))


@pytest.mark.parametrize("name", CASES)
def test_a_converted_model_samples_as_the_checkpoint_does(tiny, name):  # noqa: F811
    config, notes = convert(tiny / f"{name}.pt", tiny / "out")
    assert re.search(tells(f"{name}.pt", name, "T = 50"), "".join(notes))
    assert config.provenance["converted_from"] == f"{name}.pt"
    folder, file = load_model(tiny / "out"), load_model(tiny / f"{name}.pt")
    condition = torch.rand(1, 8, 32) if config.data.mel else None
    drawn = folder.sample(2, num_steps=3, condition=condition)
    assert torch.equal(drawn, file.sample(2, num_steps=3, condition=condition))
    assert _left(tiny) == ["out"]
    card = (tiny / "out" / "README.md").read_text()
    assert f"{name}.pt" in card


def test_weights_keep_their_type_unless_halved(tiny):  # noqa: F811
    convert(str(tiny / "tiny-image.pt"), str(tiny / "full"))
    convert(tiny / "tiny-image.pt", tiny / "half", half=True)
    published = torch.load(tiny / "tiny-image.pt", weights_only=True)
    full = read_tensors(tiny / "full" / "model.safetensors")
    assert all(torch.equal(full[n], w) for n, w in published.items())
    half = read_tensors(tiny / "half" / "model.safetensors")
    assert all(torch.equal(half[n], w.half()) for n, w in published.items())


def test_half_precision_that_would_lose_a_weight_is_refused(tiny):  # noqa: F811
    state = _state(CASES["tiny-image"]["network"])
    state["conv_in.weight"][0, 0, 0, 0] = -70_000.0
    torch.save(state, tiny / "wide.pt")
    with pytest.raises(ModelError, match=tells("conv_in.weight", "7e+04", "6.55e+04")):
        convert(tiny / "wide.pt", tiny / "out", half=True)
    assert _left(tiny) == []
    convert(tiny / "wide.pt", tiny / "out")
    state["conv_in.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, tiny / "wide.pt")
    with pytest.raises(ModelError, match=tells("wide.pt", "conv_in.weight", "NaN")):
        convert(tiny / "wide.pt", tiny / "other")


def test_several_presets_that_fit_leave_the_folder_to_name_the_model(tiny):  # noqa: F811
    text = (tiny / "tiny-image.toml").read_text()
    (tiny / "tiny-other.toml").write_text(text.replace('"tiny-image"', '"tiny-other"'))
    config, notes = convert(tiny / "tiny-image.pt", tiny / "mine")
    assert config.name == "mine"
    assert len(notes) == 2
    named, _ = convert(tiny / "tiny-image.pt", tiny / "other", preset="tiny-other", name="third")
    assert named.name == "third"
    assert named.provenance["preset"] == "tiny-other"


def test_a_folder_that_holds_files_is_kept(tiny):  # noqa: F811
    convert(tiny / "tiny-image.pt", tiny / "out")
    with pytest.raises(
        InvalidArgumentError, match=tells(tiny / "out", "`out`", "`overwrite`", "`resume`")
    ):
        convert(tiny / "tiny-image.pt", tiny / "out")
    convert(tiny / "tiny-sound.pt", tiny / "out", overwrite=True)
    assert load_model(tiny / "out").config.name == "tiny-sound"
    (tiny / "out" / "notes.txt").write_text("mine")
    convert(tiny / "tiny-image.pt", tiny / "out", overwrite=True)
    assert load_model(tiny / "out").config.name == "tiny-image"
    assert (tiny / "out" / "notes.txt").read_text() == "mine"
    (tiny / "out" / "README.md").write_text("mine")
    with pytest.raises(InvalidArgumentError, match=tells(tiny / "out" / "README.md")):
        convert(tiny / "tiny-sound.pt", tiny / "out", overwrite=True)
    assert (tiny / "out" / "README.md").read_text() == "mine"
    with pytest.raises(InvalidArgumentError, match=tells(tiny / "tiny-image.toml", "`out`")):
        convert(tiny / "tiny-image.pt", tiny / "tiny-image.toml" / "x")


def test_what_is_read_is_never_written_over(tiny, monkeypatch):  # noqa: F811
    home = tiny / "home"
    home.mkdir()
    source = (tiny / "tiny-image.pt").rename(home / "model.safetensors")
    with pytest.raises(InvalidArgumentError, match=tells(home, source.name, "`out`")):
        convert(source, home, overwrite=True)
    monkeypatch.chdir(home)
    with pytest.raises(InvalidArgumentError, match=tells("`out`")):
        convert(source, Path(), overwrite=True)
    assert [p.name for p in home.iterdir()] == ["model.safetensors"]
    (home / "link").symlink_to(tiny / "elsewhere")
    (tiny / "elsewhere").mkdir()
    convert(source, home / "link")
    assert (tiny / "elsewhere" / "config.json").is_file()


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tiny, monkeypatch):  # noqa: F811
    convert(tiny / "tiny-image.pt", tiny / "out")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == ".out.new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(
            "fastdpm.data.moves.sys.platform", "win32"
        )  # which cannot exchange two folders
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="Input/output error"):
            convert(tiny / "tiny-sound.pt", tiny / "out", overwrite=True)
    assert load_model(tiny / "out").config.name == "tiny-image"
    convert(tiny / "tiny-sound.pt", tiny / "out", overwrite=True, resume=True)
    assert load_model(tiny / "out").config.name == "tiny-sound"
    assert _left(tiny) == ["out"]


@pytest.mark.parametrize(
    ("weight", "kind"),
    [
        (torch.ones(8, dtype=torch.complex64), "complex64"),
        (torch.ones(8, dtype=torch.float8_e4m3fn), "float8_e4m3fn"),
        (torch.ones(8, dtype=torch.int64), "int64"),
        (torch.ones(8).to_sparse(), "sparse float32"),
        (torch.ones(8, device="meta"), "meta float32"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tiny, weight, kind):  # noqa: F811
    state = _state(CASES["tiny-image"]["network"])
    state["conv_in.bias"] = weight
    torch.save(state, tiny / "odd.pt")
    with pytest.raises(ModelError, match=tells("odd.pt", "conv_in.bias", kind)):
        convert(tiny / "odd.pt", tiny / "out", preset="tiny-image")
    assert _left(tiny) == []


def test_nothing_is_left_of_a_conversion_that_fails(tiny, monkeypatch):  # noqa: F811
    state = _state(CASES["tiny-image"]["network"])
    del state["conv_out.bias"]
    torch.save(state, tiny / "cut.pt")
    with pytest.raises(ModelError, match=tells("cut.pt", "tiny-image", 1, "conv_out.bias")):
        convert(tiny / "cut.pt", tiny / "out")
    assert _left(tiny) == []

    def full_disk(*args: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_folder", full_disk)
    with pytest.raises(OSError, match="No space left"):
        convert(tiny / "tiny-image.pt", tiny / "out")
    assert _left(tiny) == []


def test_a_truncated_file_is_refused(tiny):  # noqa: F811
    whole = (tiny / "tiny-image.pt").read_bytes()
    (tiny / "short.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=tells("short.pt")):
        convert(tiny / "short.pt", tiny / "out")
    assert _left(tiny) == []


def test_a_file_that_would_execute_code_names_what_it_asks_for(tiny):  # noqa: F811
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tiny / "broken-in"),)

    torch.save({"conv_in.weight": torch.ones(2), "x": Evil()}, tiny / "evil.pt")
    with pytest.raises(ModelError, match=tells("evil.pt", f"{os.name}.mkdir")):
        convert(tiny / "evil.pt", tiny / "out")
    assert _left(tiny) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_are_written_as_the_library_reads_them(tmp_path, dtype):
    from safetensors.torch import load_file

    tensors = {
        "b": (torch.randn(3, 4) * 9).to(dtype).t(),
        "scalar": torch.ones((), dtype=dtype),
        "none": torch.ones(0, 2, dtype=dtype),
    }
    checksum = write_tensors(tmp_path / "x.safetensors", tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == dtype for n, t in tensors.items())
    assert len(checksum) == 64


def test_the_command_converts_and_prints_the_next_step(tiny, capsys):  # noqa: F811
    from fastdpm.cli.app import run

    out = tiny / "out"
    assert run(["convert", str(tiny / "tiny-image.pt"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert re.search(tells("tiny-image", "1 x 8 x 8", "T = 50", out), printed)
    assert f"fastdpm sample {out}" in printed
    record = json.loads((out / "config.json").read_text())
    assert record["provenance"]["checkpoint_sha256"]
    assert run(["convert", str(tiny / "nothing.pt"), "--out", str(tiny / "o")]) == 2
    err = capsys.readouterr().err
    assert re.search(tells(tiny / "nothing.pt"), err)
    assert err.count("\n") == 1


def test_converting_the_lsun_model_takes_little_more_than_its_size():
    script = Path(__file__).parents[2] / "benchmarks" / "conversion.py"
    done = subprocess.run(
        [sys.executable, str(script)], check=True, capture_output=True, text=True, timeout=300
    )
    times = float(done.stdout.splitlines()[-1].split()[0])
    assert times <= 2.2


def test_a_conversion_enters_few_functions_of_other_rooms():
    script = Path(__file__).parents[2] / "benchmarks" / "crossings.py"
    done = subprocess.run(
        [sys.executable, str(script)], check=True, capture_output=True, text=True, timeout=300
    )
    *lines, total = done.stdout.splitlines()
    entered = [line.strip() for line in lines if line.startswith(" ")]
    assert {"data.run_folder.RunFolder.open", "networks.build.check_fits"} <= set(entered)
    assert total.endswith(f"{len(entered)} functions")
    assert len(entered) <= 18


def test_two_models_of_one_checkpoint_share_no_network(tiny):  # noqa: F811
    found = find_model(tiny / "tiny-image.pt")
    first, second = open_model(found), open_model(found)
    with torch.no_grad():
        next(first.network.parameters()).zero_()
    assert next(second.network.parameters()).any()


def test_the_folder_names_a_model_that_several_presets_fit_as_far_as_it_can(tiny):  # noqa: F811
    text = (tiny / "tiny-image.toml").read_text()
    (tiny / "tiny-other.toml").write_text(text.replace('"tiny-image"', '"tiny-other"'))
    config, _ = convert(tiny / "tiny-image.pt", tiny / "my model")
    assert config.name == "my-model"


def test_a_conversion_that_fails_makes_no_folder_above_its_own(tiny):  # noqa: F811
    for name in ("not/allowed", "..", ""):
        with pytest.raises(InvalidArgumentError, match=tells(repr(name))):
            convert(tiny / "tiny-image.pt", tiny / "a" / "b" / "out", name=name)
    assert _left(tiny) == []
    convert(tiny / "tiny-image.pt", tiny / "a" / "b" / "out")
    assert load_model(tiny / "a" / "b" / "out").config.name == "tiny-image"
    assert sorted(p.name for p in (tiny / "a" / "b").iterdir()) == ["out"]
