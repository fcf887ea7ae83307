"""What a network or a noise function does to its arguments never changes a result."""

import pytest
import torch
from torch import Tensor

from fastdpm import (
    InvalidArgumentError,
    Model,
    SampleNoise,
    SamplingError,
    VarianceSchedule,
    ddim_rev,
    diffuse,
    levels_step,
    run,
)
from fastdpm.core import dpmpp_3m
from fastdpm.sampling import ClipX0, Guidance, NoisePredictor, VPrediction
from fastdpm.sampling.implicit import invert
from tests.messages import tells

SCHEDULE = VarianceSchedule.linear()
PLANS = {
    "DDIM-rev": ddim_rev(levels_step(SCHEDULE, 4)),
    "DDPM-rev": ddim_rev(levels_step(SCHEDULE, 4), kappa=1.0),
    "multistep": dpmpp_3m(levels_step(SCHEDULE, 5)),
}


def _eps(x: Tensor, t: Tensor) -> Tensor:
    return 0.3 * torch.tanh(x) + 1e-4 * t[:, None]


def _writes(x: Tensor, t: Tensor) -> Tensor:
    eps = _eps(x, t)
    x.fill_(9.0)
    t.fill_(7.0)
    return eps


class _WritesLate:
    """Writes from its third call on, past the version counter."""

    calls = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        eps = _eps(x, t)
        if self.calls > 2:
            x.data.fill_(9.0)
        return eps


class _SameBuffer:
    """Returns the same tensor at every call."""

    out = torch.empty(0)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if self.out.shape != x.shape:
            self.out = torch.empty_like(x)
        return self.out.copy_(_eps(x, t))


def _returns_its_input(x: Tensor, t: Tensor) -> Tensor:
    return x.copy_(_eps(x, t))


NETWORKS = {
    "writes": lambda: _writes,
    "writes late": _WritesLate,
    "same buffer": _SameBuffer,
    "returns its input": lambda: _returns_its_input,
}


def _noise() -> SampleNoise:
    return SampleNoise(0, range(2))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_run_keeps_its_states_and_predictions(network, plan, mode):
    with mode():
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
        kept = x.clone()
        wanted = run(plan, _eps, x, noise=_noise())
        assert torch.equal(run(plan, network(), x, noise=_noise()), wanted)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_wrappers_keep_the_state_that_they_convert(network):
    plan, x = PLANS["DDIM-rev"], _noise().start((3,))
    wanted = run(plan, ClipX0(VPrediction(_eps), 0.5), x)
    assert torch.equal(run(plan, ClipX0(VPrediction(network()), 0.5), x), wanted)


def test_a_predictor_that_writes_is_kept_from_the_state():
    class Writes(NoisePredictor):
        def __call__(self, x: Tensor, t: Tensor, level: float) -> Tensor:
            return _writes(x, t)

    plan, x = PLANS["multistep"], _noise().start((3,))
    assert torch.equal(run(plan, Writes(), x), run(plan, _eps, x))


def test_a_condition_is_the_same_at_every_row():
    def writes(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return _eps(x, t) * condition.mul_(0.5)

    plan, x, condition = PLANS["DDIM-rev"], _noise().start((3,)), torch.ones(2, 1)
    guided = Guidance(writes, condition, torch.zeros_like(condition), 1.0)
    wanted = run(plan, lambda x, t: 0.5 * _eps(x, t), x)
    torch.testing.assert_close(run(plan, guided, x), wanted)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_an_inversion_keeps_its_iterates(network):
    plan, x = PLANS["DDIM-rev"], torch.linspace(-1, 1, 6).reshape(2, 3).double()
    wanted = invert(plan, lambda indices: _eps, x)
    found = network()
    assert torch.equal(invert(plan, lambda indices: found, x).x, wanted.x)


OUTPUTS = {
    "tuple": (lambda x: (x,), ("tuple",)),
    "dict": (lambda x: {"sample": x}, ("dict",)),
    "None": (lambda x: None, ("NoneType",)),
    "array": (lambda x: x.numpy(), ("ndarray",)),
    "integers": (lambda x: x.long(), ("torch.int64", "torch.float32")),
    "complex": (lambda x: x.to(torch.complex64), ("torch.complex64", "torch.float32")),
    "device": (lambda x: x.to("meta"), ("meta", "cpu")),
    "shape": (lambda x: x[:, :2], ((2, 2), (2, 3))),
    "scalar": (lambda x: x.sum(), ((), (2, 3))),
    "not finite": (lambda x: x * torch.nan, ("finite",)),
}


@pytest.mark.parametrize(("output", "said"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_is_no_prediction_is_refused(output, said):
    with pytest.raises(SamplingError, match=tells("row 0 of 4", "network", *said)):
        run(PLANS["DDIM-rev"], lambda x, t: output(x), torch.zeros(2, 3))


def test_a_model_refuses_what_its_network_returns_before_it_converts_it():
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
            return {"sample": self.weight * x}

    model = Model.wrap(Net().eval(), SCHEDULE, (1, 4, 4))
    with pytest.raises(SamplingError, match=tells("row 0 of 3", "returned a dict", "tensor")):
        model.sample(1, num_steps=3)


NOISES = {
    "None": (lambda x: None, ("NoneType",)),
    "shape": (lambda x: x[:1], ((1, 3), (2, 3))),
    "type": (lambda x: x.double(), ("torch.float64", "torch.float32")),
    "device": (lambda x: x.to("meta"), ("meta", "cpu")),
}


@pytest.mark.parametrize(("noise", "said"), NOISES.values(), ids=NOISES)
def test_noise_unlike_the_state_is_refused(noise, said):
    with pytest.raises(InvalidArgumentError, match=tells("`noise`", "row 0", *said)):
        run(PLANS["DDPM-rev"], _eps, torch.zeros(2, 3), noise=lambda row, x: noise(x))
    with pytest.raises(InvalidArgumentError, match=tells("`noise`", "row 0", *said)):
        diffuse(SCHEDULE, torch.zeros(2, 3), level=0.5, noise=lambda row, x: noise(x))


def test_noise_that_writes_into_the_state_is_refused_or_kept_from_it():
    def writes(row: int, x: Tensor) -> Tensor:
        return x.copy_(_noise()(row, x))

    plan = PLANS["DDPM-rev"]
    with pytest.raises(InvalidArgumentError, match=tells("`noise`", "row 0", "in place")):
        run(plan, _eps, _noise().start((3,)), noise=writes)
    with torch.inference_mode():  # which counts no changes
        x = _noise().start((3,))
        wanted = run(plan, _eps, x, noise=_noise())
        assert torch.equal(run(plan, _eps, x, noise=writes), wanted)
