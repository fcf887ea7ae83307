"""Solvers that draw noise, take two evaluations a step, or integrate numerically."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.polynomial import Polynomial
from scipy.integrate import quad

from fastdpm import InvalidArgumentError, Plan, Recipe, VarianceSchedule
from fastdpm.core import deis_tab, dpm_solver_2, heun, levels_custom, restart
from fastdpm.core.samplers import SAMPLERS
from tests.messages import tells

DDPM = VarianceSchedule.linear()
DATA_STD = 0.5
FEW_STEPS = [row for row in SAMPLERS.values() if not row.all_steps]


def _std(plan: Plan) -> float:
    """The exact standard deviation of the samples of N(0, DATA_STD^2), by the weights of all z."""
    rows, (states, predictions) = plan.num_rows, (plan.a.shape[1], plan.b.shape[1])
    x, eps = [np.eye(rows + 1)[0]], []
    for s in range(rows):
        r = plan.network_level[s]
        variance = r**2 * DATA_STD**2 + 1 - r**2
        eps.append(np.sqrt(1 - r**2) / variance * x[-1])
        new = sum(plan.a[s, j] * x[-1 - j] for j in range(min(states, len(x))))
        new = new + sum(plan.b[s, j] * eps[-1 - j] for j in range(min(predictions, len(eps))))
        x.append(new + plan.c[s] * np.eye(rows + 1)[s + 1])
    return float(np.linalg.norm(x[-1]))


@pytest.mark.parametrize("row", FEW_STEPS, ids=lambda row: row.name)
def test_samples_of_a_gaussian_have_its_spread(row):
    kappas = (0.0, 0.5, 1.0) if row.takes_kappa else (0.0,)
    for kappa in kappas:
        recipe = Recipe(method=row.name, kappa=kappa)
        errors = [
            abs(_std(recipe.replace(num_steps=s).compile(DDPM)) / DATA_STD - 1) for s in (50, 400)
        ]
        assert errors[1] < 0.02
        assert errors[1] < 0.6 * errors[0] or errors[1] < 3e-3


def test_restart_goes_back_where_it_says():
    levels = levels_custom(DDPM, level=[0.1, 0.3, 0.6, 0.9])
    plan = restart(levels, 6)
    assert plan.level.tolist() == [0.1, 0.3, 0.6, 0.3, 0.6, 0.9, 1.0]
    assert np.flatnonzero(plan.c).tolist() == [2]
    assert plan.c[2] ** 2 == pytest.approx(1 - (0.3 / 0.9) ** 2)
    assert restart(levels, 4).level.tolist() == levels.level.tolist()
    for count in (3, 7):
        with pytest.raises(
            InvalidArgumentError, match=tells("`num_evaluations`", "[4, 6]", count)
        ):
            restart(levels, count)


@pytest.mark.parametrize("method", [heun, dpm_solver_2])
def test_the_last_of_an_even_number_of_evaluations_is_at_half_of_the_scale(method):
    levels = levels_custom(DDPM, level=[0.1, 0.5])
    plan = method(levels, DDPM, 4)
    scale = np.sqrt(1 - plan.level**2) / plan.level
    assert scale[3] == pytest.approx(scale[2] / 2)
    assert plan.t[3] == pytest.approx(float(DDPM.T(plan.level[3])) - 1)
    assert method(levels, DDPM).num_rows == method(levels, DDPM, 3).num_rows == 3
    with pytest.raises(InvalidArgumentError, match=tells("`num_evaluations`", 3, 4, 5)):
        method(levels, DDPM, 5)
    part = method(levels_custom(DDPM, level=[0.1, 0.5], end=0.9), DDPM)
    assert part.num_rows == 4


def _integral(a: Polynomial, b: Callable[[float], float], start: float, end: float) -> float:
    """The integral of a product."""
    return float(quad(lambda t: a(t) * b(t), start, end, epsabs=1e-13)[0])


@pytest.mark.parametrize("order", [2, 3, 4])
def test_deis_tab_integrates_the_polynomial_in_the_step(order):
    levels = levels_custom(DDPM, t=np.linspace(999, 0, 12))
    plan = deis_tab(levels, DDPM, order)

    def scale(t: float) -> float:
        r = float(DDPM.R(t + 1))
        return float(np.sqrt(1 - r**2) / r)

    s = 6
    places = levels.t[s - order + 1 : s + 1][::-1]
    for j in range(order):
        roots = np.delete(places, j)
        basis = Polynomial.fromroots(roots) / np.prod(places[j] - roots)
        ends = [basis(t) * scale(t) for t in levels.t[s : s + 2]]
        inner = _integral(basis.deriv(), scale, *levels.t[s : s + 2])
        exact = ends[1] - ends[0] - inner
        assert plan.b[s, j] / levels.level[s + 1] == pytest.approx(exact, abs=1e-11)
