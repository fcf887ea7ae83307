"""FastDPM's schedulers inside the pipelines of diffusers."""

import copy
import subprocess
import sys
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

import fastdpm
from fastdpm import (
    FastDPMInverseScheduler,
    FastDPMScheduler,
    Recipe,
    SampleNoise,
    VarianceSchedule,
    ddim_rev,
    levels_var,
    run,
)
from fastdpm.core import dpmpp_2m
from fastdpm.sampling import ClipX0, Guidance, VPrediction
from tests.integrations.conftest import SCALED, SHAPE, start, unet_as_network

LINEAR = VarianceSchedule.linear()
LATENT = VarianceSchedule.scaled_linear()
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
PROMPT = "the cat"
RECIPES = [
    Recipe(levels="step", spacing="quadratic"),
    Recipe(levels="var", kappa=0.5),
    Recipe(levels="var", spacing="quadratic", kappa=1.0),
    Recipe(levels="var", method="dpmpp-3m"),
]


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _choices(recipe: Recipe) -> dict[str, Any]:
    names = ("levels", "spacing", "kappa", "method")
    return {name: getattr(recipe, name) for name in names}


def _image(x: Tensor) -> Tensor:
    return (x / 2 + 0.5).clamp(0, 1)


@pytest.fixture
def network_steps(monkeypatch) -> list[float]:
    """The timesteps that reach a U-Net."""
    steps: list[float] = []
    for name in ("UNet2DModel", "UNet2DConditionModel"):
        kind = getattr(diffusers, name)
        forward = kind.forward

        def spy(self, sample, timestep, *rest, _forward=forward, **named):
            steps.append(float(torch.as_tensor(timestep).flatten()[0]))
            return _forward(self, sample, timestep, *rest, **named)

        monkeypatch.setattr(kind, "forward", spy)
    return steps


@pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
@pytest.mark.parametrize("clip", [False, True])
def test_ddpm_pipeline_draws_the_samples_of_run(unet, network_steps, monkeypatch, recipe, clip):
    scheduler = FastDPMScheduler(**_choices(recipe), clip_sample=clip)
    noise = SampleNoise(7, range(2))
    scheduler.use_noise(noise)
    module = "diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor"
    monkeypatch.setattr(module, lambda shape, **_: noise.start(shape[1:]))
    pipe = _quiet(diffusers.DDPMPipeline(unet, scheduler))
    images = pipe(batch_size=2, num_inference_steps=8, output_type="pt").images
    np.testing.assert_array_equal(network_steps, scheduler.timesteps)

    plan = recipe.replace(num_steps=8).compile(LINEAR)
    network = unet_as_network(unet)
    ours = run(plan, ClipX0(network) if clip else network, noise.start(SHAPE[1:]), noise=noise)
    torch.testing.assert_close(images, _image(ours), **CLOSE)


def test_ddpm_pipeline_takes_a_generator_for_each_sample(unet):
    pipe = _quiet(diffusers.DDPMPipeline(unet, FastDPMScheduler(kappa=1.0)))

    def draw(*seeds: int) -> Tensor:
        each = [torch.Generator().manual_seed(seed) for seed in seeds]
        named = {"num_inference_steps": 5, "output_type": "pt"}
        images: Tensor = pipe(len(seeds), each, **named).images
        return images

    torch.testing.assert_close(draw(3, 4)[1:], draw(4), **CLOSE)


def test_ddim_pipeline_takes_the_scheduler_that_is_assigned_to_it(unet, network_steps):
    pipe = _quiet(diffusers.DDIMPipeline(unet, FastDPMScheduler(levels="var", num_steps=6)))
    assert type(pipe.scheduler).__name__ == "DDIMScheduler"
    pipe.scheduler = FastDPMScheduler.from_config(pipe.scheduler.config)
    assert pipe.scheduler.config["levels"] == "var"
    generator = torch.Generator().manual_seed(0)
    images = pipe(2, generator, num_inference_steps=6, output_type="pt").images
    plan = ddim_rev(levels_var(LINEAR, 6))
    np.testing.assert_array_equal(network_steps, plan.t.astype(np.float32))
    x = run(plan, unet_as_network(unet), start())
    torch.testing.assert_close(images, _image(x), **CLOSE)

    def stochastic(kappa: float, eta: float) -> Tensor:
        pipe.scheduler = FastDPMScheduler(levels="var", kappa=kappa)
        made: Tensor = pipe(
            2, torch.Generator().manual_seed(0), eta, num_inference_steps=6, output_type="pt"
        ).images
        return made

    torch.testing.assert_close(stochastic(0.0, 0.7), stochastic(0.7, 0.0), **CLOSE)


