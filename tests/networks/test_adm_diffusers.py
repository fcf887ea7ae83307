"""The U-Net of guided-diffusion equals that of diffusers with the same weights."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from fastdpm.networks.adm_unet import ADMUNet
from tests.networks.adm_networks import SMALL, distance, inputs_of, random_weights

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
    other.load_state_dict(_diffusers_state(random_weights(network), 3, 16))
    x, steps, y = inputs_of(arguments, 249.9375)
    with torch.no_grad():
        expected = cast(Tensor, other(x, steps, class_labels=y).sample)
        assert distance(network(x, steps, y), expected) < 1e-5
