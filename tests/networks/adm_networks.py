"""Small networks of improved- and guided-diffusion, and the shapes of the published ones."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fastdpm.networks.adm_unet import ADMUNet
from tests.networks import reference_adm
from tests.networks.reference_adm import Shapes

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


def shapes_of(arguments: dict[str, Any]) -> Shapes:
    with torch.device("meta"):
        network = ADMUNet(**arguments)
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def random_weights(network: torch.nn.Module) -> dict[str, Tensor]:
    """Weights that keep every layer's output near its input's size, so that each one counts."""
    torch.manual_seed(0)
    state = {}
    for name, weight in network.state_dict().items():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.3
        state[name] = scale * torch.randn_like(weight)
    network.load_state_dict(state)
    return state


def inputs_of(arguments: dict[str, Any], t: float) -> tuple[Tensor, Tensor, Tensor | None]:
    size, classes = arguments["image_size"], arguments.get("num_classes")
    x = torch.randn(2, arguments["in_channels"], size, size)
    y = None if classes is None else torch.tensor([0, classes - 1])
    return x, torch.tensor([t, t / 3]), y


def distance(out: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(out - expected) / torch.linalg.vector_norm(expected))
