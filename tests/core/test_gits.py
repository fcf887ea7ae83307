"""GITS takes the cheapest path of Euler steps, whatever their costs are."""

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdpm import InvalidArgumentError, VarianceSchedule
from fastdpm.core import TrajectoryCosts, levels_gits, levels_sigma
from fastdpm.core.gits import cheapest_path
from fastdpm.core.history import scales
from tests.messages import tells

DDPM = VarianceSchedule.linear()
Costs: Any = TrajectoryCosts  # without its types, because these tests pass lists


def objective(cost, path, coeff):
    """The cost of a path, each step counted ``coeff`` times as much as the one before it."""
    return sum(coeff**k * cost[i, j] for k, (i, j) in enumerate(itertools.pairwise(path)))


@settings(max_examples=30)
@given(
    steps=st.integers(1, 7),
    coeff=st.sampled_from([0.8, 1.0, 1.15, 3.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_path_is_the_best_of_all_paths_also_with_negative_costs(steps, coeff, seed):
    cost = np.random.default_rng(seed).normal(size=(steps + 1, steps + 1))
    for count in range(1, steps + 1):
        path = cheapest_path(cost, count, coeff)
        between = itertools.combinations(range(1, steps), count - 1)
        every = ((0, *chosen, steps) for chosen in between)
        best = min(every, key=lambda other: objective(cost, other, coeff))
        assert path.tolist() == list(best)


def gaussian_costs(num_steps: int, deviation: float = 0.5) -> TrajectoryCosts:
    """Errors of one Euler step on the exact trajectory of data N(0, deviation^2).

    There, eps = sigma y / (deviation^2 + sigma^2), and y grows like sqrt(deviation^2 + sigma^2).
    """
    level = levels_sigma(DDPM, num_steps).level
    sigma = scales(level)
    spread = np.sqrt(deviation**2 + sigma**2)
    slope = sigma / spread  # of the trajectory, which is `spread` itself
    reached = spread[:, None] + (sigma[None, :] - sigma[:, None]) * slope[:, None]
    return TrajectoryCosts(level, np.abs(reached - spread))


def test_levels_of_normal_data_gather_where_its_trajectories_bend():
    costs = gaussian_costs(40)
    for count in (1, 2, 4, 8, 40):
        levels = levels_gits(DDPM, count, costs)
        assert levels.label == f"GITS, S = {count}"
        assert levels.num_steps == count
        assert levels.level[0] == DDPM.levels[-1]
        assert levels.level[-1] == 1.0
        assert levels.t[0] == 999.0
        np.testing.assert_allclose(DDPM.R(levels.t + 1), levels.level[:-1], rtol=1e-9)
        assert set(levels.level) <= set(costs.level)
    # Far from the data, at scales far above its deviation, a trajectory is a straight line.
    sigma = scales(levels_gits(DDPM, 8, costs).level[:-1])
    assert np.all(sigma[1:] < 20 * 0.5)
    assert sigma[-1] < 0.5


def test_a_larger_coefficient_places_levels_nearer_to_clean_data():
    costs = gaussian_costs(40)
    means = [levels_gits(DDPM, 6, costs, coeff=c).level.mean() for c in (0.5, 1.0, 2.0)]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_costs_survive_json():
    costs = gaussian_costs(5)
    again = TrajectoryCosts.from_dict(json.loads(json.dumps(costs.to_dict())))
    assert again.num_steps == 5
    for name in ("level", "cost"):
        np.testing.assert_array_equal(getattr(again, name), getattr(costs, name))
        assert not getattr(again, name).flags.writeable


def test_costs_of_steps_that_lead_nowhere_are_ignored():
    level, cost = [0.1, 0.5, 1.0], np.array([[math.nan, 1, 2], [math.inf, 5, 3], [4, 4, 4]])
    assert Costs(level, cost).cost.tolist() == [[0, 1, 2], [0, 0, 3], [0, 0, 0]]


LEVEL, COST = [0.1, 0.5, 1.0], np.ones((3, 3))
REFUSED = {
    "one level": (lambda: Costs([1.0], [[0.0]]), ("`level`", 1)),
    "falling": (lambda: Costs([0.5, 0.1, 1.0], COST), ("`level`", 0.5)),
    "not to clean data": (lambda: Costs([0.1, 0.5, 0.9], COST), ("`level`", 0.9)),
    "NaN": (lambda: Costs([0.1, math.nan, 1.0], COST), ("`level`", "nan")),
    "shape": (lambda: Costs(LEVEL, np.ones((2, 3))), ("`cost`", "(3, 3)", "(2, 3)")),
    "infinite": (lambda: Costs(LEVEL, COST * math.inf), ("`cost`", "finite")),
    "missing": (lambda: Costs.from_dict({"level": LEVEL}), ("`data`", "cost")),
    "unknown": (
        lambda: Costs.from_dict({"level": LEVEL, "cost": COST, "metric": "dev"}),
        ("`data`", "metric"),
    ),
    "no step": (lambda: levels_gits(DDPM, 0, gaussian_costs(9)), ("`num_steps`", "[1, 9]", 0)),
    "too many": (lambda: levels_gits(DDPM, 10, gaussian_costs(9)), ("`num_steps`", "[1, 9]", 10)),
    "other schedule": (
        lambda: levels_gits(VarianceSchedule.cosine(), 3, gaussian_costs(9)),
        ("`costs`", "0.00635281809", "R(T)"),
    ),
    "coeff": (lambda: levels_gits(DDPM, 3, gaussian_costs(9), coeff=0.0), ("`coeff`", 0)),
    "overflow": (
        lambda: levels_gits(DDPM, 9, gaussian_costs(9), coeff=1e200),
        ("`coeff`", "1e+200", 9),
    ),
}


@pytest.mark.parametrize(("call", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(call, said):
    with pytest.raises(InvalidArgumentError, match=tells(*said)) as error:
        call()
    assert "\n" not in str(error.value)
