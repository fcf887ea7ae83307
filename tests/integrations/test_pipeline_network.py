"""A pipeline's network is not changed: its precision, its modes and its weights stay."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.integrations.parts import LINEAR, make_unet

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402


def test_the_network_receives_unrounded_steps_and_the_state_stays_float32():
    steps: list[Tensor] = []
    unet = make_unet().half()
    unet.time_proj.register_forward_pre_hook(lambda module, inputs: steps.append(inputs[0]))
    model = from_unet(unet, LINEAR)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([937.3, 0.4])
    out = model.network(x, t)
    assert out.dtype == torch.float32
    assert torch.equal(steps[0], t)
    exact = from_unet(make_unet(), LINEAR).network(x, t)
    torch.testing.assert_close(out, exact, rtol=0.02, atol=0.02)
    assert model.sample(2, num_steps=3).dtype == torch.float32


def test_a_vae_in_fp16_that_must_not_decode_so_is_copied(text_pipeline):
    text_pipeline.to(torch.float16)
    model = from_pipeline(text_pipeline, prompt="a cat", guidance_scale=2.0)
    parts: Any = model.network
    assert (parts.vae.dtype, text_pipeline.vae.dtype) == (torch.float32, torch.float16)
    assert parts.unet is text_pipeline.unet
    assert torch.isfinite(model.sample(2, num_steps=3)).all()


def test_a_pipeline_is_left_as_it_is(text_pipeline):
    unet, vae = text_pipeline.unet, text_pipeline.vae
    unet.train()
    unet.mid_block.eval()
    vae.requires_grad_(False)
    modes = [part.training for part in unet.modules()]
    wants = [p.requires_grad for p in (*unet.parameters(), *vae.parameters())]
    model = from_pipeline(text_pipeline, prompt="a cat")
    model.sample(1, num_steps=2)
    assert [part.training for part in unet.modules()] == modes
    assert [p.requires_grad for p in (*unet.parameters(), *vae.parameters())] == wants


def test_dropout_of_a_network_in_training_does_not_reach_samples():
    unet = make_unet(dropout=0.5)
    calm = from_unet(unet, LINEAR).sample(2, num_steps=3)
    unet.train()
    assert torch.equal(from_unet(unet, LINEAR).sample(2, num_steps=3), calm)
