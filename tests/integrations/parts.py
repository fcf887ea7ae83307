"""Tiny diffusers networks whose random weights make the output depend on every input."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")


LINEAR = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "clip_sample": False}


PROMPTS = ["a cat", "the dish"]


UNET: dict[str, Any] = {  # arguments of a tiny UNet2DModel
    "sample_size": 8,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


def enliven(module: nn.Module, seed: int = 0) -> nn.Module:
    """Add noise to all weights, so that the output depends on every input."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def make_unet(kind: str = "UNet2DModel", **arguments: Any) -> Any:
    """A tiny ``UNet2DModel``; a network of another ``kind`` has only the ``arguments``."""
    torch.manual_seed(0)
    tiny = UNET if kind == "UNet2DModel" else {}
    return enliven(getattr(diffusers, kind)(**tiny | arguments))


def make_text_unet(**arguments: Any) -> Any:
    tiny = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
    }
    return enliven(diffusers.UNet2DConditionModel(**tiny | arguments))


def make_vae(channels: int = 3, **arguments: Any) -> Any:
    tiny = {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "latent_channels": 4,
    }
    return enliven(diffusers.AutoencoderKL(**tiny | arguments))


def make_scheduler(**arguments: Any) -> Any:
    scaled = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.DDIMScheduler(
        **scaled | {"clip_sample": False, "set_alpha_to_one": True} | arguments
    )


def as_pixels(data: Tensor) -> Tensor:
    """Data in [-1, 1] as pipelines return it, (n, H, W, C) in [0, 1]."""
    return (data / 2 + 0.5).permute(0, 2, 3, 1)
