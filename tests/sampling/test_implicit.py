"""Rows are solved to their tolerance, or their sample is named."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    levels_step,
    load_model,
    run,
)
from fastdpm.core import dpmpp_2m
from fastdpm.core.plan import Plan
from fastdpm.data.datasets import DIGITS_TEST
from fastdpm.evaluation.sources import open_data
from fastdpm.sampling.implicit import ImplicitOptions, invert
from fastdpm.training.data import load_training_data
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()


def _gaussian(std: float) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact eps for data N(0, std^2)."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        r = torch.from_numpy(SCHEDULE.R(t.double().numpy() + 1)).to(x)[:, None]
        return x * torch.sqrt(1 - r**2) / (r**2 * std**2 + 1 - r**2)

    return network


def _data(n: int = 6) -> Tensor:
    return torch.randn(n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("num_steps", [5, 20])
def test_the_inverse_of_linear_rows_is_found(num_steps):
    plan, network = ddim_rev(levels_step(SCHEDULE, num_steps)), _gaussian(0.5)
    found = invert(plan, lambda at: network, 0.5 * _data(), ImplicitOptions(tolerance=1e-10))
    assert bool((found.row == -1).all())
    assert float(found.residual.max()) <= 1e-10
    torch.testing.assert_close(run(plan, network, found.x), 0.5 * _data(), rtol=0, atol=1e-8)
    gain = run(plan, network, torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(found.x, 0.5 * _data() / gain, rtol=1e-7, atol=1e-9)


def test_a_map_whose_plain_iteration_diverges_is_solved():
    levels = levels_step(SCHEDULE, 20)[12:13]  # one row
    plan = ddim_rev(levels)
    slope = -1.8 * float(plan.a[0, 0]) / float(plan.b[0, 0])

    def network(x: Tensor, t: Tensor) -> Tensor:
        return -slope * torch.tanh(x)

    a, b = float(plan.a[0, 0]), float(plan.b[0, 0])
    assert abs(b * slope / a) > 1.5  # the fixed-point map at 0
    found = invert(plan, lambda at: network, 0.01 * _data(), ImplicitOptions(tolerance=1e-9))
    assert bool((found.row == -1).all())
    torch.testing.assert_close(run(plan, network, found.x), 0.01 * _data(), rtol=0, atol=1e-9)


def test_a_row_without_an_inverse_is_named_and_its_best_iterate_kept_on_demand():
    plan = ddim_rev(levels_step(SCHEDULE, 5))
    a, b, r = float(plan.a[2, 0]), float(plan.b[2, 0]), float(plan.t[2])

    def network(x: Tensor, t: Tensor) -> Tensor:
        """Row 2 maps everything to one point; the first sample is not there."""
        return torch.where(t[:, None] == r, (0.3 - a * x) / b, 0.1 * x)

    data = _data(2)
    found = invert(plan, lambda at: network, data, ImplicitOptions(max_evaluations=30))
    assert found.row.tolist() == [2, 2]
    assert bool(torch.isnan(found.x).all())
    assert float(found.residual.min()) > 0.01
    kept = invert(
        plan, lambda at: network, data, ImplicitOptions(max_evaluations=30, keep_best=True)
    )
    assert kept.row.tolist() == [2, 2]
    assert bool(torch.isfinite(kept.x).all())


def test_evaluations_are_those_that_were_made_and_solved_samples_rest():
    plan, counts = ddim_rev(levels_step(SCHEDULE, 8)), torch.zeros(4, dtype=torch.int64)
    network = _gaussian(0.5)

    def select(at: Tensor):
        def counted(x: Tensor, t: Tensor) -> Tensor:
            counts[at] += 1
            return network(x, t)

        return counted

    data = torch.cat([torch.zeros(1, 5, dtype=torch.float64), _data(3)])
    found = invert(plan, select, data, ImplicitOptions(tolerance=1e-9))
    assert found.evaluations.tolist() == counts.tolist()
    assert int(counts[0]) < int(counts[1:].min())  # zeros are solved at once


def test_a_sample_does_not_depend_on_its_batch():
    plan, network = ddim_rev(levels_step(SCHEDULE, 8)), _gaussian(0.5)
    together = invert(plan, lambda at: network, _data(), ImplicitOptions(tolerance=1e-9))
    alone = invert(plan, lambda at: network, _data()[2:3], ImplicitOptions(tolerance=1e-9))
    torch.testing.assert_close(together.x[2:3], alone.x, rtol=1e-9, atol=1e-9)
    assert together.evaluations[2] == alone.evaluations[0]


@pytest.mark.parametrize(("num_steps", "least"), [(10, 0.9), (50, 1.0)])
def test_held_out_digits_come_back(num_steps, least):
    model = load_model("digits")
    source = open_data("sklearn:digits-test", model.config.data, 16, scale=True)
    x = torch.from_numpy(next(iter(source.batches(0, 16)))).float()
    x = (x / 127.5 - 1 if float(x.max()) > 1 else x).reshape(-1, 1, 8, 8)[:16].double()
    plan = ddim_rev(levels_step(model.schedule, num_steps, "quadratic"))
    found = invert(plan, lambda at: model.noise_predictor(), x)
    done = found.row < 0
    back = run(plan, model.noise_predictor(), found.x[done].float())
    error = (back - x[done]).flatten(1).norm(dim=1) / x[done].flatten(1).norm(dim=1)
    assert float(done.float().mean()) >= least
    assert float(error.max()) <= 1e-4


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"kappa": 0.5}, ["kappa = 0.5", "ddim_rev", "kappa=0"]),
        ({"tolerance": 0.0}, ["tolerance", 0]),
        ({"max_evaluations": 0}, ["max_evaluations", 1, 0]),
        ({"memory": 0}, ["memory", 1, 0]),
    ],
)
def test_what_cannot_be_inverted_is_refused(change, values):
    kappa = change.pop("kappa", 0.0)
    plan = ddim_rev(levels_step(SCHEDULE, 5), kappa)
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        invert(plan, lambda at: _gaussian(0.5), _data(), ImplicitOptions(**change))


def _one_row() -> Plan:
    """One row from level 0.6 to 0.8: x' = 4/3 x - 7/15 eps."""
    a = np.array([[4 / 3]])
    return Plan(np.array([0.6, 0.8]), np.array([500.0]), a, 0.6 - 0.8 * a, np.zeros(1))


