"""Rows are solved to their tolerance, or their sample is named."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError, VarianceSchedule, ddim_rev, levels_step, load_model, run
from fastdpm.evaluation.sources import open_data
from fastdpm.sampling.implicit import invert

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
    found = invert(plan, lambda at: network, 0.5 * _data(), tolerance=1e-10)
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
    found = invert(plan, lambda at: network, 0.01 * _data(), tolerance=1e-9)
    assert bool((found.row == -1).all())
    torch.testing.assert_close(run(plan, network, found.x), 0.01 * _data(), rtol=0, atol=1e-9)


def test_a_row_without_an_inverse_is_named_and_falls_back_only_if_told_to():
    plan = ddim_rev(levels_step(SCHEDULE, 5))
    a, b, r = float(plan.a[2, 0]), float(plan.b[2, 0]), float(plan.t[2])

    def network(x: Tensor, t: Tensor) -> Tensor:
        """Row 2 maps everything to one point; the first sample is not there."""
        return torch.where(t[:, None] == r, (0.3 - a * x) / b, 0.1 * x)

    data = _data(2)
    found = invert(plan, lambda at: network, data, most=30)
    assert found.row.tolist() == [2, 2]
    assert bool(torch.isnan(found.x).all())
    assert float(found.residual.min()) > 0.01
    kept = invert(plan, lambda at: network, data, most=30, keep_best=True)
    assert kept.row.tolist() == [2, 2]
    assert bool(torch.isfinite(kept.x).all())


def test_evaluations_are_those_that_were_made_and_solved_samples_rest():
    plan, asked = ddim_rev(levels_step(SCHEDULE, 8)), torch.zeros(4, dtype=torch.int64)
    network = _gaussian(0.5)

    def select(at: Tensor):
        def counted(x: Tensor, t: Tensor) -> Tensor:
            asked[at] += 1
            return network(x, t)

        return counted

    data = torch.cat([torch.zeros(1, 5, dtype=torch.float64), _data(3)])
    found = invert(plan, select, data, tolerance=1e-9)
    assert found.evaluations.tolist() == asked.tolist()
    assert int(asked[0]) < int(asked[1:].min())  # zeros are solved at once


def test_a_sample_does_not_depend_on_its_batch():
    plan, network = ddim_rev(levels_step(SCHEDULE, 8)), _gaussian(0.5)
    together = invert(plan, lambda at: network, _data(), tolerance=1e-9)
    alone = invert(plan, lambda at: network, _data()[2:3], tolerance=1e-9)
    torch.testing.assert_close(together.x[2:3], alone.x, rtol=1e-9, atol=1e-9)
    assert together.evaluations[2] == alone.evaluations[0]


@pytest.mark.parametrize(("num_steps", "least"), [(10, 0.9), (50, 1.0)])
def test_held_out_digits_come_back(num_steps, least):
    model = load_model("digits")
    source = open_data("sklearn:digits-test", model.config.data, 16, scale=True)
    x = torch.from_numpy(next(iter(source.batches(0, 16)))).float()
    x = (x / 127.5 - 1 if float(x.max()) > 1 else x).reshape(-1, 1, 8, 8)[:16].double()
    plan = ddim_rev(levels_step(model.schedule, num_steps, "quadratic"))
    found = invert(plan, lambda at: model.denoiser(), x)
    done = found.row < 0
    back = run(plan, model.denoiser(), found.x[done].float())
    error = (back - x[done]).flatten(1).norm(dim=1) / x[done].flatten(1).norm(dim=1)
    assert float(done.float().mean()) >= least
    assert float(error.max()) <= 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kappa": 0.5}, "first-order plans without noise have"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"most": 0}, "most"),
        ({"memory": 0}, "memory"),
    ],
)
def test_what_cannot_be_inverted_is_refused(change, message):
    kappa = change.pop("kappa", 0.0)
    plan = ddim_rev(levels_step(SCHEDULE, 5), kappa)
    with pytest.raises(InvalidArgumentError, match=message):
        invert(plan, lambda at: _gaussian(0.5), _data(), **change)
