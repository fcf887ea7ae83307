"""Prompts, labels and guidance of a pipeline reach its network unchanged."""

import pytest
import torch
from torch import Tensor

from fastdpm import InvalidArgumentError, Model
from tests.integrations.parts import LINEAR, PROMPTS, make_text_unet, make_unet
from tests.messages import tells

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402


def test_the_default_guidance_scale_is_that_of_the_pipeline(text_pipeline):
    default, explicit, none = (
        from_pipeline(text_pipeline, prompt="a cat", guidance_scale=scale)
        for scale in (None, 7.5, 1.0)
    )
    assert [m.config.recipe.guidance_scale for m in (default, explicit, none)] == [7.5, 7.5, 1]
    outputs = [model.sample(1, num_steps=2) for model in (default, explicit, none)]
    assert torch.equal(outputs[2], default.sample(1, num_steps=2, guidance_scale=1))
    assert torch.equal(outputs[0], outputs[1])
    assert (outputs[0] - outputs[2]).abs().max() > 1e-3


def test_a_sample_depends_on_its_prompt_and_not_on_its_batch(text_pipeline):
    model = from_pipeline(text_pipeline, prompt=PROMPTS, guidance_scale=3.0)
    together = model.sample(5, num_steps=3, kappa=1.0)
    alone = model.sample(5, num_steps=3, kappa=1.0, batch_size=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    other = from_pipeline(text_pipeline, prompt=PROMPTS[1], guidance_scale=3.0)
    of_other = other.sample(4, num_steps=3, kappa=1.0)
    torch.testing.assert_close(together[[1, 3]], of_other[[1, 3]], rtol=0, atol=2e-5)
    assert (together[0] - of_other[0]).abs().max() > 1e-3


def _guided(model: Model, x: Tensor, t: Tensor, scale: float) -> Tensor:
    found = model.noise_predictor(model.conditions, guidance_scale=scale)(x, t, 0.5)  # type: ignore[call-arg]
    assert isinstance(found, Tensor)
    return found


def test_labels_reach_the_network_and_can_be_guided():
    unet = make_unet(num_class_embeds=5)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([500.5, 500.5])
    every = from_unet(unet, LINEAR)
    assert every.config.data.classes == 5
    assert every.conditions is not None
    assert every.conditions.tolist() == [0, 1, 2, 3, 4]
    chosen = from_unet(unet, LINEAR, class_labels=[3, 1], empty_label=4, guidance_scale=3.0)
    assert chosen.conditions is not None
    assert chosen.conditions.tolist() == [3, 1]
    with torch.no_grad():
        conditional = unet(x, t, class_labels=torch.tensor([3, 1])).sample
        empty = unet(x, t, class_labels=torch.tensor([4, 4])).sample
    guided = _guided(chosen, x, t, 3.0)
    torch.testing.assert_close(guided, empty + 3 * (conditional - empty), rtol=1e-4, atol=1e-5)
    assert (conditional - empty).abs().max() > 1e-2
    rest = from_unet(unet, LINEAR, empty_label=4)  # guidance can be chosen later
    assert rest.conditions is not None
    assert rest.conditions.tolist() == [0, 1, 2, 3]
    assert (rest.config.data.classes, rest.null_class) == (4, 4)
    assert (rest.config.recipe.guidance_scale, chosen.config.recipe.guidance_scale) == (1, 3)
    torch.testing.assert_close(
        rest.sample(2, num_steps=3, class_labels=[3, 1], guidance_scale=3),
        chosen.sample(2, num_steps=3),
    )
    first = from_unet(unet, LINEAR, empty_label=0)
    assert (first.config.data.classes, first.null_class) == (5, 0)
    assert torch.equal(
        first.sample(2, num_steps=3, class_labels="none"),
        first.sample(2, num_steps=3, class_labels=0),
    )
    with pytest.raises(InvalidArgumentError, match=tells("null class", "guidance_scale")):
        every.sample(1, guidance_scale=2)
    of_three = every.sample(2, num_steps=3, condition=torch.tensor([3]))
    torch.testing.assert_close(
        of_three, from_unet(unet, LINEAR, class_labels=3).sample(2, num_steps=3)
    )


def test_labels_beside_texts_travel_together():
    unet = make_text_unet(num_class_embeds=5)
    hidden = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1))
    model = from_unet(
        unet,
        LINEAR,
        encoder_hidden_states=hidden,
        class_labels=[4, 2],
        empty_hidden_states=torch.ones(6, 16),
        empty_label=0,
        guidance_scale=2.0,
    )
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([500.5, 3.25])
    with torch.no_grad():
        conditional = unet(x, t, hidden, class_labels=torch.tensor([4, 2])).sample
        empty = unet(x, t, torch.ones(2, 6, 16), class_labels=torch.tensor([0, 0])).sample
    assert model.conditions is not None
    found = _guided(model, x, t, 2.0)
    torch.testing.assert_close(found, empty + 2 * (conditional - empty), rtol=1e-4, atol=1e-5)