def _bounded(x: Tensor, t: Tensor) -> Tensor:
    """An eps with which :func:`_one_row` decodes to tanh(x), whatever x is."""
    plan = _one_row()
    return (torch.tanh(x) - float(plan.a[0, 0]) * x) / float(plan.b[0, 0])


@pytest.mark.parametrize("slopes", [[-3.0, -2.0], [1.6, -1.5], [-8.0, 0.4]])
def test_rows_with_steep_slopes_of_either_sign_are_solved_in_few_evaluations(slopes):
    plan, target = _one_row(), torch.tensor([[0.7, -0.4]]).double()
    slope = torch.tensor(slopes).double() * float(-plan.a[0, 0] / plan.b[0, 0])

    def network(x: Tensor, t: Tensor) -> Tensor:
        return slope * (x + 0.02 * torch.sin(x))

    found = invert(plan, lambda at: network, target, ImplicitOptions(tolerance=1e-12))
    torch.testing.assert_close(run(plan, network, found.x), target, rtol=1e-11, atol=0)
    assert int(found.evaluations[0]) < 20


def test_the_residual_of_the_best_iterate_is_what_decoding_misses():
    target = torch.tensor([[1.5, 0.2]]).double()
    found = invert(
        _one_row(),
        lambda at: _bounded,
        target,
        ImplicitOptions(max_evaluations=60, keep_best=True),
    )
    off = (run(_one_row(), _bounded, found.x) - target).norm() / target.norm()
    assert (found.row.tolist(), found.evaluations.tolist()) == ([0], [60])
    assert float(off) == pytest.approx(float(found.residual[0]), rel=1e-9)
    assert 0.3 < float(off) < 0.5


def test_more_evaluations_never_leave_a_worse_iterate():
    target = torch.tensor([[1.5, 0.2]]).double()
    residuals = [
        float(
            invert(
                _one_row(),
                lambda at: _bounded,
                target,
                ImplicitOptions(max_evaluations=limit, keep_best=True),
            ).residual
        )
        for limit in range(1, 60)
    ]
    assert residuals == sorted(residuals, reverse=True)
    assert residuals[-1] < residuals[0]


def test_rounding_of_a_huge_state_does_not_pass_for_a_solution():
    plan, rows = ddim_rev(levels_step(SCHEDULE, 5)), list[int]()
    r, network = float(plan.level[4]), _gaussian(0.5)

    def fails_last(x: Tensor, t: Tensor) -> Tensor:
        if t[0] != plan.t[4]:
            return network(x, t)
        return (x - r * torch.tanh(x)) / math.sqrt(1 - r**2)

    def each(row: int, x: Tensor) -> None:
        rows.append(row)

    x = torch.full((1, 3), 2.0, dtype=torch.float64)
    found = invert(
        plan, lambda at: fails_last, x, ImplicitOptions(max_evaluations=30), callback=each
    )
    assert (found.row.tolist(), found.evaluations.tolist(), rows) == ([4], [30], [4])
    rows.clear()
    kept = invert(
        plan,
        lambda at: fails_last,
        x,
        ImplicitOptions(max_evaluations=30, keep_best=True),
        callback=each,
    )
    assert (kept.row.tolist(), rows) == ([4], [4, 3, 2, 1, 0])
    assert kept.residual[0] == found.residual[0] > 0.3


