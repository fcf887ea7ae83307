"""A diffusers pipeline opened as a model gives the same samples as in diffusers."""

import json
from typing import Any

import pytest
import torch

from fastdpm import Recipe, SampleNoise, ddim_rev, levels_var, run
from fastdpm.core import levels_custom
from tests.integrations.parts import (
    PROMPTS,
    as_pixels,
    enliven,
    make_scheduler,
    make_text_unet,
    make_unet,
    make_vae,
)

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402


def test_an_unconditional_pipeline_is_sampled_as_by_its_own_loop():
    pipeline = diffusers.DDPMPipeline(make_unet(), diffusers.DDPMScheduler(clip_sample=False))
    model = from_pipeline(pipeline)
    levels = levels_var(model.schedule, 5)
    found = model.sample(3, plan=ddim_rev(levels), seed=7)
    x = SampleNoise(7, range(3)).start((3, 8, 8))
    for i, t in enumerate(levels.t):
        with torch.no_grad():
            eps = pipeline.unet(x, torch.full((3,), t, dtype=torch.float32)).sample
        r, after = (float(level) for level in levels.level[i : i + 2])
        x0 = (x - (1 - r**2) ** 0.5 * eps) / r
        x = after * x0 + (1 - after**2) ** 0.5 * eps
    torch.testing.assert_close(found, x.clamp(-1, 1), rtol=0, atol=1e-4)
    assert x.abs().max() > 0.1
    assert (levels.t % 1 != 0).any()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # diffusers' own
def test_a_latent_pipeline_decodes_as_it_does_itself():
    vqvae = enliven(
        diffusers.VQModel(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            num_vq_embeddings=16,
        )
    )
    pipeline = diffusers.LDMPipeline(vqvae, make_unet(), make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    model = from_pipeline(pipeline)
    assert (model.config.data.shape, model.sample_shape()) == ((3, 16, 16), (3, 8, 8))
    theirs = pipeline(
        batch_size=2,
        generator=torch.Generator().manual_seed(3),
        num_inference_steps=5,
        output_type="np",
    ).images
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    plan = ddim_rev(levels_custom(model.schedule, t=(800, 600, 400, 200, 0)))
    found = model.finished(run(plan, model.noise_predictor(), start))
    torch.testing.assert_close(as_pixels(found), torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("method", ["fastdpm", "ddim"])
def test_text_to_image_equals_the_pipeline(text_pipeline, scale, method):
    model = from_pipeline(
        text_pipeline,
        prompt=PROMPTS,
        guidance_scale=scale,
        negative_prompt="dog" if scale > 1 else None,
    )
    if method == "ddim":
        choices: dict[str, Any] = {"num_inference_steps": 5}
        text_pipeline.scheduler.set_timesteps(5)
        steps = text_pipeline.scheduler.timesteps.tolist()  # the pipeline sets an offset
        plan = ddim_rev(levels_custom(model.schedule, t=steps))
    else:
        from fastdpm import FastDPMScheduler

        plan = Recipe(num_steps=4, levels="var", spacing="quadratic").compile(model.schedule)
        text_pipeline.scheduler = FastDPMScheduler.from_config(
            text_pipeline.scheduler.config, num_steps=4, levels="var", spacing="quadratic"
        )
        choices = {"num_inference_steps": 4}
    theirs = text_pipeline(
        PROMPTS,
        negative_prompt=["dog", "dog"] if scale > 1 else None,
        guidance_scale=scale,
        latents=SampleNoise(0, range(2)).start((4, 8, 8)),
        output_type="np",
        **choices,
    ).images
    found = as_pixels(model.sample(2, plan=plan))
    torch.testing.assert_close(found, torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01
    assert abs(theirs[0] - theirs[1]).max() > 0.01


def test_a_pipeline_of_two_text_encoders_equals_itself(text_parts):
    transformers = pytest.importorskip("transformers", reason="needs fastdpm[test]")
    config = text_parts["text_encoder"].config
    values = json.loads(config.to_json_string()) | {"projection_dim": 16}
    second = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**values))
    unet = make_text_unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=make_vae(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 1.0, 0.5]),
        text_encoder=text_parts["text_encoder"],
        text_encoder_2=second.eval(),
        tokenizer=text_parts["tokenizer"],
        tokenizer_2=text_parts["tokenizer"],
        unet=unet,
        scheduler=make_scheduler(),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    model = from_pipeline(pipeline, prompt=PROMPTS, guidance_scale=4.0, negative_prompt="dog")
    plan = ddim_rev(levels_custom(model.schedule, t=(800, 600, 400, 200, 0)))
    theirs = pipeline(
        PROMPTS,
        negative_prompt=["dog", "dog"],
        guidance_scale=4.0,
        num_inference_steps=5,
        latents=SampleNoise(0, range(2)).start((4, 8, 8)),
        output_type="np",
    ).images
    found = as_pixels(model.sample(2, plan=plan))
    torch.testing.assert_close(found, torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


def test_dit_takes_its_classes_with_the_pipelines_own_guidance():
    network = enliven(
        diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=4,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            sample_size=8,
            num_embeds_ada_norm=1000,
            norm_num_groups=4,
        )
    )
    pipeline = diffusers.DiTPipeline(network, make_vae(), make_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    model = from_pipeline(pipeline, class_labels=[7, 990])
    theirs = pipeline(
        [7, 990],
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=5,
        output_type="np",
    ).images
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plan = ddim_rev(levels_custom(model.schedule, t=(800, 600, 400, 200, 0)))
    found = model.finished(
        run(plan, model.noise_predictor(model.conditions, guidance_scale=4.0), start)
    )
    torch.testing.assert_close(as_pixels(found), torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


def test_trajectories_have_the_requested_length():
    torch.manual_seed(0)
    unet = diffusers.UNet1DModel(
        in_channels=5,
        out_channels=5,
        block_out_channels=(8, 16),
        time_embedding_type="positional",
        flip_sin_to_cos=False,
        use_timestep_embedding=True,
        freq_shift=1,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",),
        mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock",
        act_fn="mish",
    )
    scheduler = diffusers.DDPMScheduler(
        num_train_timesteps=20, beta_schedule="squaredcos_cap_v2", clip_sample_range=2.0
    )
    model = from_unet(unet, scheduler, sample_size=12)
    assert (model.config.data.modality, model.config.data.shape) == ("series", (5, 12))
    assert (model.config.recipe.num_steps, model.config.recipe.clip) == (20, "none")
    assert model.sample(3, num_steps=4).shape == (3, 5, 12)
