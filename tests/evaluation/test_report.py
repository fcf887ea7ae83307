"""A report says what was measured: the numbers, which are best, and what is missing."""

import copy
import csv
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fastdpm import FastDPMError, InvalidArgumentError
from fastdpm.core.errors import DataError
from fastdpm.evaluation.report.words import summary
from fastdpm.evaluation.report.write import write_report
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score

CHOICES = ("STEP linear", "STEP quadratic", "VAR linear", "VAR quadratic")
FD, PRECISION = "frechet_distance", "precision"
HOSTILE = "</title><script>alert('x')</script> | **b** `c` [d](http://evil.example/e) $x$"


def make_cell(group, choice, steps, value, *, error=0.012, **changes: Any) -> dict[str, Any]:
    """A cell as a comparison records it; its identity is its name."""
    cell = {
        "id": f"{group}/{choice}/{steps}",
        "method": "some-method",
        "family": "paper",
        "group": group,
        "choice": choice,
        "num_steps": steps,
        "evaluations": steps,
        "n": 2000,
        "seconds": 0.4 * steps,
        "metrics": {
            FD: {"value": value, "error": error},
            PRECISION: {"value": 1 / (1 + value), "error": 0.01},
        },
        "notes": [],
        "plan": "0123456789abcdef",
        "failed": None,
    }
    return cell | changes


def make_results(cells, *, audio=False, floor=True) -> dict[str, Any]:
    features = "spoken-digits-features" if audio else "digits-features"
    score = {FD: {"value": 0.21, "error": 0.03}, PRECISION: {"value": 0.9, "error": 0.01}}
    return {
        "format": "fastdpm-comparison",
        "version": 1,
        "model": {
            "name": "spoken-digits" if audio else "digits",
            "weights_sha256": "ab" * 32,
            "T": 200 if audio else 1000,
            "modality": "audio" if audio else "image",
            "sample_rate": 8000 if audio else None,
        },
        "features": features,
        "against": "1,437 training rows of the digits",
        "n": 2000,
        "seed": 0,
        "clip": "none",
        "precision": "float32",
        "metrics": [
            {"key": FD, "name": f"FD ({features})", "better": "lower"},
            {"key": PRECISION, "name": f"precision ({features})", "better": "higher"},
        ],
        "left_out": [],
        "floor": {"label": "360 held-out digits", "n": 360, "metrics": score} if floor else None,
        "cells": cells,
        "seconds": 512.3,
        "versions": {"fastdpm": "0.1.0", "torch": "2.6.0"},
        "command": "fastdpm compare digits -S 5,10,20,50 -n 2000 --out report",
    }


def make_grid(kappas=(0.0, 1.0), steps=(5, 10, 20, 50), *, rivals=True) -> list[dict[str, Any]]:
    """A whole comparison with values as a small model gives them."""
    random = np.random.default_rng(0)
    cells = []

    def add(group, choices, weight, extra=0, **changes: Any) -> None:
        for i, choice in enumerate(choices):
            for s in steps:
                value = 0.4 + weight * (1 + 0.3 * i) / s**1.2 * random.uniform(0.9, 1.1)
                more = {"evaluations": s + extra} | changes
                cells.append(make_cell(group, choice, s, value, error=0.03 * value, **more))

    for kappa in kappas:
        name = {0.0: "DDIM-rev", 1.0: "DDPM-rev"}.get(kappa, f"kappa = {kappa:g}")
        add(name, CHOICES, 4 + 30 * kappa)
    if rivals:
        for name in ("DPM-Solver++ 2M", "DPM-Solver++ 3M", "third-order multistep"):
            add(name, CHOICES, 3, family="multistep")
        spacings = ("leading", "linspace", "trailing")
        for name in ("DDIM", "DDPM", "PLMS", "DEIS", "DPM-Solver++ 2M", "UniPC"):
            add(f"{name} (diffusers)", spacings, 5, family="diffusers", plan=None)
        add("PNDM (diffusers)", spacings, 2, extra=9, family="diffusers", plan=None)
    standard = {"family": "standard", "n": 1000}
    cells.append(make_cell("standard sampler", "", 1000, 0.42, **standard))
    return cells