def test_a_sample_is_solved_with_its_own_network_beside_samples_that_finish_before():
    plan, x = ddim_rev(levels_step(SCHEDULE, 4)), _data() * torch.logspace(-3, 1, 6)[:, None]

    def of(first: int) -> Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]]:
        def select(at: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda x, t: _gaussian(0.5)(x, t) + 0.3 * torch.sin(x + first + at[:, None])

        return select

    whole = invert(plan, of(0), x)
    assert len(whole.evaluations.unique()) > 1
    for index in range(6):
        alone = invert(plan, of(index), x[index : index + 1])
        torch.testing.assert_close(alone.x[0], whole.x[index], rtol=1e-12, atol=1e-12)
        assert alone.evaluations[0] == whole.evaluations[index]


def test_a_sample_that_starts_anew_does_not_disturb_the_others():
    target = torch.tensor([[0.3, 0.2], [1.5, 0.2], [-0.6, 0.1]]).double()
    alone = invert(
        _one_row(), lambda at: _bounded, target[[0, 2]], ImplicitOptions(max_evaluations=90)
    )
    beside = invert(_one_row(), lambda at: _bounded, target, ImplicitOptions(max_evaluations=90))
    assert beside.row.tolist() == [-1, 0, -1]
    torch.testing.assert_close(beside.x[[0, 2]], alone.x, rtol=1e-12, atol=0)
    again = invert(
        _one_row(), lambda at: _bounded, target[1:2], ImplicitOptions(max_evaluations=90)
    )
    assert float(again.residual[0]) == pytest.approx(float(beside.residual[1]), rel=1e-9)


def test_a_network_that_overflows_on_the_way_gets_a_new_start():
    calls: list[int] = []
    network, plan, x = _gaussian(0.5), ddim_rev(levels_step(SCHEDULE, 5)), _data(2)

    def overflows(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.full_like(x, math.inf) if len(calls) == 2 else network(x, t)

    found = invert(plan, lambda at: overflows, x, ImplicitOptions(tolerance=1e-10))
    assert bool((found.row == -1).all())
    assert int(found.evaluations.max()) < 30
    torch.testing.assert_close(run(plan, network, found.x), x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("network", "values"),
    [
        (lambda x, t: torch.full_like(x, math.nan), []),
        (lambda x, t: x[:, :1], ["(6, 1)", "(6, 5)"]),
    ],
)
def test_a_network_that_misbehaves_is_reported_with_its_row(network, values):
    with pytest.raises(SamplingError, match=tells("row 4 of 5", *values)):
        invert(ddim_rev(levels_step(SCHEDULE, 5)), lambda at: network, _data())


def test_plans_of_several_steps_are_refused():
    with pytest.raises(InvalidArgumentError, match=tells("DPM-Solver++", "ddim_rev")):
        invert(dpmpp_2m(levels_step(SCHEDULE, 5)), lambda at: _gaussian(0.5), _data())


@pytest.mark.parametrize("x", [torch.zeros(1, 2).half(), torch.tensor([[math.nan, 0.0]])])
def test_data_that_cannot_be_inverted_is_refused(x):
    with pytest.raises(InvalidArgumentError, match=tells("float32", "float64")):
        invert(_one_row(), lambda at: _bounded, x)


@pytest.mark.parametrize(("num_steps", "per_row"), [(10, 18), (50, 8)])
def test_every_15th_held_out_digit_comes_back_in_float32(num_steps, per_row):
    model = load_model("digits")
    x = load_training_data(DIGITS_TEST, model.config.data).middle(torch.arange(0, 360, 15))
    plan = ddim_rev(levels_step(model.schedule, num_steps, "quadratic"))
    before = x.clone()
    found = invert(plan, lambda at: model.noise_predictor(), x)
    off = (run(plan, model.noise_predictor(), found.x) - x).flatten(1).norm(dim=1)
    assert torch.equal(x, before)
    assert found.x.dtype == torch.float32
    assert bool((found.row == -1).all())
    assert float((off / x.flatten(1).norm(dim=1)).max()) < 1e-4
    assert float(found.evaluations.double().mean()) < per_row * plan.num_rows
    assert 0.9 < float(found.x.std()) < 1.4
