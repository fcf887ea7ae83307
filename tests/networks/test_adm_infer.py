"""The network's arguments are inferred from the shapes of a checkpoint."""

import math
from typing import Any

import pytest

from fastdpm import ModelError
from fastdpm.models.formats.adm import infer
from tests.messages import tells
from tests.networks.adm_networks import FULL, SMALL, SMALLER, every_full, every_small, shapes_of
from tests.networks.reference_adm import Shapes


@every_full
def test_names_and_shapes_are_those_of_the_published_checkpoints(
    shapes, parameters, size, arguments
):
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    assert shapes_of({"image_size": size, "out_channels": 6} | arguments) == shapes


@every_full
def test_shapes_of_published_checkpoints_tell_their_arguments(shapes, parameters, size, arguments):
    inferred = infer(shapes, size)
    shared = inferred.keys() & arguments.keys()
    assert {name: inferred[name] for name in shared} == {name: arguments[name] for name in shared}
    assert shapes_of(inferred | {"num_heads": 4}) == shapes


@pytest.mark.parametrize(
    ("width", "millions"), [(64, 30), (96, 68), (128, 120), (192, 270)], ids=str
)
def test_sizes_are_those_that_the_paper_prints(width, millions):
    arguments = FULL["imagenet64_uncond_100M"][3] | {"image_size": 64, "model_channels": width}
    count = sum(math.prod(shape) for shape in shapes_of(arguments).values())
    assert count / 1e6 == pytest.approx(millions, rel=0.015)


NOT_TOLD = {"num_heads", "num_heads_upsample", "num_head_channels", "new_attention_order"}


@every_small
def test_arguments_come_back_from_shapes(arguments):
    inferred = infer(shapes_of(arguments), arguments["image_size"])
    for name in arguments.keys() - NOT_TOLD:
        if name in inferred or not name.startswith(("resblock", "conv")):
            assert inferred[name] == arguments[name]
    assert not NOT_TOLD & inferred.keys()
    heads = {name: arguments[name] for name in NOT_TOLD & arguments.keys()}
    assert shapes_of(inferred | heads) == shapes_of(arguments)


def test_arguments_that_nothing_depends_on_are_left_out():
    guided = infer(shapes_of(SMALLER["guided"]))
    assert guided["resblock_updown"] is True
    assert "conv_resample" not in guided
    one_stage = infer(shapes_of(SMALLER["one stage"]))
    assert not {"resblock_updown", "conv_resample"} & one_stage.keys()
    assert infer(shapes_of(SMALL))["conv_resample"] is True
    assert infer(shapes_of(SMALLER["pooling"]))["conv_resample"] is False


def test_without_a_size_attention_is_listed_by_stage():
    shapes = FULL["256x256_diffusion_uncond"][0]
    inferred = infer(shapes)
    assert inferred["attention_stages"] == [3, 4, 5]
    assert not {"attention_resolutions", "image_size"} & inferred.keys()


@pytest.mark.parametrize("channels", [480, 960, 1568])
def test_a_multiplier_that_rounds_below_its_channels_still_gives_them_back(channels):
    assert int(352 * (channels / 352)) < channels
    arguments: dict[str, Any] = {"attention_resolutions": [], "num_heads": 1, "image_size": 16}
    multipliers = [1, math.nextafter(channels / 352, math.inf)]
    shapes = shapes_of(arguments | {"model_channels": 352, "channel_mult": multipliers})
    assert shapes["output_blocks.0.0.in_layers.2.weight"][0] == channels
    assert shapes_of(infer(shapes, 16) | {"num_heads": 1}) == shapes


def _without(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "values"),
    [
        (lambda shapes: {}, ["time_embed.0.weight"]),
        (lambda shapes: _without(shapes, "out."), ["out.2.weight"]),
        (lambda shapes: _without(shapes, "input_blocks.3"), [3]),
        (
            lambda shapes: shapes | {"input_blocks.0.0.weight": (32, 3)},
            ["input_blocks.0.0.weight"],
        ),
    ],
    ids=["empty", "no output", "cut short", "not a convolution"],
)
def test_a_state_of_another_network_is_refused(change, values):
    with pytest.raises(ModelError, match=tells(*values)):
        infer(change(shapes_of(SMALL)))
