"""The tables and the summary of a report: each value, which are best, and what is missing."""

import csv
import json
import math
import re

import numpy as np
import pytest

from fastdpm.evaluation.report.words import summary
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Score
from tests.evaluation.reports import (
    FD,
    PRECISION,
    Page,
    make_cell,
    make_images,
    make_results,
    report,
    table,
)
from tests.messages import tells


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
    assert list(rows[0])[:5] == ["method", "family", "group", "choice", "num_steps"]
    assert float(rows[0]["seconds_per_sample"]) == float(rows[0]["seconds"]) / 2000
    assert rows[1]["seconds_per_sample"] == ""


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
    assert "| S = 5 | S = 10 |" in text
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
    lines = summary(Comparison.from_dict(make_results(cells)))
    wanted: list[list[object]] = [
        ["S = 10", "0.600 ± 0.012", "DDIM-rev, VAR linear", 1, "50% above", 10, "1,000"],
        ["0.400 ± 0.012", "1,000"],
        ["360 held-out digits", "0.210 ± 0.030"],
        ["2,000", "1,000", 360],
        ["1 of 5"],
    ]
    for line, values in zip(lines, wanted, strict=True):
        assert re.search(tells(*values), line)


@pytest.mark.parametrize(
    ("method", "guidance", "options"),
    [
        (
            "step-trailing-k0.5",
            "",
            "--method ddim-rev --levels step --spacing trailing --kappa 0.5",
        ),
        ("diffusers-unipc-leading", "", "--method unipc-2 --levels step --spacing leading-open"),
        ("var-linear-k0", "guidance 1.5", "--clip none --guidance 1.5"),
        ("diffusers-plms-leading", "", "--recipe diffusers-plms-leading"),
        ("diffusers-ddpm-leading", "", None),
    ],
)
def test_the_summary_says_how_to_sample_with_the_best(method, guidance, options):
    cell = make_cell("group", "choice", 10, 0.6, method=method)
    cell |= {"guidance": guidance} if guidance else {}
    line = summary(Comparison.from_dict(make_results([cell])))[0]
    assert ("Sample it with -S 10" in line) == (options is not None)
    assert options is None or options in line


def test_a_failed_cell_says_why_everywhere(tmp_path, grid):
    why = "takes from 4 to 1000 (T) steps S, got <3> & less"
    grid[0] |= {"failed": why, "metrics": {}, "evaluations": None, "seconds": None}
    texts = report(tmp_path, grid, make_images(grid[1:]))
    assert table(texts["results.md"])["DDIM-rev", "STEP linear"][0].endswith(
        "takes from 4 to 1000 (T) steps S, got \\<3\\> \\& less"
    )
    assert why in Page(texts["report.html"]).text


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
    assert len(first) == 2
    assert not re.search(r"\d|nan|inf\b", " ".join(first))
    assert "nan" not in texts["results.csv"]


def test_a_comparison_in_which_all_failed_is_still_a_report(tmp_path, grid):
    cells = [cell | {"failed": "it broke", "metrics": {}} for cell in grid]
    texts = report(tmp_path, cells, floor=False)
    assert re.search(tells("17 of 17"), Page(texts["report.html"]).text)
    assert all(cell["failed"] in texts["results.md"] for cell in cells)


def test_standard_samplers_alone_are_a_report(tmp_path):
    cells = [make_cell("standard sampler", "", 1000, 0.42, family="standard")]
    texts = report(tmp_path, cells, make_images(cells))
    assert "| standard sampler | 1,000 | 2,000 | 0.420 ± 0.012 |" in texts["results.md"]


def test_scores_of_the_same_seeds_are_compared_by_the_error_of_their_difference(tmp_path):
    """The second is worse for sure, though the errors of both values are larger than that."""
    halves = {"STEP linear": [0.1, -0.1], "VAR linear": [0.11, -0.09], "VAR quadratic": [0.1, 0.1]}
    cells = []
    for (choice, parts), value in zip(halves.items(), (1.0, 1.05, 1.1), strict=True):
        cells.append(make_cell("DDIM-rev", choice, 5, value, error=0.1))
        cells[-1]["metrics"][FD]["halves"] = parts
    cells.append(make_cell("standard sampler", "", 1000, 0.5, family="standard", error=0.1))
    cells[-1]["metrics"][FD]["halves"] = [0.1, -0.1]
    text = report(tmp_path, cells)["results.md"]
    assert list(table(text).values()) == [
        ["**1.00 ± 0.10**"],
        ["1.05 ± 0.10"],
        ["1.10 ± 0.10 †"],
    ]
    best = text.split("difference from the best at each S")[1]
    assert list(table(best).values())[:3] == [["best"], ["0.050 ± 0.010"], ["0.10 ± 0.14"]]
    standard = text.split("difference from the standard sampler")[1]
    assert next(iter(table(standard).values())) == ["0.5 ± 0"]
    lines = report(tmp_path, cells)["results.csv"].splitlines()
    columns = dict(zip(lines[0].split(","), lines[2].split(","), strict=True))
    assert float(columns[f"{FD}_minus_best"]) == pytest.approx(0.05)
    assert float(columns[f"{FD}_minus_best_error"]) == pytest.approx(0.01)


def test_a_table_alone_explains_its_marks_and_has_the_notes_on_all_cells():
    cells = [make_cell("DDIM-rev", choice, 5, 1.0, notes=["on all"]) for choice in ("a", "b", "c")]
    cells[1]["notes"] = ["on all", "on one"]
    cells[2] = make_cell("DDPM-rev", "a", 5, 2.0, notes=["on all", "on precision"])
    text = Comparison.from_dict(make_results(cells)).table()
    assert "1. on all" in text
    assert "(note 2)" in text
    assert "2. on one" in text
    assert "†: " in text
