"""Tiny networks of diffusers with random weights, and the pipelines around them."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdpm import VarianceSchedule
from tests.integrations.parts import make_scheduler, make_text_unet, make_vae

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")
SCHEDULE = VarianceSchedule.linear()
SHAPE = (2, 3, 8, 8)
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def smooth(x: Tensor, t: Tensor | float) -> Tensor:
    """A stand-in for a network: nearly the exact eps of normal data, at real-valued steps."""
    r, sigma = _scales(x, t)
    return sigma * x / (0.25 * r**2 + sigma**2) + 0.3 * r * torch.sin(2 * x)


def smooth_x0(x: Tensor, t: Tensor | float) -> Tensor:
    """The same network, predicting clean data."""
    r, sigma = _scales(x, t)
    return (x - sigma * smooth(x, t)) / r


def smooth_v(x: Tensor, t: Tensor | float) -> Tensor:
    """The same network, predicting v."""
    r, sigma = _scales(x, t)
    return r * smooth(x, t) - sigma * smooth_x0(x, t)


NETWORKS = {"epsilon": smooth, "v_prediction": smooth_v, "sample": smooth_x0}


def _scales(x: Tensor, t: Tensor | float) -> tuple[Tensor, Tensor]:
    level = SCHEDULE.R(torch.as_tensor(t, dtype=torch.float64).numpy() + 1)
    r = torch.tensor(level).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
    return r, (1 - r**2).sqrt()


def start(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sample(
    scheduler: Any, x: Tensor, network: Callable[..., Tensor] = smooth, **arguments: Any
) -> Tensor:
    """The loop that users of diffusers write."""
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x, **arguments).prev_sample
    return x


@pytest.fixture(scope="session")
def unet() -> Any:
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )
    return network.eval()


def unet_as_network(unet: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def network(x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = unet(x, t).sample
        return out

    return network


def _write_tokenizer(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs fastdpm[test]")
    words = ["<|startoftext|>", "<|endoftext|>", *"acdeghist", *(f"{c}</w>" for c in "acdeghist")]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        unk_token="<|endoftext|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=16,
    )


def _text_encoder() -> Any:
    transformers = pytest.importorskip("transformers", reason="needs fastdpm[test]")
    config = transformers.CLIPTextConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return transformers.CLIPTextModel(config).eval()


@pytest.fixture(scope="session")
def text_parts(tmp_path_factory) -> dict[str, Any]:
    """All that a latent text-to-image pipeline needs but its scheduler."""
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        sample_size=16,
    )
    network = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        return {
            "vae": vae.eval(),
            "unet": network.eval(),
            "text_encoder": _text_encoder(),
            "tokenizer": _write_tokenizer(tmp_path_factory.mktemp("tokenizer")),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }


@pytest.fixture
def text_pipeline(text_parts: dict[str, Any]) -> Any:
    # Tests that change their pipeline must not change the parts that all tests share.
    parts = copy.deepcopy(text_parts) | {
        "unet": make_text_unet(),
        "vae": make_vae(scaling_factor=0.5),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no safety checker
        pipeline = diffusers.StableDiffusionPipeline(**parts, scheduler=make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
