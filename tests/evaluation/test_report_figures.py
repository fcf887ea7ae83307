"""Figures show every value that they can, say where the others are, and can be chosen from."""

import math
import sys
from dataclasses import replace

import pytest

from fastdpm import FastDPMError, InvalidArgumentError
from fastdpm.core.errors import MissingExtraError
from fastdpm.evaluation.report.figures import distance_figure
from fastdpm.evaluation.report.frame import csv_text
from fastdpm.evaluation.report.labels import apart
from fastdpm.evaluation.report.samples import samples_figure
from fastdpm.evaluation.report.scale import scale_of
from fastdpm.evaluation.report.words import ratio
from fastdpm.evaluation.results import Comparison
from fastdpm.evaluation.scores import Metric, Score, duration
from tests.evaluation.reports import (
    CHOICES,
    FD,
    PRECISION,
    make_cell,
    make_grid,
    make_images,
    make_results,
)
from tests.messages import tells

LOWER, HIGHER = Metric("a", "A", "lower"), Metric("b", "B", "higher")


@pytest.fixture
def comparison() -> Comparison:
    """Twelve methods, with samples."""
    cells = make_grid(rivals=False, kappas=(0.0, 0.5, 1.0), steps=(5, 10, 20))
    for i, cell in enumerate(cells):
        cell["method"] = f"method-{i // 3}"
    return replace(Comparison.from_dict(make_results(cells)), pictures=make_images(cells, 2))


def _texts(figure) -> str:
    texts = [t.get_text() for panel in figure.axes for t in (*panel.texts, panel.title)]
    texts += [panel.get_title(loc="left") for panel in figure.axes]
    return "\n".join([*texts, *(t.get_text() for t in figure.texts)])


@pytest.mark.parametrize("methods", [None, ["DDIM-rev"]])
@pytest.mark.parametrize("metric", ["FD", "precision"])
def test_every_panel_has_the_same_axis_and_it_holds_every_error_bar(comparison, methods, metric):
    shown = comparison.select(methods, metric)
    figure = distance_figure(shown)
    assert len(figure.axes) == (1 if methods else 3)
    limits = {panel.get_ylim() for panel in figure.axes}
    assert len(limits) == 1
    ((low, high),) = limits
    scores = [c.scores[shown.primary.key] for row in shown.rows for c in row.cells.values()]
    assert all(low < s.value - s.spread and s.value + s.spread < high for s in scores)
    ends = [s.value - s.spread for s in scores] + [s.value + s.spread for s in scores]
    if metric == "precision":  # linear, as it has a top
        assert high - low < 1.4 * (max(ends) - min(ends))
    else:
        assert high / low < 1.6 * max(ends) / min(ends)  # and little else


def test_a_value_far_outside_is_marked_and_does_not_flatten_the_others(comparison):
    first, *others = comparison.cells
    far = replace(first, metrics={FD: Score(4321.0, 1.0)})
    figure = distance_figure(replace(comparison, cells=(far, *others)))
    assert figure.axes[0].get_ylim()[1] < 50
    assert "4.32e+03" in _texts(figure)
    assert "4.32e+03" not in _texts(distance_figure(comparison))


def test_only_a_few_bad_values_are_left_out_and_never_good_ones():
    usual = [Score(1 + i / 20, 0.01) for i in range(18)]
    assert scale_of(LOWER, [*usual, Score(1000.0)], (), 0).high < 4
    assert scale_of(LOWER, [*usual, *[Score(1000.0)] * 9], (), 0).high > 1000
    assert scale_of(LOWER, [*usual, Score(0.001)], (), 0).low < 0.001
    assert scale_of(HIGHER, [*usual, Score(0.001)], (), 0).low > 0.5
    assert scale_of(LOWER, [Score(1.0), Score(1000.0)], (), 0).high > 1000


def test_values_of_both_signs_near_zero_are_spread():
    scores = [Score(-0.002 + i / 5000, 0.002) for i in range(30)]
    scores += [Score(0.02 * 1.5**i, 0.002) for i in range(6)]
    scale = scale_of(LOWER, scores, (), 0)
    assert scale.kind == "symlog"
    assert scale.place(0.004) - scale.place(-0.002) > 0.2
    assert 0.0 in scale.ticks
    assert all(0 <= scale.place(tick) <= 1 for tick in scale.ticks)


def test_an_error_as_large_as_its_value_adds_no_empty_decades():
    scale = scale_of(LOWER, [Score(0.1, 0.0999), Score(1.0, 0.1)], (), 0)
    assert scale.kind == "log"
    assert scale.low > 0.01


def test_one_value_and_none_have_an_axis():
    for scores in ([], [Score(0.5)], [Score(0.0)]):
        scale = scale_of(LOWER, scores, (), 0)
        assert scale.low < scale.high


