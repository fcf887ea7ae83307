"""A report is written whole, read back as it was, and refused if it is another's."""

import copy
import json
import math

import pytest

from fastdpm import FastDPMError
from fastdpm.core.errors import DataError, InvalidArgumentError
from fastdpm.evaluation.results import Comparison
from tests.evaluation.reports import make_images, make_results, report, write
from tests.messages import tells


def test_every_file_is_written_and_the_json_comes_back_as_it_was(tmp_path, grid):
    results = make_results(grid)
    before = copy.deepcopy(results)
    found = write(tmp_path / "new" / "out", results, make_images(grid))
    assert Comparison.from_dict(results).results == before
    names = ["results.json", "results.csv", "results.md", "distance.png", "samples.png"]
    assert [path.name for path in found] == [*names, "report.html"]
    written = {path.name for path in found[0].parent.iterdir()}
    assert written == {"run.jsonl", *(path.name for path in found)}
    assert json.loads(found[0].read_text()) == before == results


def test_a_report_is_read_again_from_its_folder_or_file(tmp_path, grid):
    comparison = Comparison.from_dict(make_results(grid))
    comparison.write(tmp_path / "out")
    assert Comparison.read(tmp_path / "out") == comparison
    assert Comparison.read(str(tmp_path / "out" / "results.json")) == comparison
    (tmp_path / "list.json").write_text("[]")
    for name in ("absent", "out/results.csv", "list.json"):
        with pytest.raises(DataError, match=tells("fastdpm compare")):
            Comparison.read(tmp_path / name)


def test_an_old_picture_does_not_outlive_its_report(tmp_path, grid):
    report(tmp_path, grid, make_images(grid))
    report(tmp_path, grid[1:])
    assert not (tmp_path / "out" / "samples.png").exists()


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"format": "fastdpm-samples"}, ["fastdpm-samples"]),
        ({"version": 2}, ["version 1", "version 2"]),
        ({"metrics": []}, ["no metrics"]),
        ({"cells": [{"id": "x"}]}, ["family"]),
        ({"model": {}}, ["name"]),
        ({"n": math.inf}, ["infinity"]),
        (
            {"metrics": [{"key": "x", "name": "x", "better": "larger"}]},
            ["better", "lower", "higher", "larger"],
        ),
    ],
)
def test_other_results_are_refused_in_one_line_and_nothing_is_written(tmp_path, change, values):
    with pytest.raises(DataError, match=tells(*values)) as caught:
        write(tmp_path / "out", make_results([]) | change, {})
    assert isinstance(caught.value, FastDPMError)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_only_figures_of_an_earlier_report_are_removed(tmp_path, grid):
    results = make_results(grid)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "samples.png").write_text("mine")
    with pytest.raises(InvalidArgumentError, match=tells("samples.png")):
        write(mine, results, {})
    assert (mine / "samples.png").read_text() == "mine"
    out = tmp_path / "out"
    write(out, results, make_images(grid))
    before = (out / "samples.png").read_bytes()
    Comparison.read(out).write(out, formats=["pdf"])
    assert (out / "samples.png").read_bytes() == before
    assert not (out / "distance.png").exists()
    other = make_results(grid[:3])
    write(out, other, {})
    assert not (out / "samples.png").exists()
