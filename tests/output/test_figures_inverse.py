"""Pictures of the inverse direction show what was lost, and draw silence without a word."""

from typing import Any

import matplotlib.figure
import numpy as np
import pytest
import torch
from PIL import Image

from fastdpm.data.spec import DataSpec
from fastdpm.output import figures_inverse
from fastdpm.output.figures import power_in_db, write_picture
from fastdpm.output.figures_inverse import (
    write_edits,
    write_pairs,
    write_psnr,
    write_sound_strip,
)


@pytest.fixture
def drawn(monkeypatch) -> list[Any]:
    """The figures that were saved."""
    figures: list[Any] = []
    monkeypatch.setattr(figures_inverse, "save_figure", lambda figure, _: figures.append(figure))
    return figures


def _texts(figure: matplotlib.figure.Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_silence_is_drawn_at_the_floor_and_a_tone_at_its_frequency(tmp_path):
    sound = np.zeros(4000, dtype=np.float32)
    sound[2000:] = np.sin(2 * np.pi * 1000 * np.arange(2000) / 8000)
    power = power_in_db(sound, 8000)
    assert (power[:, :28] == -120).all()
    assert (power[:, 40:].argmax(axis=0) == 1000 * 256 // 8000).all()
    write_picture(tmp_path / "a.png", sound[None], 8000)  # warnings are errors here
    assert (tmp_path / "a.png").is_file()


def test_the_legend_says_how_many_samples_were_lost(drawn, tmp_path):
    nan = float("nan")
    curves = {
        "implicit": {5: [28.0, 40.0, 52.0, nan], 10: [nan] * 4},
        "first": {5: [19.0, 20.0, 20.0, 21.0], 10: [21.0, 22.0, 22.0, 23.0]},
    }
    lost = {"implicit": {5: [nan] * 4, 10: [nan] * 4}}
    write_psnr(tmp_path / "a.png", {"STEP linear": curves, "VAR linear": lost})
    step, var = drawn[0].axes
    labels = [text.get_text().replace("\u00a0", " ") for text in step.get_legend().get_texts()]
    assert " ".join(labels[0].split()) == "implicit (of 4 lost: 1 at S = 5, 4 at S = 10)"
    assert labels[1] == "first"
    assert [text.get_text() for text in var.texts] == ["none converged"]
    low, high = step.get_ylim()
    assert low < 19
    assert high > 50


def test_lines_are_medians_and_bands_percentiles_of_what_converged(drawn, tmp_path):
    exact = [float("inf")] * 3
    curves = {"first": {5: [30.0, 10.0, 20.0, float("nan")], 10: exact}}
    write_psnr(tmp_path / "a.png", {"STEP linear": curves})
    (panel,) = drawn[0].axes
    np.testing.assert_allclose(panel.lines[0].get_data(), [[5, 10], [20, 200]])
    (bars,) = [c for c in panel.collections if hasattr(c, "get_segments")]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[12, 28], [200, 200]])


def test_a_lost_sample_is_marked_and_not_drawn_grey(drawn, tmp_path):
    x = torch.rand(2, 1, 4, 4)
    back = x.clone()
    back[1] = torch.nan
    rows = {"original": x, "implicit, S = 5": back}
    write_pairs(tmp_path / "a.png", rows, DataSpec("image", (1, 4, 4)))
    assert _texts(drawn[0]) == ["lost"]


@pytest.mark.parametrize(("count", "shown"), [(9, range(9)), (17, range(0, 17, 2))])
def test_the_middle_of_the_way_is_among_the_sounds_drawn(drawn, tmp_path, count, shown):
    write_sound_strip(tmp_path / "a.png", np.zeros((count, 512), dtype=np.float32), 8000)
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert titles == [f"{i / (count - 1):.2f} of the way" for i in shown]


def test_what_is_to_be_painted_is_striped_and_nothing_else_is(tmp_path):
    x = torch.zeros(1, 1, 8, 8)  # grey: what stands for nothing
    result = x.clone()
    result[..., :4, :] = 0.5
    painted = torch.zeros(8, 8, dtype=torch.bool)
    painted[:4] = True
    write_edits(tmp_path / "a.png", x, result, painted, DataSpec("image", (1, 8, 8)))
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    coloured = np.abs(pixels[..., 0] - pixels[..., 2]) > 20
    side = 256
    assert coloured.sum() == pytest.approx(side * side / 2, rel=0.02)