@pytest.mark.parametrize("methods", [None, ["DDIM-rev"]])
def test_real_data_outside_the_axis_are_an_arrow_with_the_value(comparison, methods):
    results = comparison.results
    results["floor"] |= {"n": 5000, "metrics": {FD: {"value": 0.0012, "error": 0.0001}}}
    figure = distance_figure(Comparison.from_dict(results).select(methods, "FD"))
    assert figure.axes[0].get_ylim()[0] > 0.1
    assert "0.0012" in _texts(figure)
    results["floor"]["metrics"][FD] = {"value": 0.4, "error": 0.01}
    figure = distance_figure(Comparison.from_dict(results).select(methods, "FD"))
    assert figure.axes[0].get_ylim()[0] < 0.4
    assert "real data 0.4" not in _texts(figure)


def test_methods_are_chosen_by_key_group_family_and_name(comparison):
    def names(methods) -> list[str]:
        return [row.name for row in comparison.select(methods).rows]

    assert names("DDIM-rev") == [f"DDIM-rev, {choice}" for choice in CHOICES]
    assert names(["method-0", "ddpm-rev, var linear"]) == [
        "DDIM-rev, STEP linear",
        "DDPM-rev, VAR linear",
    ]
    assert len(names(["paper"])) == 12
    part = comparison.select("DDIM-rev", ["precision", FD], 10)
    assert part.steps == (10,)
    assert [metric.key for metric in part.metrics] == [PRECISION, FD]
    assert [cell.name for cell in part.references] == ["standard sampler"]
    assert len(distance_figure(comparison.select("DDIM-rev", ["precision", FD])).axes) == 2


@pytest.mark.parametrize(
    ("choice", "values"),
    [
        ({"methods": ["euler"]}, ["methods", "euler", "paper", "DDIM-rev", "method-0"]),
        ({"methods": []}, ["methods"]),
        ({"metrics": ["fid"]}, ["metrics", "fid", FD, PRECISION]),
        ({"num_steps": 7}, ["num_steps", 7, 5, 10, 20]),
    ],
)
def test_what_was_not_measured_is_refused_in_one_line(comparison, tmp_path, choice, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)) as caught:
        comparison.plot(tmp_path / "a.png", **choice)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_a_figure_has_the_format_of_its_suffix_and_the_same_bytes_again(
    comparison, tmp_path, suffix, start
):
    part = comparison.select("DDIM-rev", num_steps=5)
    draw = (part.plot, part.plot_samples)
    for i, plot in enumerate(draw):
        paths = [tmp_path / f"{i}-{j}.{suffix}" for j in range(2)]
        for path in paths:
            plot(str(path))
        first, second = (path.read_bytes() for path in paths)
        assert first == second
        assert first.startswith(start)
        if suffix == "svg":
            assert b"DDIM-rev" in first  # as text


def test_other_suffixes_and_formats_are_refused(comparison, tmp_path):
    with pytest.raises(InvalidArgumentError, match=tells("a.jpg", ".png", ".pdf", ".svg")):
        comparison.plot(tmp_path / "a.jpg")
    for formats in (["png", "gif"], "png"):
        with pytest.raises(InvalidArgumentError, match=tells("formats", "png", "pdf", "svg")):
            comparison.write(tmp_path / "out", formats=formats)
    assert not list(tmp_path.iterdir())


