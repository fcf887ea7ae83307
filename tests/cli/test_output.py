"""What commands print is safe on any terminal, and printed after their files are written."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fastdpm.cli import app
from fastdpm.cli.terminal import console
from fastdpm.core.text import visible
from tests import hostile as h
from tests.cli.test_refusals import CLASSES
from tests.conftest import IMAGE, write_model
from tests.evaluation.reports import make_grid, make_results, write
from tests.messages import tells

ODD = "\x1b[2J\u202eevil\x07\n\udc80"


def test_odd_names_of_files_are_read_recorded_and_shown_as_escapes(
    folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / f"d{ODD}"
    h.folder({f"{ODD}.png": h.image(), "=1+1.png": h.image()})(data)
    model = str(folders["image"])
    safe = ODD[:-1]  # safetensors opens no file whose name is not UTF-8
    for command, more in {
        "encode": ["-S", "2", "--out", f"z{safe}.safetensors"],
        "reconstruct": ["-S", "2", "--out", "r"],
        "edit": ["-S", "2", "--out", f"e{ODD}"],
        "likelihood": ["-S", "2", "--save", f"l{ODD}.json"],
    }.items():
        assert app.run([command, model, str(data), *more]) == 0
    assert app.run(["decode", model, f"z{safe}.safetensors", "--out", f"o{ODD}"]) == 0
    printed = "".join(capsys.readouterr())
    assert visible(printed.replace("\n", "")) == printed.replace("\n", "")
    assert r"\x1b[2J\u202eevil\x07\n\udc80" in printed
    record = json.loads((tmp_path / f"o{ODD}" / "samples.json").read_text())
    assert record["inputs"] == [f"{ODD}.png", "=1+1.png"]
    assert "'=1+1.png" in (tmp_path / "r" / "reconstruct.csv").read_text()


def test_a_report_of_odd_names_is_safe(tmp_path):
    cells = make_grid(kappas=(0.0,), steps=(5, 10))
    cells[0] |= {"group": f"<script>{ODD}", "choice": "=cmd", "notes": [f"=cmd <img src=x>{ODD}"]}
    results = make_results(cells) | {"command": f"fastdpm compare <script>{ODD}"}
    write(tmp_path / "x", results, {})
    for name in ("results.md", "report.html"):
        text = (tmp_path / "x" / name).read_text()
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text), name
        assert "u202e" in text
        assert "<img src=x>" not in text
    assert "'=cmd" in (tmp_path / "x" / "results.csv").read_text()
    kept = json.loads((tmp_path / "x" / "results.json").read_text())
    assert kept["cells"][0]["group"] == f"<script>{ODD}"


def test_a_model_card_shows_what_a_model_states_as_text(folders, tmp_path):
    odd = f"<script>x</script> | [a](http://b) {ODD}"
    config = replace(
        IMAGE, license=odd, attribution=odd, provenance={f"{odd}_key": odd}, data=IMAGE.data
    )
    card = (write_model(tmp_path / "m", config) / "README.md").read_text()
    assert not re.search(r"(?<!\\)[<\[|]\S", card.partition("# ")[2])
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", card)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_that_lacks_signs_shows_others(tmp_path, encoding):
    line = "from fastdpm.cli.app import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    for arguments, value in ((["plan", "x±日.toml"], "toml"), (["models"], "spoken-digits")):
        found = subprocess.run(
            [sys.executable, "-c", line, *arguments],
            check=False,
            capture_output=True,
            env=environment,
            cwd=tmp_path,
        )
        text = (found.stdout + found.stderr).decode(encoding)
        assert "Traceback" not in text
        assert value in text


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("evaluate {images} --save x.json", "x.json"),
        ("likelihood {image} {images} -n 2 -S 2 --save x.json --plot x.png", "x.png"),
        ("plan {image} --save x.json --plot x.svg", "x.json"),
        ("encode {image} {images} -n 2 -S 2 --out x.safetensors", "x.safetensors"),
    ],
)
def test_files_are_written_before_anything_is_printed(folders, tmp_path, monkeypatch, line, name):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    np.save("x.npy", pixels)

    def fail(*_: object, **__: object) -> None:
        raise OSError("nothing can be printed")

    monkeypatch.setattr(console, "print", fail)
    arguments = line.format(image=folders["image"], images="x.npy").split()
    assert app.run(arguments) == 1
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize(
    ("error", "values"),
    [
        (MemoryError(), ["memory", "--batch-size"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you"), ["memory"]),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ["memory"]),
        (RecursionError("maximum recursion depth exceeded"), ["nested"]),
    ],
)
def test_what_runs_out_is_one_line(folders, monkeypatch, capsys, error, values):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("fastdpm.models.find.find_model", fail)
    assert app.run(["sample", str(folders["image"])]) == 1
    err = capsys.readouterr().err
    assert re.search(tells(*values), err)
    assert err.count("\n") == 1
    monkeypatch.setattr("fastdpm.models.find.find_model", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a fault of the program is not hidden
        app.run(["sample", str(folders["image"])])


def test_labels_of_drawn_samples_are_recorded_and_are_the_strata_of_an_evaluation(
    tmp_path, monkeypatch
):
    from fastdpm.evaluation.sources import open_data

    monkeypatch.chdir(tmp_path)
    model = str(write_model(tmp_path / "classes", CLASSES))
    for kind in ("png", "npz"):
        command = ["sample", model, "-n", "7", "--class", "3,1", "-S", "2", "--format", kind]
        assert app.run([*command, "--out", kind]) == 0
        record = json.loads((tmp_path / kind / "samples.json").read_text())
        assert record["labels"] == [3, 1, 3, 1, 3, 1, 3]
        source = open_data(kind, CLASSES.data, scale=False)
        strata = source.strata(4)
        assert strata is not None
        assert strata.tolist() == [3, 1, 3, 1]
    for command in (["encode", "--out", "z.safetensors"], ["edit", "--out", "e"]):
        more = ["--class", "4", "-S", "2", *command[1:]]
        assert app.run([command[0], model, "png", *more]) == 0
    assert app.run(["decode", model, "z.safetensors", "--out", "d"]) == 0
    for name in "ed":
        assert json.loads((tmp_path / name / "samples.json").read_text())["labels"] == [4] * 7