def make_images(cells, count=8, side=8) -> dict[str, NDArray[Any]]:
    """Discs that fade with noise where the distance is large."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / (side - 1) - 0.5
    radii = random.uniform(0.2, 0.45, (count, 1, 1))
    discs = 1.0 * (np.hypot(x, y) < radii)
    pictures = {}
    for cell in cells:
        noise = random.normal(0, 0.1 * cell["metrics"][FD]["value"], discs.shape)
        pixels = np.clip(discs + noise, 0, 1) * 255
        pictures[cell["id"]] = pixels.astype(np.uint8)[..., None]
    return pictures


def make_sounds(cells, count=8, length=8000) -> dict[str, NDArray[Any]]:
    """Rising tones in noise."""
    random = np.random.default_rng(1)
    t = np.arange(length) / 8000
    pitch = random.uniform(200, 900, (count, 1))
    tones = 0.5 * np.sin(2 * np.pi * (pitch * t + 600 * t**2)) * np.exp(-2 * t)
    return {
        c["id"]: (tones + random.normal(0, 0.02, tones.shape)).astype(np.float32) for c in cells
    }


@pytest.fixture
def grid() -> list[dict[str, Any]]:
    return make_grid(steps=(5, 10), rivals=False)


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.tags: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.classes: dict[str, list[str]] = {}
        self.text = ""
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        named = dict(attrs)
        self.tags.append(tag)
        self.loaded += [v for k, v in attrs if k in ("src", "href", "data", "action", "srcset")]
        self._script = tag in ("script", "style")
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._class = named.get("class") or ""

    def handle_endtag(self, tag) -> None:
        if tag in ("td", "th"):
            for name in self._class.split():
                self.classes.setdefault(name, []).append(self.tables[-1][-1][-1])
        self._script = False

    def handle_data(self, data) -> None:
        if self._script:
            return
        self.text += data
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data


def write(out, results, pictures) -> list[Path]:
    """Write the report of a comparison that was read."""
    return write_report(out, replace(Comparison.from_dict(results), pictures=pictures))


def report(folder, cells, pictures=None, **changes: Any) -> dict[str, str]:
    """Write a report, and read back its texts by file name."""
    found = write(folder / "out", make_results(cells, **changes), pictures or {})
    return {path.name: path.read_text() for path in found if path.suffix != ".png"}


def table(markdown: str) -> dict[tuple[str, str], list[str]]:
    """The first table of a Markdown report: method -> entries; a blank group is the one above."""
    start = markdown.index("| process or sampler")
    rows, group = {}, ""
    for line in markdown[start:].split("\n\n")[0].splitlines()[2:]:
        first, choice, *entries = line.removeprefix("| ").removesuffix(" |").split(" | ")
        group = first or group
        rows[group, choice] = entries
    return rows


def test_every_file_is_written_and_the_json_comes_back_as_it_was(tmp_path, grid):
    results = make_results(grid)
    before = copy.deepcopy(results)
    found = write(tmp_path / "new" / "out", results, make_images(grid))
    assert Comparison.from_dict(results).results == before
    names = ["results.json", "results.csv", "results.md", "distance.png", "samples.png"]
    assert [path.name for path in found] == [*names, "report.html"]
    assert {path.name for path in found[0].parent.iterdir()} == {path.name for path in found}
    assert json.loads(found[0].read_text()) == before == results


def test_the_csv_holds_every_cell_to_the_last_digit(tmp_path, grid):
    grid[0]["metrics"][FD] = {"value": 1 / 3, "error": 0.1 + 0.2}
    grid[1] |= {"failed": "row 0, of 5:\nnot finite", "evaluations": None, "seconds": None}
    grid[2]["notes"] = ["one, with a comma", "two"]
    rows = list(csv.DictReader(report(tmp_path, grid)["results.csv"].splitlines()))
    assert len(rows) == len(grid) == 17
    assert float(rows[0][FD]) == 1 / 3
    assert float(rows[0][f"{FD}_error"]) == 0.1 + 0.2
    assert rows[0]["evaluations"] == rows[0]["num_steps"] == "5"
    assert rows[1]["failed"] == "row 0, of 5: not finite"
    assert rows[1][FD] == rows[1]["evaluations"] == rows[1]["seconds"] == ""
    assert rows[2]["notes"] == "one, with a comma; two"
    assert rows[-1]["n"] == "1000"
    assert list(rows[0])[:5] == ["id", "family", "group", "choice", "num_steps"]


def test_rows_are_grouped_as_in_the_paper_and_columns_are_s(tmp_path):
    cells = [
        make_cell("UniPC (diffusers)", "leading", 10, 0.7, family="diffusers"),
        make_cell("DPM-Solver++ 2M", "VAR linear", 10, 0.6, family="multistep"),
        make_cell("DDIM-rev", "VAR linear", 10, 0.53125),
        make_cell("DDPM-rev", "VAR linear", 5, 9.0),
        make_cell("DDIM-rev", "STEP linear", 10, 0.9),
        make_cell("DDIM-rev", "VAR linear", 5, 1.5),
        make_cell("standard sampler", "", 1000, 0.42, family="standard"),
    ]
    text = report(tmp_path, cells)["results.md"]
    assert "| process or sampler | levels or steps | S = 5 | S = 10 |" in text
    assert list(table(text).items()) == [
        (("DDIM-rev", "VAR linear"), ["**1.500 ± 0.012**", "**0.531 ± 0.012**"]),
        (("DDIM-rev", "STEP linear"), ["-", "0.900 ± 0.012"]),
        (("DDPM-rev", "VAR linear"), ["9.000 ± 0.012", "-"]),
        (("DPM-Solver++ 2M", "VAR linear"), ["-", "0.600 ± 0.012"]),
        (("UniPC (diffusers)", "leading"), ["-", "0.700 ± 0.012"]),
    ]
    assert "| standard sampler | 1,000 | 2,000 | 0.420 ± 0.012 |" in text
    assert "| real data: 360 held-out digits | - | 360 | 0.210 ± 0.030 |" in text
    assert text.index("## FD") < text.index("## precision")


def test_the_best_is_bold_and_what_lies_within_its_error_has_a_dagger(tmp_path):
    values = {"STEP linear": 1.0, "STEP quadratic": 1.013, "VAR linear": 1.015}
    cells = [make_cell("DDIM-rev", choice, 5, v, error=0.01) for choice, v in values.items()]
    texts = report(tmp_path, cells)
    assert list(table(texts["results.md"]).values()) == [
        ["**1.000 ± 0.010**"],
        ["1.013 ± 0.010 †"],  # 0.013 < 0.01 * sqrt(2) < 0.015
        ["1.015 ± 0.010"],
    ]
    page = Page(texts["report.html"])
    assert page.classes["best"][0].startswith("1.000 ± 0.010")
    assert page.classes["tied"][0].startswith("1.013 ± 0.010 †")
    assert len(page.classes["best"]) == 2  # one for each metric


def test_where_higher_is_better_the_highest_is_best():
    cells = [make_cell("DDIM-rev", c, 5, v) for c, v in (("VAR linear", 1.0), ("STEP linear", 3))]
    comparison = Comparison.from_dict(make_results(cells))
    distance, precision = comparison.metrics
    assert comparison.marks(distance, 5) == {"DDIM-rev/VAR linear/5": "best"}
    assert comparison.marks(precision, 5) == {"DDIM-rev/VAR linear/5": "best"}
    cells[1]["metrics"][PRECISION]["value"] = 0.9
    best = Comparison.from_dict(make_results(cells)).best(precision, 5)
    assert best is not None
    assert best.choice == "STEP linear"


def test_a_cell_that_cost_more_than_s_is_shown_and_not_compared_with_its_column(tmp_path):
    cells = [
        make_cell("PNDM (diffusers)", "leading", 10, 0.3, family="diffusers", evaluations=19),
        make_cell("DDIM-rev", "VAR linear", 10, 0.5),
        make_cell("DDIM-rev", "STEP quadratic", 10, 0.8, evaluations=9, notes=["1 | merged"]),
    ]
    texts = report(tmp_path, cells)
    assert table(texts["results.md"]) == {
        ("DDIM-rev", "VAR linear"): ["**0.500 ± 0.012**"],
        ("DDIM-rev", "STEP quadratic"): ["0.800 ± 0.012 (9 evaluations) (note 1)"],
        ("PNDM (diffusers)", "leading"): ["0.300 ± 0.012 (19 evaluations)"],
    }
    assert "more than S evaluations is not compared" in texts["results.md"]
    assert "1. 1 \\| merged" in texts["results.md"]
    assert "19 evaluations" in Page(texts["report.html"]).text


def test_cells_of_another_count_say_so(tmp_path):
    texts = report(tmp_path, [make_cell("DDIM-rev", "VAR linear", 5, 1.0, n=500)])
    assert table(texts["results.md"])["DDIM-rev", "VAR linear"] == ["**1.000 ± 0.012** (n = 500)"]
    assert "n = 500" in Page(texts["report.html"]).text


def test_two_cells_of_one_name_are_both_shown():
    cells = [make_cell("DDIM-rev", "VAR linear", 5, value, id=str(value)) for value in (1.0, 2.0)]
    rows = Comparison.from_dict(make_results(cells)).rows
    assert [row.cells[5].id for row in rows] == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.531249, 0.0123, "0.531 ± 0.012"),
        (374.26, 12.3, "374 ± 12"),
        (1e-4, 2e-5, "0.000100 ± 0.000020"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.123456, math.nan, "0.1235"),
        (1.234e9, 3e8, "1.234e+09 ± 3e+08"),
        (-0.002, 0.001, "-0.0020 ± 0.0010"),
    ],
)
def test_a_value_is_rounded_by_its_error(value, error, text):
    assert Score(value, error).text == text


def test_the_summary_is_computed_from_the_cells():
    cells = [
        make_cell("DDIM-rev", "VAR linear", 10, 0.6),
        make_cell("DDIM-rev", "STEP linear", 10, 0.61),
        make_cell("DDPM-rev", "STEP linear", 10, 7.0),
        make_cell("DDPM-rev", "VAR linear", 10, 7.0, failed="it broke"),
        make_cell("standard sampler", "", 1000, 0.4, family="standard", n=1000),
    ]
    assert summary(Comparison.from_dict(make_results(cells))) == [
        "S = 10: the best FD (digits-features) is 0.600 ± 0.012, of DDIM-rev, VAR linear, with 1"
        " other within one combined standard error; 1.5 times the value of the standard sampler,"
        " in 100 times fewer evaluations.",
        "The standard sampler is at 0.400 ± 0.012 with 1,000 evaluations.",
        "Real data scored the same way (360 held-out digits) are at 0.210 ± 0.030.",
        "Not everything was measured on 2,000 samples (standard sampler: 1,000, 360 held-out"
        " digits: 360). Many metrics, Fréchet distances among them, depend on the count: compare"
        " across counts with care.",
        "1 of 5 cells failed; the tables say why.",
    ]


def test_a_failed_cell_says_why_everywhere(tmp_path, grid):
    why = "takes from 4 to 1000 (T) steps S, got <3> & less"
    grid[0] |= {"failed": why, "metrics": {}, "evaluations": None, "seconds": None}
    texts = report(tmp_path, grid, make_images(grid[1:]))
    assert table(texts["results.md"])["DDIM-rev", "STEP linear"][0] == (
        "failed: takes from 4 to 1000 (T) steps S, got \\<3\\> \\& less"
    )
    assert f"failed: {why}" in Page(texts["report.html"]).text


def test_what_is_not_finite_is_null_and_breaks_nothing(tmp_path, grid):
    for cell, value in zip(grid, (np.nan, np.inf, -np.inf), strict=False):
        cell["metrics"][FD] = {"value": value, "error": value}
    grid[3]["metrics"][FD]["error"] = np.nan
    grid[4]["metrics"][FD] = {"value": np.float32(0.5), "error": np.float64(0.25)}
    texts = report(tmp_path, grid, make_images(grid[3:]))

    def refuse(name: str) -> None:
        raise AssertionError(name)

    record = json.loads(texts["results.json"], parse_constant=refuse)
    assert record["cells"][0]["metrics"][FD] == {"value": None, "error": None}
    assert record["cells"][4]["metrics"][FD] == {"value": 0.5, "error": 0.25}
    first = table(texts["results.md"])["DDIM-rev", "STEP linear"]
    assert first == ["not finite or not measured"] * 2
    assert "nan" not in texts["results.csv"]


def test_a_comparison_in_which_all_failed_is_still_a_report(tmp_path, grid):
    cells = [cell | {"failed": "it broke", "metrics": {}} for cell in grid]
    texts = report(tmp_path, cells, floor=False)
    assert "17 of 17 cells failed" in texts["report.html"]
    assert "No few-step method has a FD" in texts["results.md"]


def test_standard_samplers_alone_are_a_report(tmp_path):
    cells = [make_cell("standard sampler", "", 1000, 0.42, family="standard")]
    texts = report(tmp_path, cells, make_images(cells))
    assert "| standard sampler | 1,000 | 2,000 | 0.420 ± 0.012 |" in texts["results.md"]


def test_a_hostile_name_is_shown_and_never_run(tmp_path, grid):
    results = make_results(grid)
    for place, key in ((results["model"], "name"), (results, "against"), (results, "command")):
        place[key] = HOSTILE
    grid[0]["notes"] = [HOSTILE]
    grid[1]["failed"] = HOSTILE
    found = write(tmp_path, results, make_images(grid))
    text = found[-1].read_text()
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "<script>alert" not in text
    assert (
        page.text.count(HOSTILE) == 9
    )  # as it stands: 3 of the model, data, 3 of a cell, note, command
    lines = found[2].read_text().splitlines()
    assert "\\<script\\>" in lines[0]
    assert "<script>" not in "\n".join(x for x in lines if not x.startswith("    "))
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")}
    assert widths == {5}  # of both kinds of tables


def test_the_page_loads_nothing(tmp_path, grid):
    sounds = report(tmp_path, grid, make_sounds(grid), audio=True)["report.html"]
    images = report(tmp_path, grid, make_images(grid))["report.html"]
    for text in (sounds, images):
        page = Page(text)
        assert page.loaded
        assert all(address.startswith("data:") for address in page.loaded)
        assert "default-src 'none'" in text
        assert not re.search(r"https?:|url\(|@import|\bimport\b", text)
        assert "link" not in page.tags
    assert Page(sounds).tags.count("audio") == 18
    assert "audio" not in Page(images).tags


def test_every_image_of_the_page_is_described_and_every_table_has_a_caption(tmp_path, grid):
    text = report(tmp_path, grid, make_images(grid))["report.html"]
    images = re.findall(r"<img[^>]*>", text)
    assert len(images) == 2
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert text.count("<table") == text.count("<caption>") == 5


def test_samples_are_shown_pixel_for_pixel_and_missing_ones_are_grey(tmp_path):
    cells = [make_cell("DDIM-rev", choice, 5, 1.0) for choice in CHOICES[:2]]
    pixels = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    write(tmp_path, make_results(cells), {cells[0]["id"]: pixels})
    with Image.open(tmp_path / "samples.png") as image:
        sheet = np.asarray(image.convert("RGB"))
    large = pixels.repeat(7, axis=1).repeat(7, axis=2)
    top, left = 34, 205
    np.testing.assert_array_equal(sheet[top : top + 56, left : left + 56], large[0])
    np.testing.assert_array_equal(sheet[top : top + 56, left + 60 : left + 116], large[1])
    below = top + 56 + 20
    assert (sheet[below : below + 56, left : left + 56] == 238).all()


def test_methods_for_which_there_is_no_room_are_counted(tmp_path):
    cells = [make_cell("DDIM-rev", f"choice {i}", 5, 1.0 + i) for i in range(60)]
    text = report(tmp_path, cells, make_images(cells, count=1))["report.html"]
    kept, left_out = map(
        int, re.findall(r"The (\d+) methods .* shown; (\d+) are left out", text)[0]
    )
    assert kept + left_out == 60
    assert 20 <= kept < 60


def test_an_old_picture_does_not_outlive_its_report(tmp_path, grid):
    report(tmp_path, grid, make_images(grid))
    report(tmp_path, grid)
    assert not (tmp_path / "out" / "samples.png").exists()


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        ([np.zeros((2, 8, 8, 1))], "must be uint8 images"),
        ([np.zeros((2, 8, 8), dtype=np.uint8)], "must be uint8 images"),
        ([np.zeros((2, 8, 8, s), dtype=np.uint8) for s in (1, 3)], "of one shape"),
    ],
)
def test_pictures_of_another_kind_are_refused(tmp_path, grid, pictures, message):
    named = {cell["id"]: picture for cell, picture in zip(grid, pictures, strict=False)}
    with pytest.raises(InvalidArgumentError, match=message):
        write(tmp_path, make_results(grid), named)


def test_sounds_that_are_silent_short_or_not_finite_are_drawn(tmp_path, grid):
    sounds = {
        cell["id"]: np.full((2, 100), value, dtype=np.float32)
        for cell, value in zip(grid, (0.0, np.nan, np.inf), strict=False)
    }
    assert "audio" in Page(report(tmp_path, grid, sounds, audio=True)["report.html"]).tags


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "fastdpm-samples"}, "no results of a comparison"),
        ({"version": 2}, "version 2"),
        ({"metrics": []}, "not whole"),
        ({"cells": [{"id": "x"}]}, "not whole"),
        ({"model": {}}, "not whole"),
        ({"n": math.inf}, "not whole"),
        ({"metrics": [{"key": "x", "name": "x", "better": "larger"}]}, "not whole"),
    ],
)
def test_other_results_are_refused_in_one_line_and_nothing_is_written(tmp_path, change, message):
    with pytest.raises(DataError, match=message) as caught:
        write(tmp_path / "out", make_results([]) | change, {})
    assert isinstance(caught.value, FastDPMError)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
