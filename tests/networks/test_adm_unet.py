"""The U-Net of improved- and guided-diffusion computes what the published one does."""

import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError, ModelError
from fastdpm.models.formats.adm import infer
from fastdpm.networks.adm_unet import ADMUNet, cosine_step_embedding
from tests.networks import reference_adm
from tests.networks.reference_adm import Shapes, adm_reference

SMALL: dict[str, Any] = {
    "image_size": 16,
    "in_channels": 3,
    "out_channels": 6,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [8],
    "num_heads": 4,
}
SMALLER: dict[str, dict[str, Any]] = {
    "improved": SMALL,
    "improved, other heads on the way up": SMALL | {"num_heads_upsample": 2},
    "improved, embedding added": SMALL | {"use_scale_shift_norm": False, "num_heads": 1},
    "improved, labels": SMALL | {"num_classes": 5, "attention_resolutions": [16, 8]},
    "three stages": SMALL
    | {"channel_mult": [1, 1, 2], "num_res_blocks": 2, "attention_resolutions": [8, 4]},
    "no attention but in the middle": SMALL | {"attention_resolutions": []},
    "one stage": SMALL | {"channel_mult": [1], "num_res_blocks": 2, "attention_resolutions": []},
    "pooling": SMALL | {"conv_resample": False, "in_channels": 2, "out_channels": 2},
    "pooling between equal widths": SMALL
    | {"conv_resample": False, "channel_mult": [1, 1], "attention_resolutions": []},
    "guided": SMALL | {"resblock_updown": True, "num_head_channels": 16},
    "guided, new order": SMALL
    | {"resblock_updown": True, "num_head_channels": 16, "new_attention_order": True},
    "guided, embedding added, equal widths": SMALL
    | {
        "resblock_updown": True,
        "channel_mult": [1, 1, 1],
        "attention_resolutions": [16],
        "use_scale_shift_norm": False,
    },
    "guided, half width, labels": SMALL
    | {
        "resblock_updown": True,
        "model_channels": 64,
        "channel_mult": [0.5, 1],
        "num_head_channels": 32,
        "num_classes": 7,
    },
}
every_small = pytest.mark.parametrize("arguments", SMALLER.values(), ids=SMALLER.keys())

# Parameters of the published checkpoints, whose names or papers give them rounded (50 M, 120 M,
# 270 M; 552.8 M, 559 M). LSUN's are the 113 673 219 of Ho et al., whose network it is, and
# 3 * (9 * 128 + 1) for the variance.
FULL: dict[str, tuple[Shapes, int, int, dict[str, Any]]] = {
    "cifar10_uncond_50M": (
        reference_adm.cifar10_uncond_50m(),
        52_546_438,
        32,
        {"num_res_blocks": 3, "num_heads": 4, "dropout": 0.3},
    ),
    "imagenet64_uncond_100M": (
        reference_adm.imagenet64_uncond_100m(),
        121_063_942,
        64,
        {"num_res_blocks": 3, "channel_mult": [1, 2, 3, 4], "num_heads": 4},
    ),
    "imagenet64_cond_270M": (
        reference_adm.imagenet64_cond_270m(),
        273_049_350,
        64,
        {
            "model_channels": 192,
            "num_res_blocks": 3,
            "channel_mult": [1, 2, 3, 4],
            "num_classes": 1000,
        },
    ),
    "lsun_uncond_100M": (
        reference_adm.lsun_uncond_100m(),
        113_673_219 + 3 * (9 * 128 + 1),
        256,
        {
            "channel_mult": [1, 1, 2, 2, 4, 4],
            "attention_resolutions": [16],
            "num_heads": 1,
            "use_scale_shift_norm": False,
        },
    ),
    "256x256_diffusion_uncond": (
        reference_adm.guided_256_uncond(),
        552_814_086,
        256,
        {
            "model_channels": 256,
            "channel_mult": [1, 1, 2, 2, 4, 4],
            "attention_resolutions": [32, 16, 8],
            "num_head_channels": 64,
            "resblock_updown": True,
        },
    ),
    "512x512_diffusion": (
        reference_adm.guided_512_cond(),
        558_997_638,
        512,
        {
            "model_channels": 256,
            "channel_mult": [0.5, 1, 1, 2, 2, 4, 4],
            "attention_resolutions": [32, 16, 8],
            "num_head_channels": 64,
            "resblock_updown": True,
            "num_classes": 1000,
        },
    ),
}
every_full = pytest.mark.parametrize(
    ("shapes", "parameters", "size", "arguments"), FULL.values(), ids=FULL.keys()
)


