"""The bound on Gaussian data, where every term and the truth are known in closed form."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import (
    InvalidArgumentError,
    Model,
    SamplingError,
    VarianceSchedule,
    levels_step,
    levels_var,
)
from fastdpm.core import levels_all
from fastdpm.core.choices import CHOICES
from fastdpm.core.likelihood import GreyLevels, bound_coefficients
from fastdpm.inverse.likelihood import bits_per_dimension, grey_index, log_probability
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
SPREAD = 0.2
GREY = GreyLevels.spanning(65_536)
LEVELS = [choice.function(SCHEDULE, 10) for choice in CHOICES.values()]


class _Exact(nn.Module):
    """Exact eps of data N(0, SPREAD^2), which depends on the unrounded step."""

    def __init__(self, learned: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.learned = learned

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        r = float(SCHEDULE.R(float(t[0]) + 1))
        noise = 1 - r * r
        eps = math.sqrt(noise) / (r * r * SPREAD**2 + noise) * x * self.weight
        if self.learned is None:
            return eps
        return torch.cat([eps, torch.full_like(eps, self.learned)], dim=1)


def _model(network: nn.Module | None = None) -> Model:
    return Model.wrap((network or _Exact()).eval(), SCHEDULE, (1, 5000))


def _data(n: int = 12) -> Tensor:
    noise = torch.randn(n, 1, 5000, generator=torch.Generator().manual_seed(1)).double()
    index, _ = grey_index(SPREAD * noise, GREY)
    return GREY.low + GREY.step * index


def _closed_form(levels, variance: str) -> np.ndarray:
    """Expected terms in bits per dimension, exact for the rows and to O(step^2) for the last."""
    r = levels.level[:-1]
    noise = 1 - r**2
    uncertain = SPREAD**2 * noise / (r**2 * SPREAD**2 + noise)  # variance of x0 given x
    prior = 0.5 * (r[0] ** 2 * (SPREAD**2 - 1) - np.log(noise[0]))
    eta = 1 - (levels.level[:-1] / levels.level[1:]) ** 2
    posterior = noise[1:] / noise[:-1] * eta[:-1]
    chosen = posterior if variance == "small" else eta[:-1]
    apart = (levels.level[1:-1] * eta[:-1] / noise[:-1]) ** 2 * uncertain[:-1]
    rows = 0.5 * (np.log(chosen / posterior) + (posterior + apart) / chosen - 1)
    last = posterior[-1] if variance == "small" else eta[-1]
    decoder = 0.5 * (np.log(2 * np.pi * last) + uncertain[-1] / last) - np.log(GREY.step)
    return np.asarray([prior, *rows, decoder]) / math.log(2)


TRUTH = 0.5 * math.log2(2 * math.pi * math.e * SPREAD**2) - math.log2(GREY.step)


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels.label)
def test_every_term_is_the_closed_form(levels, variance):
    found = bits_per_dimension(_model(), _data(), levels, GREY, variance=variance)
    wanted = torch.from_numpy(_closed_form(levels, variance))
    error = found.terms.std(dim=0) / math.sqrt(len(found.terms))
    apart = (found.terms.mean(dim=0) - wanted).abs()
    assert bool((apart < 5 * error + 1e-6).all()), (apart / error, wanted)
    assert found.mean == pytest.approx(float(wanted.sum()), abs=5 * float(found.error or 0))
    assert abs(found.mean - float(wanted.sum())) < 0.02 * (float(wanted.sum()) - TRUTH) + 0.02


def test_more_steps_bound_the_truth_more_closely():
    data, model = _data(4), _model()
    every = bits_per_dimension(model, data, levels_all(SCHEDULE), GREY, variance="large")
    for choose in (levels_step, levels_var):
        bounds = [
            bits_per_dimension(model, data, choose(SCHEDULE, num_steps), GREY, variance="large")
            for num_steps in (5, 20, 100)
        ]
        means = [bound.mean for bound in (*bounds, every)]
        assert means[0] > means[1] + 0.1
        assert means[1] > means[2] + 0.1
        assert means[2] > means[3] + 0.05
    gap = _closed_form(levels_all(SCHEDULE), "large").sum() - TRUTH
    assert 0.005 < gap < 0.015
    assert every.mean - TRUTH == pytest.approx(gap, abs=0.02)


@pytest.mark.parametrize(("learned", "variance"), [(-1.0, "small"), (1.0, "large")])
def test_a_learned_variance_lies_between_the_fixed_ones(learned, variance):
    levels, data = levels_step(SCHEDULE, 6), _data(2)
    found = bits_per_dimension(_model(_Exact(learned)), data, levels, GREY, variance="learned")
    fixed = bits_per_dimension(_model(), data, levels, GREY, variance=variance)
    torch.testing.assert_close(found.terms, fixed.terms, rtol=1e-9, atol=0)
    between = bits_per_dimension(_model(_Exact(0.0)), data, levels, GREY, variance="learned")
    assert float((between.terms - fixed.terms).abs().max()) > 1e-3


@pytest.mark.parametrize("grey", [GreyLevels.spanning(17), GreyLevels.signed(64)])
@pytest.mark.parametrize("log_variance", [-12.0, -3.0, 1.0])
def test_the_decoder_sums_to_one_over_grey_levels(grey, log_variance):
    index = torch.arange(grey.count)
    for mean in (-3.0, -1.0, -0.93, 0.0, 0.31, 2.0):
        at = torch.full((grey.count,), mean, dtype=torch.float64)
        logs = log_probability(index, at, torch.tensor(log_variance, dtype=torch.float64), grey)
        assert float(logs.exp().sum()) == pytest.approx(1, abs=1e-12)
        assert bool(torch.isfinite(logs).all())


def test_the_decoder_keeps_its_digits_in_both_tails():
    """A level 20 deviations off: the normal tail to first order, on either side alike."""
    grey = GreyLevels.spanning(3)
    logs = [
        float(
            log_probability(
                torch.tensor([at]),
                torch.tensor([mean], dtype=torch.float64),
                torch.tensor(2 * math.log(0.05), dtype=torch.float64),
                grey,
            )
        )
        for at, mean in ((2, -0.5), (0, 0.5))
    ]
    z = 1.0 / 0.05
    tail = -0.5 * z * z - math.log(z * math.sqrt(2 * math.pi)) + math.log1p(-1 / z**2 + 3 / z**4)
    assert logs[0] == logs[1] == pytest.approx(tail, rel=1e-6)


def test_a_sample_depends_on_its_seed_and_index_not_on_its_batch(image_model):
    levels = levels_step(image_model.schedule, 5)
    x = torch.randint(0, 256, (5, 1, 8, 8)) / 127.5 - 1
    grey = GreyLevels.spanning(256)
    whole = bits_per_dimension(image_model, x, levels, grey, seed=4)
    split = bits_per_dimension(image_model, x, levels, grey, seed=4, batch_size=2)
    torch.testing.assert_close(split.terms, whole.terms, rtol=1e-4, atol=1e-4)
    assert whole.terms.shape == (5, 6)
    other = bits_per_dimension(image_model, x, levels, grey, seed=5)
    assert float((other.terms[:, 1:] - whole.terms[:, 1:]).abs().max()) > 1e-3


def test_clipping_what_leaves_the_range_of_data_never_costs(image_model):
    """Data lies in [-1, 1], so that a clipped prediction is nearer to it."""
    levels = levels_step(image_model.schedule, 5)
    x = torch.randint(0, 2, (4, 1, 8, 8)) * 2.0 - 1
    grey = GreyLevels.spanning(2)
    plain, clipped = (
        bits_per_dimension(image_model, x, levels, grey, clip=clip) for clip in ("none", "x0")
    )
    assert bool((clipped.terms[:, 1:-1] <= plain.terms[:, 1:-1] + 1e-9).all())
    assert clipped.mean < plain.mean


def test_a_vocoder_uses_the_mel_of_the_data(vocoder):
    x = (torch.rand(2, 1, 512) - 0.5) * 0.5
    grey = GreyLevels.signed(65_536)
    levels = levels_step(vocoder.schedule, 3)
    found = bits_per_dimension(vocoder, x, levels, grey, rounding=0.5)
    vocoder.conditions = None
    again = bits_per_dimension(vocoder, x, levels, grey, rounding=0.5)
    torch.testing.assert_close(found.terms, again.terms)


def test_each_sound_is_judged_for_its_own_condition(vocoder):
    x = (torch.rand(3, 1, 320, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.5
    grey, levels = GreyLevels.signed(65_536), levels_step(vocoder.schedule, 3)
    mels = torch.rand(2, 8, 20, generator=torch.Generator().manual_seed(1))
    choices: dict[str, Any] = {"rounding": 0.5, "condition": mels}
    whole = bits_per_dimension(vocoder, x, levels, grey, **choices)
    split = bits_per_dimension(vocoder, x, levels, grey, **choices, batch_size=1)
    torch.testing.assert_close(split.terms, whole.terms, rtol=1e-5, atol=1e-5)
    choices["condition"] = mels[[0, 0, 0]]
    first = bits_per_dimension(vocoder, x, levels, grey, **choices)
    apart = (first.terms - whole.terms).abs().amax(dim=1)
    assert apart[0] < 1e-5
    assert apart[1] > 1e-3
    assert apart[2] < 1e-5


def test_data_between_its_grey_levels_is_refused_not_rounded(image_model):
    levels = levels_step(image_model.schedule, 3)
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InvalidArgumentError, match=tells(0.5, 16, "`grey`")):
        bits_per_dimension(image_model, x, levels, GreyLevels.spanning(16))
    assert bits_per_dimension(image_model, x, levels, GreyLevels.spanning(17)).moved == 0
    index, moved = grey_index(torch.tensor([-1.0, 0.99, 1.0]), GreyLevels.spanning(3))
    assert index.tolist() == [0, 2, 2]
    assert moved == pytest.approx(0.01, abs=1e-6)


def test_full_scale_of_a_sound_belongs_to_its_last_level():
    """+1 lies a step beyond 32767 / 32768, and -1 is a level of its own."""
    grey, levels = GreyLevels.signed(65_536), levels_step(SCHEDULE, 2)
    x = torch.full((1, 1, 4), -1.0)
    x[..., 1:] = 1.0
    index, moved = grey_index(x, grey)
    assert index.flatten().tolist() == [0, 65_535, 65_535, 65_535]
    assert moved == 0
    model = Model.wrap(_Exact().eval(), SCHEDULE, (1, 4))
    found = bits_per_dimension(model, x, levels, grey)
    last = bits_per_dimension(model, x.clamp(max=grey.high), levels, grey)
    assert torch.equal(found.terms, last.terms)
    _, moved = grey_index(torch.tensor([-0.5, 0.875]), GreyLevels(3, 0.25, -0.25))
    assert moved == pytest.approx(1.5)


@pytest.mark.parametrize("grey", [GreyLevels.spanning(4), GreyLevels.signed(4)])
def test_a_rounding_of_half_a_step_takes_all_data(grey):
    model, x = Model.wrap(_Exact().eval(), SCHEDULE, (1, 2001)), torch.linspace(-1, 1, 2001)
    found = bits_per_dimension(
        model, x.expand(1, 1, -1), levels_step(SCHEDULE, 2), grey, rounding=0.5
    )
    assert 0.49 < found.moved <= 0.5


def test_what_cannot_be_bounded_is_one_line(image_model):
    levels = levels_step(image_model.schedule, 3)
    x, grey = torch.zeros(1, 1, 8, 8), GreyLevels.spanning(17)
    cases: list[tuple[dict[str, Any], Tensor, list[object]]] = [
        ({"variance": "medium"}, x, ["variance", "small", "large", "learned", "medium"]),
        ({"variance": "learned"}, x, ["learned", "small", "large"]),
        ({"clip": "zz"}, x, ["clip", "none", "x0", "dynamic", "zz"]),
        ({"rounding": -0.1}, x, ["rounding", "[0, 0.5]", -0.1]),
        ({"rounding": 0.6}, x, ["rounding", "[0, 0.5]", 0.6]),
        ({"rounding": float("nan")}, x, ["rounding", "[0, 0.5]", "nan"]),
        ({}, x[0], ["tiny-image", "(n, 1, 8, 8)", "(1, 8, 8)"]),
        ({}, x * float("nan"), ["`x`", "finite"]),
        ({}, x + 2, ["[-1, 1]", 2]),
        ({}, x + 0j, ["torch.complex64"]),
    ]
    for choices, data, values in cases:
        with pytest.raises(InvalidArgumentError, match=tells(*values)):
            bits_per_dimension(image_model, data, levels, grey, **choices)
    image_model.network.forward = lambda x, t: x * float("nan")
    with pytest.raises(SamplingError, match=tells("row 0 of 3")):
        bits_per_dimension(image_model, x, levels, grey)


def test_levels_of_another_schedule_are_refused(image_model):
    x, grey = torch.zeros(1, 1, 8, 8), GreyLevels.spanning(17)
    with pytest.raises(InvalidArgumentError, match=tells("row 0", 0.00635282, 999, "tiny-image")):
        bits_per_dimension(image_model, x, levels_step(SCHEDULE, 3), grey)
    part = levels_step(image_model.schedule, 6)[3:]
    assert bits_per_dimension(image_model, x, part, grey).terms.shape == (1, 4)


def test_a_single_row_bounds_too():
    levels = levels_step(SCHEDULE, 2)[1:]
    assert bound_coefficients(levels).posterior.size == 0
    found = bits_per_dimension(_model(), _data(2), levels, GREY)
    assert found.terms.shape == (2, 2)
    assert found.mean > TRUTH
