"""Latents belong to one model, one schedule and one condition each, and say so."""

import math

import pytest
import torch
from torch import Tensor, nn

from fastdpm import Model, VarianceSchedule, ddim_rev, diffuse, levels_step
from fastdpm.core.errors import InvalidArgumentError
from fastdpm.evaluation.reconstruction import reconstruct
from fastdpm.inverse.encoding import decode, encode
from fastdpm.inverse.latents_file import select
from fastdpm.models import Decoder
from fastdpm.sampling.implicit import ImplicitOptions, invert
from fastdpm.sampling.noise import SampleNoise
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear(num_train_steps=100, beta_start=1e-4, beta_end=0.1)
LEVELS = levels_step(SCHEDULE, 8, "quadratic")
CONDITIONS = torch.tensor([[0.1], [0.4], [0.7]])


class Conditioned(nn.Module):
    """Its eps depends much on the condition, shape (batch, 1)."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.weight * x * condition[:, :, None, None] + condition[:, :, None, None]


class Plain(nn.Module):
    def __init__(self, weight: float = 0.3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.weight * x


@pytest.fixture
def model() -> Model:
    return Model.wrap(Conditioned().eval(), SCHEDULE, (1, 4, 4), conditions=CONDITIONS)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("method", ["second", "implicit", "invertible"])
def test_each_sample_goes_with_its_own_condition_in_any_batch(model, x, method):
    whole = encode(model, x, LEVELS, method, condition=CONDITIONS)
    by_one = encode(model, x, LEVELS, method, condition=CONDITIONS, batch_size=1)
    torch.testing.assert_close(whole.x, by_one.x, rtol=0, atol=1e-4)
    turned = encode(model, x, LEVELS, method, condition=CONDITIONS[[1, 2, 0]])
    assert (turned.x - whole.x).flatten(1).norm(dim=1).min() > 0.1
    atol = 0.2 if method == "second" else 1e-4
    torch.testing.assert_close(decode(model, whole), x, rtol=0, atol=atol)
    torch.testing.assert_close(decode(model, whole, batch_size=1), decode(model, whole))
    last = select(whole, torch.tensor([2]))
    torch.testing.assert_close(decode(model, last), decode(model, whole)[2:])


def test_samples_solved_early_leave_the_others_their_conditions(model, x):
    easy = torch.cat([torch.zeros(1, 1, 4, 4), x[1:]])
    found = encode(model, easy, LEVELS, "implicit", condition=CONDITIONS, batch_size=2)
    torch.testing.assert_close(decode(model, found), easy, rtol=0, atol=1e-4)


def test_several_conditions_are_never_chosen_for_the_data(model, x):
    with pytest.raises(InvalidArgumentError, match=tells("custom", "`condition`")):
        encode(model, x, LEVELS)
    classes = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4), classes=10)
    with pytest.raises(InvalidArgumentError, match=tells("custom", "`class_labels`")):
        encode(classes, x, LEVELS)
    assert encode(classes, x, LEVELS, condition=torch.tensor([3])).condition is not None


@pytest.mark.parametrize(
    ("weight", "settings", "schedule"),
    [(0.31, {}, SCHEDULE), (0.3, {"guidance": 2.0}, SCHEDULE), (0.3, {}, None)],
)
def test_other_weights_settings_or_schedules_are_other_models(x, weight, settings, schedule):
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    other_schedule = VarianceSchedule.linear(100, 1e-4, 0.11) if schedule is None else schedule
    other = Model.wrap(Plain(weight).eval(), other_schedule, (1, 4, 4), settings=settings)
    latents = encode(own, x, LEVELS)
    assert decode(own, latents).shape == x.shape
    with pytest.raises(InvalidArgumentError, match=tells("custom")):
        decode(other, latents)


def test_levels_of_another_schedule_are_refused(x):
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    with pytest.raises(InvalidArgumentError, match=tells("row 0", 0.000492805, 99, "custom")):
        encode(own, x, levels_step(VarianceSchedule.cosine(100), 8))


def test_states_at_a_noisy_level_are_encoded_as_they_are(x):
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    levels = LEVELS[:-3]
    noisy = diffuse(own, x, level=float(levels.level[-1]), noise=SampleNoise(0, range(3)))
    assert noisy.abs().max() > 1
    torch.testing.assert_close(decode(own, encode(own, noisy, levels)), noisy, rtol=0, atol=1e-4)
    with pytest.raises(InvalidArgumentError, match=tells("[-1, 1]", f"{noisy.abs().max():.6g}")):
        encode(own, noisy, LEVELS)


@pytest.mark.parametrize(
    ("x", "values"),
    [
        (torch.zeros(0, 1, 4, 4), ["custom", "(n, 1, 4, 4)", "(0, 1, 4, 4)"]),
        (torch.zeros(1, 1, 4, 4, dtype=torch.complex64), ["torch.complex64"]),
        (torch.zeros(1, 1, 4, 4, dtype=torch.int64), ["torch.int64"]),
        ([0.0], ["x", "Tensor"]),
    ],
)
def test_what_is_no_data_is_refused(x, values):
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        encode(own, x, LEVELS)


def test_a_solver_is_refused_where_nothing_is_solved(x):
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    with pytest.raises(InvalidArgumentError, match=tells("`method`", "first", "`solver`")):
        encode(own, x, LEVELS, "first", solver=ImplicitOptions())


def test_silence_is_encoded_beside_other_data(x):
    """Nothing is near enough to 0 by a relative measure."""
    own = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4))
    silent = torch.cat([x, torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 1e-7)])
    latents = encode(own, silent, LEVELS, "implicit")
    assert (latents.row == -1).all()
    torch.testing.assert_close(decode(own, latents), silent, rtol=0, atol=1e-5)


def test_the_residual_is_that_of_the_row_that_is_named():
    """Rows 1 and 3 return the same for every input, so only one state can be inverted."""
    plan = ddim_rev(levels_step(SCHEDULE, 5))

    def network(x: Tensor, t: Tensor) -> Tensor:
        row = int(abs(torch.from_numpy(plan.t.copy()) - t[0]).argmin())
        if row in (1, 3):
            return (0.1 * row - float(plan.a[row, 0]) * x) / float(plan.b[row, 0])
        return 0.1 * x

    x = torch.ones(1, 4, dtype=torch.float64)
    lost = invert(plan, lambda at: network, x, ImplicitOptions(max_evaluations=30))
    kept = invert(plan, lambda at: network, x, ImplicitOptions(max_evaluations=30, keep_best=True))
    assert lost.row.tolist() == kept.row.tolist() == [3]
    assert float(lost.residual) == float(kept.residual)


def test_the_psnr_of_a_latent_model_is_of_its_images():
    decoder = Decoder((1, 4, 4), lambda z: z / 10, name="tenth")
    latent = Model.wrap(Plain().eval(), SCHEDULE, (1, 4, 4), decoder=decoder)
    z = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 1.5
    found = reconstruct(latent, z, LEVELS, "first")
    back = decode(latent, encode(latent, z, LEVELS, "first"))
    error = ((back - z) / 10).double().square().flatten(1).mean(dim=1)
    assert found.psnr == pytest.approx([10 * math.log10(4 / e) for e in error.tolist()])
