"""The figure of likelihoods draws terms at their levels, and sums that end in the total."""

from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import VarianceSchedule, levels_step
from fastdpm.core.likelihood import GreyLevels
from fastdpm.inverse.likelihood import Bound
from fastdpm.output import figures_likelihood

LEVELS = levels_step(VarianceSchedule.linear(100, 1e-4, 0.1), 4)
RATIO = np.sqrt(1 - LEVELS.level[:-1] ** 2) / LEVELS.level[:-1]
TERMS = {
    "a": [[0.1, 0.2, 0.4, 0.8, 1.6], [0.3, 0.2, 0.0, 1.2, 2.4]],
    "b": [[1.0, 0.0, 2.0, 3.0, 4.0]],
}


@pytest.fixture
def panels(monkeypatch, tmp_path) -> tuple[Any, Any]:
    """Terms and sums of two bounds, as drawn."""
    figures: list[Any] = []
    monkeypatch.setattr(
        figures_likelihood, "save_figure", lambda figure, _: figures.append(figure)
    )
    bounds = {
        name: Bound(LEVELS, torch.tensor(terms).double(), GreyLevels.spanning(256), "small", 0.0)
        for name, terms in TERMS.items()
    }
    figures_likelihood.write_terms(tmp_path / "a.png", bounds)
    each, total = figures[0].axes
    return each, total


def test_the_sum_runs_from_noise_to_data_and_ends_in_the_total(panels):
    _, total = panels
    assert total.xaxis_inverted()
    for line, terms in zip(total.lines, TERMS.values(), strict=True):
        mean = np.mean(terms, axis=0)
        x, y = line.get_data()
        np.testing.assert_allclose(x, [*RATIO, RATIO[-1]])
        np.testing.assert_allclose(y, [mean[: k + 1].sum() for k in range(5)])
        assert y[-1] == pytest.approx(mean.sum())
        assert line.get_drawstyle().startswith("steps")


def test_each_term_is_drawn_at_the_level_that_it_starts_from(panels):
    each, _ = panels
    drawn = [line for line in each.lines if len(line.get_xdata())]
    for i, terms in enumerate(TERMS.values()):
        mean = np.maximum(np.mean(terms, axis=0), 1e-6)  # the axis is logarithmic
        rows, prior, decoder = drawn[3 * i : 3 * i + 3]
        np.testing.assert_allclose(rows.get_data(), [RATIO[:-1], mean[1:-1]])
        np.testing.assert_allclose(prior.get_data(), [RATIO[:1], mean[:1]])
        np.testing.assert_allclose(decoder.get_data(), [RATIO[-1:], mean[-1:]])


def test_the_legend_says_the_total_with_its_error_where_there_are_several_samples(panels):
    each, _ = panels
    said = [text.get_text() for text in each.figure.legends[0].get_texts()]
    totals = np.sum(TERMS["a"], axis=1)
    error = totals.std(ddof=1) / np.sqrt(2)
    assert said[0] == f"a: {totals.mean():.3f} ± {error:.3f}"
    assert said[1] == "b: 10.000"
