"""A diffusers pipeline is evaluated and compared like any other model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastdpm import Model, Recipe, compare, evaluate
from fastdpm.evaluation.cache import default_cache
from fastdpm.evaluation.drawn import DrawOptions, ModelHandle, ModelSource
from fastdpm.evaluation.evaluating import MeasureOptions, choose_drawer
from fastdpm.evaluation.methods import choose_methods
from tests.evaluation.conftest import IMAGE_FEATURES, write_tiny_features
from tests.integrations.parts import LINEAR, PROMPTS, make_text_unet, make_vae

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402


def test_results_are_identified_by_everything_that_determines_them(text_pipeline):
    def key(**changes: Any) -> str:
        arguments: dict[str, Any] = {"prompt": PROMPTS, "guidance_scale": 3.0, "name": "m"}
        arguments |= changes
        handle = ModelHandle(from_pipeline(text_pipeline, **arguments))
        drawer = choose_drawer(handle, None, None)
        return ModelSource(handle, drawer, DrawOptions(), default_cache()).key

    keys = [
        key(),
        key(prompt=PROMPTS[:1]),
        key(prompt=PROMPTS[::-1]),
        key(guidance_scale=4.0),
        key(guidance_scale=1.0),
        key(negative_prompt="dog"),
        key(sample_size=16),
    ]
    again = key()
    assert again == keys[0]
    with torch.no_grad():
        text_pipeline.vae.decoder.conv_out.bias.add_(0.5)
    keys.append(key())
    text_pipeline.vae.register_to_config(scaling_factor=0.9)
    keys.append(key())
    text_pipeline.unet.register_to_config(freq_shift=1)
    keys.append(key())
    assert len(set(keys)) == len(keys)


@pytest.fixture
def measured(tmp_path) -> tuple[Model, MeasureOptions]:
    """A latent model of grey images of 8 x 8, and what measures them."""
    folder: Path = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (24, 8, 8))):
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    features = str(write_tiny_features(tmp_path / "features", IMAGE_FEATURES))
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    model = from_unet(
        make_text_unet(),
        LINEAR | {"num_train_timesteps": 60},
        encoder_hidden_states=hidden,
        empty_hidden_states=torch.zeros(5, 16),
        guidance_scale=2.0,
        vae=make_vae(channels=1),
        sample_size=4,
    )
    return model, MeasureOptions(str(folder), 20, features)


def test_a_latent_model_is_measured_and_compared(measured):
    model, measuring = measured
    found = evaluate(
        model,
        measuring.against,
        n=20,
        features=measuring.features,
        recipe=Recipe(num_steps=3),
        guidance_scale=2.0,
    )
    assert (found.n, found.evaluations) == (20, 6)
    assert found.scores["frechet_distance"].value > 0
    methods = choose_methods(["step-linear-k0", "var-quadratic-k1", "dpmpp-2m-var-linear"])
    cells = compare(model, (3, 4), methods, measuring=measuring).results["cells"]
    assert [cell["failed"] for cell in cells] == [None] * 6
    values = {cell["metrics"]["frechet_distance"]["value"] for cell in cells}
    assert len(values) == 6
    assert found.scores["frechet_distance"].value in values  # kept, and drawn alike
