"""Both DiffWave networks equal the published ones, with the published parameter names."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, ModelError
from fastdpm.models.formats.lmnt import infer
from fastdpm.networks.diffwave import DiffWave
from fastdpm.networks.lmnt_diffwave import LMNTDiffWave, interpolated_embedding
from tests.messages import tells
from tests.networks import reference_diffwave as published

STEPS = [0.0, 7.0, 49.0, 0.25, 17.625, 48.9]
CYCLE = 3


def _shapes(network: nn.Module) -> published.Shapes:
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def _filled(network: nn.Module) -> tuple[nn.Module, dict[str, Tensor]]:
    weights = published.random_state(_shapes(network))
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), weights


def _sounds(bands: int | None, length: int = 600) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(len(STEPS), 1, length, generator=generator)
    frames = -(-length // 256)
    mel = None if bands is None else torch.randn(len(x), bands, frames, generator=generator)
    return x, mel


def _check_equal(network: nn.Module, bands: int | None, expected: Tensor) -> None:
    x, mel = _sounds(bands)
    out = network(x, torch.tensor(STEPS), mel)
    assert out.shape == x.shape
    assert float((out - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("bands", [None, 6])
def test_lmnts_diffwave_computes_what_the_published_one_does(bands):
    network, weights = _filled(LMNTDiffWave(8, 5, CYCLE, bands, 50))
    x, mel = _sounds(bands)
    expected = published.lmnt_reference(
        weights, x, torch.tensor(STEPS), mel, dilation_cycle=CYCLE, num_train_steps=50
    )
    _check_equal(network, bands, expected)


@pytest.mark.parametrize("bands", [None, 6])
def test_the_authors_diffwave_computes_what_the_published_one_does(bands):
    network, weights = _filled(DiffWave(8, 10, 5, CYCLE, (16, 12, 20), bands))
    x, mel = _sounds(bands)
    expected = published.authors_reference(
        weights, x, torch.tensor(STEPS), mel, dilation_cycle=CYCLE
    )
    _check_equal(network, bands, expected)


# Millions of weights as the paper's appendix C has them; LMNT's file has 31 MB with Adam's means.
@pytest.mark.parametrize(
    ("kind", "arguments", "shapes", "millions"),
    [
        (DiffWave, (256, 256, 36, 12), published.sc09_shapes(), 24.1),
        (DiffWave, (64, 64, 30, 10, (128, 512, 512), 80), published.ljspeech_shapes(64), 2.64),
        (DiffWave, (128, 128, 30, 10, (128, 512, 512), 80), published.ljspeech_shapes(128), 6.91),
        (LMNTDiffWave, (64, 30, 10, 80), published.lmnt_shapes(), 31 / 12),
        (LMNTDiffWave, (256, 36, 12), published.lmnt_shapes(256, 36, None), 23.9),
    ],
    ids=["sc09", "ljspeech-64", "ljspeech-128", "lmnt", "lmnt-unconditional"],
)
def test_full_size_networks_have_the_published_names_and_shapes(kind, arguments, shapes, millions):
    with torch.device("meta"):
        network = kind(*arguments)
    assert _shapes(network) == shapes
    assert sum(map(math.prod, shapes.values())) / 1e6 == pytest.approx(millions, rel=0.02)


def test_between_steps_the_embedding_is_a_mixture_of_two_rows():
    rows = interpolated_embedding(torch.arange(50.0))
    assert float(rows[9, 0]) == pytest.approx(math.sin(9), abs=1e-6)
    assert float(rows[9, 64 + 63]) == pytest.approx(math.cos(9e4), abs=0.02)
    mixed = interpolated_embedding(torch.tensor([9.75], dtype=torch.float64))
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed[0], (0.25 * rows[9] + 0.75 * rows[10]).double())
    assert (
        float((mixed[0, :64] - torch.sin(9.75 * 10 ** (torch.arange(64) * 4 / 63))).abs().max())
        > 1
    )


def test_levels_cleaner_than_the_first_step_read_its_row():
    network, _ = _filled(LMNTDiffWave(8, 2, CYCLE, None, 50))
    x = torch.randn(1, 1, 64).expand(4, -1, -1)
    first, *cleaner = network(x, torch.tensor([0.0, -1e-9, -0.5, -0.999]))
    for out in cleaner:
        torch.testing.assert_close(out, first)


@pytest.mark.parametrize("t", [49.5, 50.0, -1.0, float("nan")])
def test_steps_outside_the_table_are_refused(t):
    network = LMNTDiffWave(8, 1, 1, None, 50)
    with pytest.raises(
        InvalidArgumentError,
        match=tells(49, f"{min(3.0, t):g}", f"{max(3.0, t):g}") if t == t else tells(49, "nan"),
    ):
        network(torch.zeros(2, 1, 64), torch.tensor([3.0, t]))


@pytest.mark.parametrize(
    ("bands", "mel", "values"),
    [
        (None, torch.zeros(1, 6, 3), ["condition"]),
        (6, None, ["6 bands"]),
        (6, torch.zeros(1, 5, 3), [513, "(batch, 6, 3", "(1, 5, 3)"]),
        (6, torch.zeros(1, 6, 2), [513, "(batch, 6, 3", "(1, 6, 2)"]),
    ],
)
def test_a_condition_that_does_not_fit_is_refused(bands, mel, values):
    network = LMNTDiffWave(8, 1, 1, bands)
    assert (network.mel_bands, network.hop_length) == (bands, 256)
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        network(torch.zeros(1, 1, 513), torch.zeros(1), mel)


def test_a_fresh_network_predicts_nothing():
    out = LMNTDiffWave(8, 2, 2)(torch.randn(1, 1, 64), torch.zeros(1)).detach()
    assert float(out.std()) < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        {"residual_channels": 8, "residual_layers": 12, "mel_bands": None},
        {"residual_channels": 6, "residual_layers": 1, "mel_bands": 5},
    ],
)
def test_a_states_shapes_tell_the_arguments_of_its_network(arguments):
    assert infer(_shapes(LMNTDiffWave(**arguments))) == arguments


def test_states_of_other_networks_are_refused():
    shapes: dict[str, Any] = published.lmnt_shapes(8, 1, None)
    old = shapes | {"diffusion_embedding.projection1.weight": (512, 128, 1)}
    with pytest.raises(ModelError, match=tells("diffwave", "0.1.0", "0.1.1", "0.1.2")):
        infer(old)
    with pytest.raises(ModelError, match=tells("input_projection.weight")):
        infer({name: s for name, s in shapes.items() if "input" not in name})
    with pytest.raises(ModelError, match=tells("residual_layers")):
        infer({name: s for name, s in shapes.items() if "layers" not in name})


@pytest.mark.parametrize("arguments", [{"residual_layers": 0}, {"num_train_steps": 0}])
def test_networks_without_layers_or_steps_are_refused(arguments):
    with pytest.raises(
        InvalidArgumentError,
        match=tells(*({"residual_layers": 30, "num_train_steps": 50} | arguments).values()),
    ):
        LMNTDiffWave(**arguments)
