"""Unsupported pipelines and arguments are refused, and the message names them."""

from typing import Any

import pytest
import torch
from torch import nn

from fastdpm import InvalidArgumentError
from tests.integrations.parts import LINEAR, make_text_unet, make_unet
from tests.messages import tells

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402


class _FlowPipeline:
    unet, scheduler = None, None


def _refused(call: str, pipeline: Any) -> Any:
    plain = diffusers.DDPMPipeline(make_unet(), diffusers.DDPMScheduler())
    labelled = diffusers.DDPMPipeline(make_unet(num_class_embeds=3), diffusers.DDPMScheduler())
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    hidden = torch.zeros(2, 5, 16)
    calls = {
        "no U-Net": lambda: from_pipeline(_FlowPipeline()),
        "no variances": lambda: from_pipeline(diffusers.DDPMPipeline(make_unet(), flow)),
        "surplus prompt": lambda: from_pipeline(plain, prompt="a cat"),
        "missing prompt": lambda: from_pipeline(pipeline),
        "no prompts": lambda: from_pipeline(pipeline, prompt=[]),
        "idle guidance": lambda: from_pipeline(plain, guidance_scale=3.0),
        "idle negative": lambda: from_pipeline(
            pipeline, prompt="a cat", negative_prompt="dog", guidance_scale=1.0
        ),
        "no empty label": lambda: from_pipeline(labelled, guidance_scale=3.0),
        "no empty states": lambda: from_unet(
            make_text_unet(), LINEAR, encoder_hidden_states=hidden, guidance_scale=3.0
        ),
        "wrong label": lambda: from_pipeline(labelled, class_labels=[3]),
        "surplus label": lambda: from_pipeline(plain, class_labels=[0]),
        "missing states": lambda: from_unet(make_text_unet(), LINEAR),
        "surplus states": lambda: from_unet(make_unet(), LINEAR, encoder_hidden_states=hidden),
        "bad states": lambda: from_unet(
            make_text_unet(), LINEAR, encoder_hidden_states=torch.zeros(16)
        ),
        "empty of another length": lambda: from_unet(
            make_text_unet(),
            LINEAR,
            encoder_hidden_states=hidden,
            empty_hidden_states=torch.zeros(4, 16),
            guidance_scale=2.0,
        ),
        "labels of another number": lambda: from_unet(
            make_text_unet(num_class_embeds=3),
            LINEAR,
            encoder_hidden_states=hidden,
            class_labels=[0, 1, 2],
        ),
        "inpainting": lambda: from_unet(
            make_text_unet(in_channels=9), LINEAR, encoder_hidden_states=hidden
        ),
        "no size": lambda: from_unet(make_unet(sample_size=None), LINEAR),
        "other network": lambda: from_unet(nn.Linear(2, 2), LINEAR),
        "no scheduler": lambda: from_unet(make_unet(), "ddpm"),
        "label steps": lambda: from_unet(make_unet(class_embed_type="timestep"), LINEAR),
    }
    return calls[call]


@pytest.mark.parametrize(
    ("call", "values"),
    [
        ("no U-Net", ["_FlowPipeline"]),
        ("no variances", ["FlowMatchEulerDiscreteScheduler", "beta_schedule"]),
        ("surplus prompt", ["DDPMPipeline", "prompt"]),
        ("missing prompt", ["StableDiffusionPipeline", "prompt"]),
        ("no prompts", ["StableDiffusionPipeline", "prompt"]),
        ("idle guidance", ["DDPMPipeline", "guidance_scale"]),
        ("idle negative", ["negative_prompt", "StableDiffusionPipeline", "guidance_scale", 1]),
        ("no empty label", [3, "DDPMPipeline", "empty_label", "from_unet"]),
        ("no empty states", [3, "UNet2DConditionModel", "empty_hidden_states", "from_unet"]),
        ("wrong label", ["[0, 2]", 3]),
        ("surplus label", ["DDPMPipeline", "classes"]),
        ("missing states", ["UNet2DConditionModel", "encoder_hidden_states"]),
        ("surplus states", ["UNet2DModel", "encoder_hidden_states"]),
        ("bad states", ["encoder_hidden_states", "(m, tokens, width)", "(16,)"]),
        ("empty of another length", ["hidden_states", "(5, 16)", "(4, 16)"]),
        ("labels of another number", ["3 class_labels", "2 hidden_states"]),
        ("inpainting", ["UNet2DConditionModel", "9 channels", 4]),
        ("no size", ["sample_size"]),
        ("other network", ["UNet2DModel", "Linear"]),
        ("no scheduler", ["ddpm"]),
        ("label steps", ["class_embed_type", "timestep"]),
    ],
)
def test_what_does_not_fit_is_one_clear_line(text_pipeline, call, values):
    with pytest.raises(InvalidArgumentError, match=tells(*values)) as error:
        _refused(call, text_pipeline)()
    assert "\n" not in str(error.value)