def test_a_report_has_the_formats_that_were_chosen_and_no_older_ones(comparison, tmp_path):
    few = comparison.select("DDIM-rev")
    few.write(tmp_path)
    found = few.write(str(tmp_path), formats=["svg"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in found} | {"run.jsonl"}
    assert {n for n in names if n.startswith(("distance", "samples"))} == {
        "distance.svg",
        "samples.svg",
    }


def test_the_figure_of_samples_says_which_are_shown(comparison, tmp_path):
    found = samples_figure(comparison, num_steps=[5, 20], methods="DDIM-rev")
    assert found is not None
    figure, caption = found
    text = _texts(figure)
    assert "S = 5 and 20: 4 of 12 methods" in text
    assert "S = 5 and 20: 4 of 12 methods" in caption
    assert text.count("DDIM-rev") == 4
    assert "DDPM-rev" not in text
    unread = replace(comparison, pictures={})
    with pytest.raises(FastDPMError, match=tells("results.json")):
        unread.plot_samples(tmp_path / "a.png")
    with pytest.raises(InvalidArgumentError, match=tells("num_steps", 7)):
        comparison.plot_samples(tmp_path / "a.png", num_steps=7)


def test_a_table_is_markdown_of_one_metric_or_of_times(comparison):
    first = comparison.table().splitlines()
    assert first[0].endswith("| S = 5 | S = 10 | S = 20 |")
    assert comparison.table("fd") == comparison.table()
    assert "**" in comparison.table("precision", methods="DDIM-rev")
    assert len(comparison.table(methods="DDIM-rev").splitlines()) < len(first)
    times = comparison.table("seconds_per_sample", methods="method-0")
    assert "| 1 ms | 2 ms | 4 ms |" in times  # 0.4 s for each step, 2,000 samples
    assert "| standard sampler | 1,000 | 1,000 | 400 ms |" in times
    with pytest.raises(InvalidArgumentError, match=tells("metric", "fid", FD)):
        comparison.table("fid")


def test_a_table_explains_its_marks_and_its_own_notes():
    cells = [make_cell("DDIM-rev", choice, 5, 1.0) for choice in CHOICES[:3]]
    cells[1]["notes"], cells[2]["notes"] = ["first remark"], ["second remark"]
    cells.append(make_cell("standard sampler", "", 1000, 0.4, family="standard", method="s"))
    cells[3]["notes"] = ["third remark"]
    comparison = Comparison.from_dict(make_results(cells))
    text = comparison.table()
    assert "(note 2)" in text
    assert "\n2. second remark" in text
    assert "(note 3) |\n" in text
    assert "†" in text.split("\n\n")[2]
    assert "second remark" not in comparison.select(num_steps=5).table("seconds_per_sample")
    assert "†" not in comparison.table("seconds_per_sample")


def test_a_data_frame_has_the_columns_of_the_csv(comparison):
    pytest.importorskip("pandas", reason="pandas comes with fastdpm[eval]")
    frame = comparison.to_pandas()
    assert list(frame.columns) == csv_text(comparison).splitlines()[0].split(",")
    assert len(frame) == len(comparison.cells)
    assert frame[FD].iloc[0] == comparison.cells[0].metrics[FD].value
    assert frame["seconds_per_sample"].iloc[0] == pytest.approx(0.001)


def test_without_pandas_one_line_says_what_to_install(comparison, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=tells("pandas", "fastdpm[eval]")):
        comparison.to_pandas()


def test_labels_stay_near_their_curves_and_do_not_overlap():
    assert apart([1.0, 2.0], [0.5, 0.5], 3) == [1.0, 2.0]
    crowded = apart([1.0, 1.0, 1.1], [0.2, 0.4, 0.2], 3)
    assert crowded == sorted(crowded)
    assert crowded[1] - crowded[0] == pytest.approx(0.3)
    assert crowded[2] - crowded[1] == pytest.approx(0.3)
    assert sum(crowded) / 3 == pytest.approx(3.1 / 3, abs=0.01)
    assert min(apart([0.0, 0.0], [0.2, 0.2], 3)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.2e-5, "42 µs"), (0.00131, "1.31 ms"), (2.5, "2.5 s"), (300, "5 min"), (9000, "2.5 h")],
)
def test_a_time_is_shown_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("times", "text"),
    [(1.0, "equal to"), (1.004, "equal to"), (1.12, "12% above"), (0.57, "43% below")],
)
def test_a_ratio_is_put_into_words(times, text):
    assert ratio(times) == text
    assert math.isfinite(times)


def test_a_method_without_values_leaves_a_figure():
    cells = [make_cell("DDIM-rev", "VAR linear", 5, 1.0, failed="it broke", metrics={})]
    figure = distance_figure(Comparison.from_dict(make_results(cells, floor=False)))
    assert "no values" in _texts(figure)


@pytest.mark.parametrize(("real", "shown"), [(0.21, True), (0.01, False)])
def test_standard_samplers_alone_are_lines_without_empty_decades(real, shown):
    results = make_results([make_cell("standard sampler", "", 1000, 0.42, family="standard")])
    results["floor"] |= {"n": 2000, "metrics": {FD: {"value": real, "error": 0.001}}}
    figure = distance_figure(Comparison.from_dict(results).select(metrics=FD))
    low, high = figure.axes[0].get_ylim()
    assert low < 0.42 < high < 10 * low
    assert (low < real) == shown
    assert f"{real:.3g}" in _texts(figure) or shown
    assert "no values" not in _texts(figure)


def test_the_samples_of_standard_samplers_alone_have_no_steps_to_choose(tmp_path):
    cells = [make_cell("standard sampler", "", 1000, 0.42, family="standard")]
    found = replace(Comparison.from_dict(make_results(cells)), pictures=make_images(cells))
    found.plot_samples(tmp_path / "a.png")
    with pytest.raises(InvalidArgumentError, match=tells("num_steps", "T")):
        found.plot_samples(tmp_path / "a.png", num_steps=5)
