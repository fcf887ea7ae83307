"""Guidance: both halves in one batch, scales by level, and Gaussians with known answers."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    run,
)
from fastdpm.core import GuidanceScale
from fastdpm.sampling import ClassifierGuidance, ClipX0, Guidance, VPrediction
from fastdpm.sampling.network import count_evaluations
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear(100, 1e-4, 0.1)
MEANS, DEVIATION = torch.tensor([-1.5, 2.0, 0.5], dtype=torch.float64), 0.3  # the last is null


def gaussian_eps(x: Tensor, t: Tensor, mean: Tensor) -> Tensor:
    """The exact eps of data N(mean, DEVIATION^2)."""
    r = torch.from_numpy(SCHEDULE.R(t.numpy() + 1)).reshape(-1, 1)
    sigma = (1 - r**2).sqrt()
    return sigma * (x - r * mean[:, None]) / (r**2 * DEVIATION**2 + sigma**2)


class Recorder:
    """The exact network of Gaussians by class, which records its batches."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.batches.append(len(x))
        return gaussian_eps(x, t, MEANS[label])


def guide(network, scale, rescale=0.0) -> Guidance:
    return Guidance(network, torch.tensor([0, 1]), torch.tensor([2, 2]), scale, rescale)


@pytest.mark.parametrize(("scale", "batch"), [(0.0, 2), (1.0, 2), (2.5, 4), (-1.0, 4)])
def test_guided_gaussians_are_those_of_a_shifted_mean_from_one_batch_a_row(scale, batch):
    """With equal variances, guidance moves the mean from null to class by the scale."""
    network = Recorder()
    plan = ddim_rev(levels_step(SCHEDULE, 12))
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = run(plan, guide(network, scale), x)
    mean = MEANS[2] + scale * (MEANS[:2] - MEANS[2])
    expected = run(plan, lambda x, t: gaussian_eps(x, t, mean), x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert network.batches == [batch] * 12


def test_scales_by_level_decide_how_often_the_network_is_evaluated():
    network = Recorder()
    plan = ddim_rev(levels_step(SCHEDULE, 4))
    guidance = GuidanceScale((1.0, 3.0, 0.0, 2.0))
    guided = guide(network, guidance.over(plan.network_level)["guidance_scale"])
    counts = [count_evaluations(ClipX0(guided), level) for level in plan.network_level.tolist()]
    run(plan, guided, torch.zeros(2, 5, dtype=torch.float64))
    assert network.batches == [2, 4, 2, 4]
    assert counts == [1, 2, 1, 2]
    assert guidance.evaluations(plan.network_level) == 6


def test_rescaling_restores_the_deviation_of_the_conditional_half():
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([50.0, 50.0], dtype=torch.float64)
    for rescale in (0.0, 0.4, 1.0):
        guided = guide(Recorder(), 3.0)(x, t)
        found = guide(Recorder(), 3.0, rescale)(x, t)
        conditional = Recorder()(x, t, torch.tensor([0, 1]))
        factor = conditional.std(dim=1) / guided.std(dim=1)
        expected = guided * (rescale * factor + 1 - rescale)[:, None]
        torch.testing.assert_close(found, expected)


def test_guidance_of_v_is_guidance_of_eps():
    x, t, level = torch.ones(2, 3), torch.tensor([5.0, 5.0]), 0.6

    def v(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return x * label[:, None]

    def eps(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return level * v(x, t, label) + math.sqrt(1 - level**2) * x

    of_v = VPrediction(guide(v, 2.5))(x, t, level)
    torch.testing.assert_close(of_v, guide(eps, 2.5)(x, t))


def test_scales_that_are_no_number_are_refused():
    for scale in ([1.0, 2.0], float("nan")):
        with pytest.raises(InvalidArgumentError, match=tells("guidance_scale")):
            guide(Recorder(), scale)
    with pytest.raises(InvalidArgumentError, match=tells("guidance_rescale", 2)):
        guide(Recorder(), 2.0, 2.0)


def class_logits(x: Tensor, t: Tensor) -> Tensor:
    """log p(x | y, t) up to a constant, for the two classes, shape (batch, 2)."""
    r = torch.from_numpy(SCHEDULE.R(t.numpy() + 1)).reshape(-1, 1, 1)
    variance = r**2 * DEVIATION**2 + 1 - r**2
    distance = (x[:, None] - r * MEANS[:2].reshape(1, 2, 1)) ** 2
    return (-0.5 * distance / variance).sum(dim=2)


def mixture_eps(x: Tensor, t: Tensor) -> Tensor:
    """The exact eps of data that is one of the two Gaussians, equally often."""
    share = class_logits(x, t).softmax(dim=1)
    count = len(x)
    parts = [gaussian_eps(x, t, MEANS[k].expand(count)) * share[:, k : k + 1] for k in (0, 1)]
    return parts[0] + parts[1]


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_classifier_turns_a_mixture_into_its_class(scale):
    """By Bayes' rule, eps of the class is that of the mixture minus sigma grad log p(y | x)."""
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), 20.0, dtype=torch.float64)
    level = float(SCHEDULE.R(21.0))
    guided = ClassifierGuidance(
        mixture_eps, lambda x, t: class_logits(x, t).log_softmax(dim=1)[:, 1], scale
    )
    with torch.no_grad():
        found = guided(x, t, level)
    mixture, of_class = mixture_eps(x, t), gaussian_eps(x, t, MEANS[1].expand(4))
    torch.testing.assert_close(found, mixture + scale * (of_class - mixture))
    assert (of_class - mixture).abs().max() > 0.1


def _constant(count: int, x: Tensor, t: Tensor) -> Tensor:
    return torch.zeros(count)


def test_a_classifier_that_ignores_the_state_is_refused():
    x = torch.ones(4, 2)
    for count in (4, 2):
        guided = ClassifierGuidance(lambda x, t: x, partial(_constant, count))
        with pytest.raises(SamplingError, match=tells("log_probability", "(4,)")):
            guided(x, torch.ones(4), 0.5)
    with pytest.raises(InvalidArgumentError, match=tells("scale", "inf")):
        ClassifierGuidance(lambda x, t: x, lambda x, t: t, math.inf)