def _shapes(arguments: dict[str, Any]) -> Shapes:
    with torch.device("meta"):
        network = ADMUNet(**arguments)
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def _random(network: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that keep every layer's output near its input's size, so that each one counts."""
    torch.manual_seed(0)
    state = {}
    for name, weight in network.state_dict().items():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
        state[name] = scale * torch.randn_like(weight)
    network.load_state_dict(state)
    return state


def _inputs(arguments: dict[str, Any], t: float) -> tuple[Tensor, Tensor, Tensor | None]:
    size, classes = arguments["image_size"], arguments.get("num_classes")
    x = torch.randn(2, arguments["in_channels"], size, size)
    y = None if classes is None else torch.tensor([0, classes - 1])
    return x, torch.tensor([t, t / 3]), y


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


def _distance(out: Tensor, wanted: Tensor) -> float:
    return float(torch.linalg.vector_norm(out - wanted) / torch.linalg.vector_norm(wanted))


@pytest.mark.parametrize("t", [0.0, 37.0, 249.9375, 999.0])
@every_small
def test_the_network_computes_what_the_published_one_does(arguments, t):
    network = ADMUNet(**arguments).eval()
    state = _random(network)
    x, steps, y = _inputs(arguments, t)
    with torch.no_grad():
        out = network(x, steps, y)
    assert out.shape == (2, arguments["out_channels"], 16, 16)
    assert _distance(out, _reference(arguments, state, x, steps, y)) < 1e-5


def test_faint_images_are_normalised_as_published():
    network = ADMUNet(**SMALL).eval()
    state = _random(network)
    for name in ("input_blocks.0.0.weight", "input_blocks.0.0.bias"):
        state[name] *= 1e-3  # variances near 1e-6, where the eps of the norms decides
    network.load_state_dict(state)
    x, steps, _ = _inputs(SMALL, 500.0)
    with torch.no_grad():
        assert _distance(network(x, steps), _reference(SMALL, state, x, steps, None)) < 1e-5


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
    other.load_state_dict(_random(network))
    x, steps, _ = _inputs(SMALL, 500.0)
    with torch.no_grad():
        assert _distance(other(x, steps), network(x, steps)) > 1e-3


def test_labels_change_the_output():
    arguments = SMALL | {"num_classes": 5}
    network = ADMUNet(**arguments).eval()
    _random(network)
    x, steps, _ = _inputs(arguments, 500.0)
    with torch.no_grad():
        one, two = (network(x, steps, torch.full((2,), label)) for label in (1, 2))
    assert _distance(one, two) > 1e-2


def test_a_step_is_neither_rounded_nor_cast_before_it_is_embedded():
    t = torch.tensor([0.0, 12.75, 249.9375, 3999.5], dtype=torch.float64)
    out = cosine_step_embedding(t, 8)
    assert out.dtype == torch.float64
    assert cosine_step_embedding(t.float(), 8).dtype == torch.float32
    for i, value in enumerate(t.tolist()):
        for k in range(4):
            angle = value * 10000 ** (-k / 4)
            assert float(out[i, k]) == pytest.approx(math.cos(angle), abs=2e-4)
            assert float(out[i, 4 + k]) == pytest.approx(math.sin(angle), abs=2e-4)


def test_weights_of_low_precision_are_given_the_embedding_of_the_exact_step():
    network = ADMUNet(**SMALL).eval()
    _random(network)
    x, steps, _ = _inputs(SMALL, 999.0)
    with torch.no_grad():
        wanted = network(x, steps)
        low = network.bfloat16()(x.bfloat16(), steps).float()
        rounded = network(x.bfloat16(), steps.bfloat16()).float()
    assert _distance(low, wanted) < 0.05
    assert _distance(rounded, wanted) > 2 * _distance(low, wanted)


@every_full
def test_names_and_shapes_are_those_of_the_published_checkpoints(
    shapes, parameters, size, arguments
):
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters
    assert _shapes({"image_size": size, "out_channels": 6} | arguments) == shapes


@every_full
def test_shapes_of_published_checkpoints_tell_their_arguments(shapes, parameters, size, arguments):
    inferred = infer(shapes, size)
    told = inferred.keys() & arguments.keys()
    assert {name: inferred[name] for name in told} == {name: arguments[name] for name in told}
    assert _shapes(inferred | {"num_heads": 4}) == shapes


@pytest.mark.parametrize(
    ("width", "millions"), [(64, 30), (96, 68), (128, 120), (192, 270)], ids=str
)
def test_sizes_are_those_that_the_paper_prints(width, millions):
    arguments = FULL["imagenet64_uncond_100M"][3] | {"image_size": 64, "model_channels": width}
    count = sum(math.prod(shape) for shape in _shapes(arguments).values())
    assert count / 1e6 == pytest.approx(millions, rel=0.015)


NOT_TOLD = {"num_heads", "num_heads_upsample", "num_head_channels", "new_attention_order"}


@every_small
def test_arguments_come_back_from_shapes(arguments):
    inferred = infer(_shapes(arguments), arguments["image_size"])
    for name in arguments.keys() - NOT_TOLD:
        if name in inferred or not name.startswith(("resblock", "conv")):
            assert inferred[name] == arguments[name]
    assert not NOT_TOLD & inferred.keys()
    heads = {name: arguments[name] for name in NOT_TOLD & arguments.keys()}
    assert _shapes(inferred | heads) == _shapes(arguments)


def test_arguments_that_nothing_depends_on_are_left_out():
    guided = infer(_shapes(SMALLER["guided"]))
    assert guided["resblock_updown"] is True
    assert "conv_resample" not in guided
    one_stage = infer(_shapes(SMALLER["one stage"]))
    assert not {"resblock_updown", "conv_resample"} & one_stage.keys()
    assert infer(_shapes(SMALL))["conv_resample"] is True
    assert infer(_shapes(SMALLER["pooling"]))["conv_resample"] is False


def test_without_a_size_attention_is_told_by_stage():
    shapes = FULL["256x256_diffusion_uncond"][0]
    inferred = infer(shapes)
    assert inferred["attention_stages"] == [3, 4, 5]
    assert not {"attention_resolutions", "image_size"} & inferred.keys()


@pytest.mark.parametrize("channels", [480, 960, 1568])
def test_a_multiplier_that_rounds_below_its_channels_still_gives_them_back(channels):
    assert int(352 * (channels / 352)) < channels
    arguments: dict[str, Any] = {"attention_resolutions": [], "num_heads": 1, "image_size": 16}
    multipliers = [1, math.nextafter(channels / 352, math.inf)]
    shapes = _shapes(arguments | {"model_channels": 352, "channel_mult": multipliers})
    assert shapes["output_blocks.0.0.in_layers.2.weight"][0] == channels
    assert _shapes(infer(shapes, 16) | {"num_heads": 1}) == shapes


def _without(shapes: Shapes, prefix: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shapes: {}, r"time_embed\.0\.weight is missing"),
        (lambda shapes: _without(shapes, "out."), r"out\.2\.weight is missing"),
        (lambda shapes: _without(shapes, "input_blocks.3"), "3 input blocks do not divide"),
        (
            lambda shapes: shapes | {"input_blocks.0.0.weight": (32, 3)},
            r"input_blocks\.0\.0\.weight is missing or has another shape",
        ),
    ],
    ids=["empty", "no output", "cut short", "not a convolution"],
)
def test_a_state_of_another_network_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        infer(change(_shapes(SMALL)))


@pytest.mark.parametrize(
    ("classes", "y", "message"),
    [
        (None, torch.zeros(2, dtype=torch.int64), "no classes: leave the labels out"),
        (5, None, r"label from 0 to 4 for each image, shape \(2,\), got none"),
        (5, torch.zeros(1, dtype=torch.int64), r"got shape \(1,\)"),
        (5, torch.zeros(2, 5, dtype=torch.int64), r"got shape \(2, 5\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(classes, y, message):
    network = ADMUNet(**SMALL | {"num_classes": classes})
    with pytest.raises(InvalidArgumentError, match=message):
        network(torch.zeros(2, 3, 16, 16), torch.zeros(2), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 15}, "image_size must halve evenly .* got 15 for 2 stages"),
        ({"channel_mult": []}, "0 stages"),
        ({"channel_mult": [1, 1.5]}, r"multiple of 32, got \[32, 48\]"),
        ({"attention_resolutions": [8, 2]}, r"heights of stages, \[16, 8\], got \[2\]"),
        ({"num_heads": 3}, "64 channels does not divide into 3 heads"),
        ({"num_head_channels": 48}, "64 channels does not divide into heads of 48 channels"),
        ({"num_heads": 0}, "divide into 0 heads"),
        ({"num_head_channels": 0}, "divide into heads of 0 channels"),
        ({"num_head_channels": -1}, "divide into heads of -1 channels"),
        ({"num_head_channels": 128}, "64 channels does not divide into heads of 128 channels"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ADMUNet(**SMALL | change)


def test_a_fresh_network_starts_at_zero():
    out = ADMUNet(**SMALL)(torch.randn(1, 3, 16, 16), torch.zeros(1))
    assert float(out.detach().abs().max()) == 0


RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
    "op": "conv",
    "conv": "conv",
    "norm": "group_norm",
    "proj_out": "to_out.0",
    "qkv": "qkv",
}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
MIDDLE = ["resnets.0", "attentions.0", "resnets.1"]


def _diffusers_name(name: str, per_stage: int, attention: set[str]) -> str:
    """Where diffusers keeps a layer of the published network."""
    if name in ENDS:
        return ENDS[name]
    part, block, layer, *rest = name.split(".")
    inner = RESIDUAL[".".join(rest)] if part != "middle_block" else ""
    if part == "middle_block":
        return f"mid_block.{MIDDLE[int(block)]}.{RESIDUAL['.'.join([layer, *rest])]}"
    n = int(block) - (part == "input_blocks")
    side, changer = (
        ("down", "downsamplers.0") if part == "input_blocks" else ("up", "upsamplers.0")
    )
    kind = f"resnets.{n % per_stage}"
    if f"{part}.{block}.{layer}" in attention:
        kind = f"attentions.{n % per_stage}"
    elif int(layer) or (side == "down" and n % per_stage == per_stage - 1):
        kind = changer
    return f"{side}_blocks.{n // per_stage}.{kind}.{inner}"


def _diffusers_state(
    state: dict[str, Tensor], per_stage: int, head_channels: int
) -> dict[str, Tensor]:
    attention = {name.removesuffix(".qkv.weight") for name in state if name.endswith("qkv.weight")}
    moved = {}
    for name, weight in state.items():
        layer, _, leaf = name.rpartition(".")
        target = _diffusers_name(layer, per_stage, attention)
        flat = weight.flatten(1) if weight.ndim == 3 else weight
        if not target.endswith("qkv"):
            moved[f"{target}.{leaf}"] = flat
            continue
        heads = flat.reshape(-1, 3, head_channels, *flat.shape[1:])
        for i, which in enumerate("qkv"):
            moved[f"{target.removesuffix('qkv')}to_{which}.{leaf}"] = heads[:, i].flatten(0, 1)
    return moved


@pytest.mark.parametrize("how", ["conv", "resnet"])
@pytest.mark.parametrize("scale_shift", [True, False])
def test_the_network_computes_what_diffusers_does(how, scale_shift):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is an extra")
    arguments: dict[str, Any] = SMALL | {
        "num_res_blocks": 2,
        "num_head_channels": 16,
        "num_classes": 5,
        "use_scale_shift_norm": scale_shift,
        "resblock_updown": how == "resnet",
    }
    network = ADMUNet(**arguments).eval()
    plain = "" if how == "conv" else "Resnet"
    other = diffusers.UNet2DModel(
        sample_size=16,
        out_channels=6,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=(f"{plain}Down{'sample' if plain else ''}Block2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", f"{plain}Up{'sample' if plain else ''}Block2D"),
        downsample_type=how,
        upsample_type=how,
        attention_head_dim=16,
        attn_norm_num_groups=32,
        resnet_time_scale_shift="scale_shift" if scale_shift else "default",
        num_class_embeds=5,
    ).eval()
    other.load_state_dict(_diffusers_state(_random(network), 3, 16))
    x, steps, y = _inputs(arguments, 249.9375)
    with torch.no_grad():
        wanted = cast(Tensor, other(x, steps, class_labels=y).sample)
        assert _distance(network(x, steps, y), wanted) < 1e-5