def test_a_plain_loop_over_a_network_is_run(unet):
    scheduler = FastDPMScheduler(prediction_type="v_prediction", levels="var")
    scheduler.set_timesteps(7)
    x = start()
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t)
            x = scheduler.step(unet(scaled, t).sample, t, x, return_dict=False)[0]
    plan = ddim_rev(levels_var(LINEAR, 7))
    theirs = run(plan, VPrediction(unet_as_network(unet)), start())
    torch.testing.assert_close(x, theirs, **CLOSE)


@pytest.mark.parametrize("kind", [FastDPMScheduler, FastDPMInverseScheduler])
def test_a_pipeline_with_our_scheduler_survives_saving(unet, tmp_path, kind):
    scheduler = kind(levels="var", num_steps=6, spacing="quadratic")
    pipe: Any = diffusers.DDPMPipeline(unet, scheduler)
    pipe.save_pretrained(tmp_path)
    other: Any = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert type(other.scheduler) is kind
    assert other.config["scheduler"] == ("fastdpm.integrations.diffusers", kind.__name__)
    for made in (pipe, other):
        made.scheduler.set_timesteps()
    torch.testing.assert_close(other.scheduler.timesteps, pipe.scheduler.timesteps)


def _text_network(parts: dict[str, Any]) -> Any:
    def network(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        out: Tensor = parts["unet"](x, t, encoder_hidden_states=condition).sample
        return out

    return network


def _guided(pipe: Any, parts: dict[str, Any], scale: float) -> Guidance:
    wanted, empty = pipe.encode_prompt(PROMPT, "cpu", 1, True)
    return Guidance(_text_network(parts), wanted, empty, scale)


def _text_pipe(name: str, parts: dict[str, Any], **choices: Any) -> Any:
    theirs: Any = diffusers.PNDMScheduler(**SCALED, skip_prk_steps=True, steps_offset=1)
    scheduler = FastDPMScheduler.from_config(theirs.config, **choices)
    return _quiet(getattr(diffusers, name)(**parts, scheduler=scheduler))


@pytest.mark.parametrize("recipe", RECIPES, ids=Recipe.describe)
@torch.no_grad()
def test_text_to_image_draws_the_latents_of_run(text_parts, network_steps, recipe):
    pipe = _text_pipe("StableDiffusionPipeline", text_parts, **_choices(recipe))
    noise = SampleNoise(2, [0])
    pipe.scheduler.use_noise(noise)
    x = noise.start((4, 8, 8))
    named = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "latent"}
    latents = pipe(PROMPT, latents=x, **named).images
    plan = recipe.replace(num_steps=6).compile(LATENT)
    np.testing.assert_array_equal(network_steps, plan.t.astype(np.float32))
    ours = run(plan, _guided(pipe, text_parts, 3.0), x, noise=noise)
    torch.testing.assert_close(latents, ours, **CLOSE)


@torch.no_grad()
def test_text_to_image_takes_custom_real_valued_timesteps_and_eta(text_parts, network_steps):
    pipe = _text_pipe("StableDiffusionPipeline", text_parts)
    noise = SampleNoise(2, [0])
    pipe.scheduler.use_noise(noise)
    x, steps = noise.start((4, 8, 8)), [990.5, 512.25, 100.125, -0.5]
    named = {"guidance_scale": 1.0, "output_type": "latent", "eta": 0.5}
    latents = pipe(PROMPT, latents=x, timesteps=steps, **named).images
    assert network_steps == steps
    wanted, _ = pipe.encode_prompt(PROMPT, "cpu", 1, False)
    network = _text_network(text_parts)
    plan = Recipe(at_steps=tuple(steps), kappa=0.5).compile(LATENT)
    ours = run(plan, lambda x, t: network(x, t, wanted), x, noise=noise)
    torch.testing.assert_close(latents, ours, **CLOSE)


@torch.no_grad()
def test_half_precision_text_to_image_keeps_real_valued_timesteps(text_parts, network_steps):
    halves = {n: copy.deepcopy(text_parts[n]) for n in ("unet", "vae", "text_encoder")}
    parts = text_parts | {name: part.to(torch.bfloat16) for name, part in halves.items()}
    pipe = _text_pipe("StableDiffusionPipeline", parts, levels="var")
    x = start((1, 4, 8, 8)).bfloat16()
    latents = pipe(PROMPT, latents=x, num_inference_steps=5, output_type="latent").images
    assert latents.dtype == torch.bfloat16
    np.testing.assert_array_equal(network_steps, pipe.scheduler.timesteps)


IMAGE_RECIPES = [
    Recipe(levels="var"),
    Recipe(levels="var", kappa=1.0),
    Recipe(levels="var", method="dpmpp-2m"),
]


