"""What a pipeline cannot be sampled with is refused, and the message names it."""

from typing import Any

import pytest
import torch
from torch import nn

from fastdpm import InvalidArgumentError
from tests.integrations.parts import LINEAR, make_text_unet, make_unet

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
        "idle empty": lambda: from_unet(make_unet(num_class_embeds=3), LINEAR, empty_label=2),
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
    ("call", "message"),
    [
        ("no U-Net", "_FlowPipeline has no U-Net"),
        ("no variances", "FlowMatchEulerDiscreteScheduler cannot be sampled"),
        ("surplus prompt", "DDPMPipeline takes no text: drop prompt"),
        ("missing prompt", "StableDiffusionPipeline samples for a text: give prompt"),
        ("no prompts", "give prompt"),
        ("idle guidance", "not conditioned on anything to guide by: drop guidance_scale"),
        ("idle negative", "negative_prompt changes nothing"),
        ("no empty label", "give empty_label to from_unet"),
        ("no empty states", "give empty_hidden_states"),
        ("idle empty", "an empty condition changes nothing"),
        ("wrong label", r"labels must lie in \[0, 2\], got 3"),
        ("surplus label", "has no classes: drop the labels"),
        ("missing states", "UNet2DConditionModel needs encoder_hidden_states"),
        ("surplus states", "UNet2DModel takes no encoder_hidden_states"),
        ("bad states", r"must have shape \(m, tokens, width\), got \(16,\)"),
        ("empty of another length", r"must have the shape of one condition, \(5, 16\)"),
        ("labels of another number", "got 3 class_labels, 2 hidden_states"),
        ("inpainting", "takes 9 channels and returns 4"),
        ("no size", "add sample_size"),
        ("other network", "can be opened, got a Linear"),
        ("no scheduler", "a scheduler of diffusers or its configuration is needed"),
        ("label steps", "class_embed_type 'timestep'"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(text_pipeline, call, message):
    with pytest.raises(InvalidArgumentError, match=message) as error:
        _refused(call, text_pipeline)()
    assert "\n" not in str(error.value)
