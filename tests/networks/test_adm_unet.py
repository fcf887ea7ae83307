"""The U-Net of improved- and guided-diffusion equals the published one."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError
from fastdpm.networks.adm_unet import ADMUNet
from fastdpm.networks.embedding import step_embedding
from tests.messages import tells
from tests.networks.adm_networks import SMALL, distance, every_small, inputs_of, random_weights
from tests.networks.reference_adm import adm_reference


def _reference(
    arguments: dict[str, Any], state: dict[str, Tensor], x: Tensor, t: Tensor, y: Tensor | None
) -> Tensor:
    return adm_reference(
        state,
        x,
        t,
        num_res_blocks=arguments["num_res_blocks"],
        num_heads=arguments["num_heads"],
        head_channels=arguments.get("num_head_channels"),
        num_heads_upsample=arguments.get("num_heads_upsample"),
        queries_first=arguments.get("new_attention_order", False),
        y=y,
    )


@pytest.mark.parametrize("t", [0.0, 37.0, 249.9375, 999.0])
@every_small
def test_the_network_computes_what_the_published_one_does(arguments, t):
    network = ADMUNet(**arguments).eval()
    state = random_weights(network)
    x, steps, y = inputs_of(arguments, t)
    with torch.no_grad():
        out = network(x, steps, y)
    assert out.shape == (2, arguments["out_channels"], 16, 16)
    assert distance(out, _reference(arguments, state, x, steps, y)) < 1e-5


def test_faint_images_are_normalised_as_published():
    network = ADMUNet(**SMALL).eval()
    state = random_weights(network)
    for name in ("input_blocks.0.0.weight", "input_blocks.0.0.bias"):
        state[name] *= 1e-3  # variances near 1e-6, where the eps of the norms decides
    network.load_state_dict(state)
    x, steps, _ = inputs_of(SMALL, 500.0)
    with torch.no_grad():
        assert distance(network(x, steps), _reference(SMALL, state, x, steps, None)) < 1e-5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_heads", 2),
        ("num_heads_upsample", 2),
        ("num_head_channels", 32),
        ("new_attention_order", True),
    ],
)
def test_an_option_that_shapes_do_not_tell_changes_the_output(option, value):
    network = ADMUNet(**SMALL).eval()
    other = ADMUNet(**SMALL | {option: value}).eval()
    other.load_state_dict(random_weights(network))
    x, steps, _ = inputs_of(SMALL, 500.0)
    with torch.no_grad():
        assert distance(other(x, steps), network(x, steps)) > 1e-3


def test_labels_change_the_output():
    arguments = SMALL | {"num_classes": 5}
    network = ADMUNet(**arguments).eval()
    random_weights(network)
    x, steps, _ = inputs_of(arguments, 500.0)
    with torch.no_grad():
        one, two = (network(x, steps, torch.full((2,), label)) for label in (1, 2))
    assert distance(one, two) > 1e-2


def test_a_step_is_neither_rounded_nor_cast_before_it_is_embedded():
    t = torch.tensor([0.0, 12.75, 249.9375, 3999.5], dtype=torch.float64)
    out = step_embedding(t, 8, cosines_first=True)
    assert out.dtype == torch.float64
    assert step_embedding(t.float(), 8, cosines_first=True).dtype == torch.float32
    for i, value in enumerate(t.tolist()):
        for k in range(4):
            angle = value * 10000 ** (-k / 4)
            assert float(out[i, k]) == pytest.approx(math.cos(angle), abs=2e-4)
            assert float(out[i, 4 + k]) == pytest.approx(math.sin(angle), abs=2e-4)


def test_low_precision_weights_receive_the_embedding_of_the_exact_step():
    network = ADMUNet(**SMALL).eval()
    random_weights(network)
    x, steps, _ = inputs_of(SMALL, 999.0)
    with torch.no_grad():
        expected = network(x, steps)
        low = network.bfloat16()(x.bfloat16(), steps).float()
        rounded = network(x.bfloat16(), steps.bfloat16()).float()
    assert distance(low, expected) < 0.05
    assert distance(rounded, expected) > 2 * distance(low, expected)


@pytest.mark.parametrize(
    ("classes", "y", "values"),
    [
        (None, torch.zeros(2, dtype=torch.int64), ["classes"]),
        (5, None, [0, 4, "(2,)"]),
        (5, torch.zeros(1, dtype=torch.int64), [0, 4, "(2,)", "(1,)"]),
        (5, torch.zeros(2, 5, dtype=torch.int64), [0, 4, "(2,)", "(2, 5)"]),
    ],
)
def test_labels_that_do_not_fit_are_refused(classes, y, values):
    network = ADMUNet(**SMALL | {"num_classes": classes})
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        network(torch.zeros(2, 3, 16, 16), torch.zeros(2), y)


@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"image_size": 15}, ["image_size", 15, "2 stages"]),
        ({"channel_mult": []}, ["0 stages"]),
        ({"channel_mult": [1, 1.5]}, [32, "[32, 48]"]),
        ({"attention_resolutions": [8, 2]}, ["attention_resolutions", "[16, 8]", "[2]"]),
        ({"num_heads": 3}, ["64 channels", 3]),
        ({"num_head_channels": 48}, ["64 channels", 48]),
        ({"num_heads": 0}, ["64 channels", 0]),
        ({"num_head_channels": 0}, ["64 channels", 0]),
        ({"num_head_channels": -1}, ["64 channels", -1]),
        ({"num_head_channels": 128}, ["64 channels", 128]),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)):
        ADMUNet(**SMALL | change)


def test_a_fresh_network_starts_at_zero():
    out = ADMUNet(**SMALL)(torch.randn(1, 3, 16, 16), torch.zeros(1))
    assert float(out.detach().abs().max()) == 0