def _encoded(pipe: Any, image: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Latents and noise, drawn in the order of the image pipelines."""
    generator = torch.Generator().manual_seed(seed)
    drawn: Tensor = pipe.vae.encode(2 * image - 1).latent_dist.sample(generator=generator)
    return pipe.vae.config.scaling_factor * drawn, torch.randn(drawn.shape, generator=generator)


def _tail(recipe: Recipe, first: int) -> fastdpm.Plan:
    levels = recipe.replace(num_steps=8).choose_levels(LATENT)[first:]
    return dpmpp_2m(levels) if recipe.method == "dpmpp-2m" else ddim_rev(levels, recipe.kappa)


@pytest.mark.parametrize("recipe", IMAGE_RECIPES, ids=Recipe.describe)
@pytest.mark.parametrize("strength", [0.5, 0.9])
@torch.no_grad()
def test_image_to_image_starts_at_its_strength(text_parts, network_steps, recipe, strength):
    pipe = _text_pipe("StableDiffusionImg2ImgPipeline", text_parts, **_choices(recipe))
    noise = SampleNoise(2, [0])
    pipe.scheduler.use_noise(noise)
    image = _image(start((1, 3, 16, 16)))
    latents = pipe(
        PROMPT,
        image=image,
        strength=strength,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    plan = _tail(recipe, 8 - int(8 * strength))
    np.testing.assert_array_equal(network_steps, plan.t.astype(np.float32))
    clean, z = _encoded(pipe, image, 5)
    x = plan.level[0] * clean + (1 - plan.level[0] ** 2) ** 0.5 * z
    ours = run(plan, _guided(pipe, text_parts, 3.0), x.float(), noise=noise)
    torch.testing.assert_close(latents, ours, **CLOSE)


@pytest.mark.parametrize("recipe", IMAGE_RECIPES, ids=Recipe.describe)
@pytest.mark.parametrize("strength", [0.5, 1.0])
@torch.no_grad()
def test_inpainting_keeps_what_the_mask_keeps(text_parts, network_steps, recipe, strength):
    pipe = _text_pipe("StableDiffusionInpaintPipeline", text_parts, **_choices(recipe))
    noise = SampleNoise(2, [0])
    pipe.scheduler.use_noise(noise)
    image = _image(start((1, 3, 16, 16)))
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1
    latents = pipe(
        PROMPT,
        image=image,
        mask_image=mask,
        strength=strength,
        height=16,
        width=16,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    plan = _tail(recipe, 8 - int(8 * strength))
    np.testing.assert_array_equal(network_steps, plan.t.astype(np.float32))
    clean, z = _encoded(pipe, image, 5)
    kept = torch.nn.functional.interpolate(mask, size=(8, 8)) < 0.5
    torch.testing.assert_close(latents[kept.expand_as(latents)], clean[kept.expand_as(clean)])

    # The pipeline replaces what the mask keeps after each row, so the rows are taken one by one.
    network = _guided(pipe, text_parts, 3.0)
    x = z if strength == 1.0 else plan.level[0] * clean + (1 - plan.level[0] ** 2) ** 0.5 * z
    x = x.float()
    states: list[Tensor] = []
    eps: list[Tensor] = []
    for row in range(plan.num_rows):
        t = torch.tensor([plan.t[row]], dtype=torch.float32)
        states.insert(0, x)
        eps.insert(0, network(x, t))
        x = torch.zeros_like(x)
        for weights, past in ((plan.a[row], states), (plan.b[row], eps)):
            for weight, value in zip(weights, past, strict=False):
                x = x + float(weight) * value
        if plan.c[row]:
            x = x + float(plan.c[row]) * noise(row, x)
        r = plan.level[row + 1]
        x = torch.where(kept, (r * clean + (1 - r**2) ** 0.5 * z).float(), x)
    torch.testing.assert_close(latents, x, rtol=3e-5, atol=3e-5)


def test_a_text_pipeline_with_our_scheduler_survives_saving(text_parts, tmp_path):
    pipe = _text_pipe("StableDiffusionPipeline", text_parts, levels="var", method="dpmpp-2m")
    pipe.save_pretrained(tmp_path)
    other: Any = _quiet(diffusers.StableDiffusionPipeline.from_pretrained(tmp_path))
    assert type(other.scheduler) is FastDPMScheduler
    x = start((1, 4, 8, 8))
    draws = [
        p(PROMPT, latents=x, num_inference_steps=4, output_type="latent").images
        for p in (pipe, other)
    ]
    torch.testing.assert_close(*draws)


def test_a_saved_pipeline_loads_in_another_process_that_imported_the_class(tmp_path):
    pipeline: Any = diffusers.DDPMPipeline(
        unet=diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(8, 8),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        ),
        scheduler=FastDPMScheduler(kappa=0.5),
    )
    pipeline.save_pretrained(tmp_path)
    code = (
        "from diffusers import DDPMPipeline\nfrom fastdpm import FastDPMScheduler\n"
        f"print(DDPMPipeline.from_pretrained({str(tmp_path)!r}).scheduler.config.kappa)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0.5"
