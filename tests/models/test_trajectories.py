"""Costs of steps are those of the trajectories that a model draws."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, Model, SampleNoise, VarianceSchedule
from fastdpm.core import GuidanceScale, ipndm, levels_gits, levels_sigma
from fastdpm.core.history import scales
from fastdpm.models import trajectories, trajectory_costs
from fastdpm.sampling import SamplingState
from tests.bad_calls import Net
from tests.core.test_gits import objective
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
SHAPE = (1, 2, 3)
DEVIATIONS = torch.tensor([0.1, 0.3, 0.5, 1.0, 1.5, 2.0], dtype=torch.float64)


class Gaussian(nn.Module):
    """The exact eps of data N(label, DEVIATIONS^2)."""

    def __init__(self, deviations: Tensor = DEVIATIONS) -> None:
        super().__init__()
        self.deviations = nn.Parameter(deviations.reshape(SHAPE))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        level = float(SCHEDULE.R(float(t[0]) + 1))
        mean = 0.0 if label is None else label.to(x)[:, None, None, None]
        variance = (1 - level**2) + (level * self.deviations) ** 2
        return math.sqrt(1 - level**2) * (x - level * mean) / variance


def model(network: nn.Module | None = None, classes: int | None = None) -> Model:
    chosen = (network or Gaussian()).eval()
    return Model.wrap(chosen, SCHEDULE, SHAPE, classes=classes, null_class=classes is not None)


def exact(level: np.ndarray, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """States and predictions on the exact trajectories of `model()` with seed 0."""
    start = SampleNoise(0, range(count)).start(SHAPE, dtype=torch.float64)
    sizes = [torch.sqrt(1 - r**2 + (r * DEVIATIONS.reshape(SHAPE)) ** 2) for r in level]
    states = [start * size / sizes[0] for size in sizes]
    steps = SCHEDULE.T(level[:-1]) - 1
    network = Gaussian()
    with torch.no_grad():
        return states, [
            network(x, torch.full((count,), t)) for x, t in zip(states, steps, strict=False)
        ]


def test_costs_are_those_of_their_definition():
    level = levels_sigma(SCHEDULE, 12).level
    states, predictions = exact(level, 3)
    found = trajectories.deviation_costs(level, states, predictions)
    y = [(x / r).flatten(1).numpy() for x, r in zip(states, level, strict=True)]
    sigma, line = scales(level), y[0] - y[-1]

    def deviation(point: np.ndarray) -> np.ndarray:
        share = np.sum((point - y[-1]) * line, axis=1) / np.sum(line**2, axis=1)
        off_line = point - y[-1] - share[:, None] * line
        return np.asarray(np.linalg.norm(off_line, axis=1))

    for i in range(12):
        for j in range(i + 1, 13):
            reached = y[i] + (sigma[j] - sigma[i]) * predictions[i].flatten(1).numpy()
            cost = level[j] * np.sum(deviation(reached) - deviation(y[j]))
            np.testing.assert_allclose(found[i, j], cost, rtol=1e-9, atol=1e-6)


def test_the_teacher_draws_the_trajectories_of_the_model():
    costs = trajectory_costs(model(), n=5)
    level = levels_sigma(SCHEDULE, 60).level
    assert costs.level.tolist() == level.tolist()
    states, predictions = exact(level, 5)
    wanted = np.triu(trajectories.deviation_costs(level, states, predictions) / 5, 1)
    assert np.abs(costs.cost - wanted).max() < 0.02 * wanted.max()


def test_the_states_are_those_of_the_sampler(monkeypatch):
    seen, kept = [], {}
    whole = trajectories.deviation_costs

    def keep(level, states, predictions):
        kept["states"], kept["predictions"] = states, predictions
        return whole(level, states, predictions)

    monkeypatch.setattr(trajectories, "deviation_costs", keep)
    some = model(Overwriting())
    trajectory_costs(some, n=4, num_steps=20, seed=5)
    plan = ipndm(levels_sigma(SCHEDULE, 20))
    some.sample(4, plan=plan, seed=5, callback=lambda state: seen.append(state.x))
    for found, wanted in zip(kept["states"][1:], seen, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    network = Gaussian()
    for x, t, eps in zip(kept["states"], plan.t, kept["predictions"], strict=False):
        with torch.no_grad():
            wanted = network(x.double(), torch.full((4,), t))
        torch.testing.assert_close(eps.double(), wanted, rtol=1e-5, atol=1e-5)


class Overwriting(Gaussian):
    """It returns the same tensor at every call, of twice the channels, and clears its input."""

    buffer: Tensor | None = None

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        eps = super().forward(x, t, label)
        if self.buffer is None or len(self.buffer) != len(x):
            self.buffer = torch.zeros(len(x), 2, *SHAPE[1:], dtype=eps.dtype)
        self.buffer[:, :1] = eps
        x.zero_()
        return self.buffer


def test_trajectories_of_equal_deviations_are_straight():
    costs = trajectory_costs(model(Gaussian(torch.ones(6, dtype=torch.float64))), n=4)
    assert np.abs(costs.cost).max() < 1e-4
    assert trajectory_costs(model(), n=4).cost.max() > 0.1


@pytest.mark.parametrize("classes", [None, 3])
def test_costs_do_not_depend_on_the_batch_size(classes):
    some = model(classes=classes)
    whole, parts = (trajectory_costs(some, n=7, num_steps=15, batch_size=b).cost for b in (7, 3))
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-5)
    other = trajectory_costs(some, n=7, num_steps=15, seed=1).cost
    assert np.abs(whole - other).max() > 1e-2


def test_choices_default_to_the_recipe_and_take_effect():
    labeled = model(classes=3)
    plain = trajectory_costs(labeled, n=4, num_steps=8).cost
    for choice in (
        {"clip": "x0"},
        {"clip": "state"},
        {"guidance_scale": 3.0},
        {"guidance_scale": GuidanceScale(3.0, (0.5, 1.0))},
        {"condition": torch.tensor([2])},
    ):
        assert (
            np.abs(trajectory_costs(labeled, n=4, num_steps=8, **choice).cost - plain).max() > 1e-3
        )


def test_the_path_costs_no_more_than_that_of_karras():
    costs = trajectory_costs(model(), n=16)
    for count in (2, 4, 7, 15):
        for coeff in (1.0, 1.15):
            chosen = levels_gits(SCHEDULE, count, costs, coeff=coeff).level
            karras = levels_sigma(SCHEDULE, count).level
            paths = [np.searchsorted(costs.level, level - 1e-12) for level in (chosen, karras)]
            ours, theirs = (objective(costs.cost, path.tolist(), coeff) for path in paths)
            assert ours <= theirs
        assert ours < 0.9 * theirs


def test_a_short_schedule_has_a_short_teacher():
    schedule = VarianceSchedule.linear(50, 1e-4, 0.05)
    wrapped = Model.wrap(Net().eval(), schedule, (1, 8))
    rows: list[SamplingState] = []
    costs = trajectory_costs(wrapped, n=2, batch_size=1, callback=rows.append)
    assert costs.num_steps == 50
    assert levels_gits(schedule, 50, costs).num_steps == 50
    assert [(state.first, state.total, state.num_rows) for state in rows[::50]] == [
        (0, 2, 50),
        (1, 2, 50),
    ]


@pytest.mark.parametrize(("name", "value"), [("n", 0), ("num_steps", 0), ("batch_size", 0)])
def test_counts_below_1_are_refused(name, value):
    with pytest.raises(InvalidArgumentError, match=tells(f"`{name}`", 1, value)):
        trajectory_costs(model(), **{name: value})
