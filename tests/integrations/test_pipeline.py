"""A pipeline of diffusers is sampled, measured and compared here as it would be there."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastdpm import (
    InvalidArgumentError,
    Model,
    Recipe,
    SampleNoise,
    compare,
    ddim_rev,
    evaluate,
    levels_given,
    levels_var,
    run,
)
from fastdpm.evaluation.drawn import ModelHandle
from fastdpm.evaluation.evaluate import MeasureOptions
from fastdpm.evaluation.methods import choose_methods
from tests.evaluation.conftest import IMAGE_FEATURES, write_tiny_features

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

from fastdpm.integrations.diffusers.pipeline import from_pipeline, from_unet  # noqa: E402

LINEAR = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "clip_sample": False}
PROMPTS = ["a cat", "the dish"]


def _enliven(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights under which every input moves the output."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def _unet(**arguments: Any) -> Any:
    torch.manual_seed(0)
    tiny = {
        "sample_size": 8,
        "layers_per_block": 1,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return _enliven(diffusers.UNet2DModel(**tiny | arguments))


def _text_unet(**arguments: Any) -> Any:
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
    return _enliven(diffusers.UNet2DConditionModel(**tiny | arguments))


def _vae(channels: int = 3, **arguments: Any) -> Any:
    tiny = {
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D"),
        "up_block_types": ("UpDecoderBlock2D", "UpDecoderBlock2D"),
        "latent_channels": 4,
    }
    return _enliven(diffusers.AutoencoderKL(**tiny | arguments))


def _scheduler(**arguments: Any) -> Any:
    scaled = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.DDIMScheduler(
        **scaled | {"clip_sample": False, "set_alpha_to_one": True} | arguments
    )


@pytest.fixture
def text_pipeline(text_parts: dict[str, Any]) -> Any:
    # Tests that change their pipeline must not change the parts that all tests share.
    parts = copy.deepcopy(text_parts) | {"unet": _text_unet(), "vae": _vae(scaling_factor=0.5)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no safety checker
        pipeline = diffusers.StableDiffusionPipeline(**parts, scheduler=_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _pixels(data: Tensor) -> Tensor:
    """Data in [-1, 1] as pipelines return it, (n, H, W, C) in [0, 1]."""
    return (data / 2 + 0.5).permute(0, 2, 3, 1)


def test_an_unconditional_pipeline_is_sampled_as_by_its_own_loop():
    pipeline = diffusers.DDPMPipeline(_unet(), diffusers.DDPMScheduler(clip_sample=False))
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
    vqvae = _enliven(
        diffusers.VQModel(
            block_out_channels=(8, 8),
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
            up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
            num_vq_embeddings=16,
        )
    )
    pipeline = diffusers.LDMPipeline(vqvae, _unet(), _scheduler())
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
    plan = ddim_rev(levels_given(model.schedule, t=(800, 600, 400, 200, 0)))
    found = model.finished(run(plan, model.denoiser(), start))
    torch.testing.assert_close(_pixels(found), torch.tensor(theirs), rtol=0, atol=1e-4)
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
        plan = ddim_rev(levels_given(model.schedule, t=steps))
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
    found = _pixels(model.sample(2, plan=plan))
    torch.testing.assert_close(found, torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01
    assert abs(theirs[0] - theirs[1]).max() > 0.01


def test_the_guidance_of_a_text_pipeline_is_its_own_if_nothing_is_said(text_pipeline):
    unsaid, said, none = (
        from_pipeline(text_pipeline, prompt="a cat", guidance_scale=scale)
        for scale in (None, 7.5, 1.0)
    )
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    outputs = [
        model.denoiser(model.conditions)(start, torch.tensor([500.25]))  # type: ignore[call-arg]
        for model in (unsaid, said, none)
    ]
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


def test_results_are_told_apart_by_all_that_decides_them(text_pipeline):
    def key(**changes: Any) -> str:
        arguments: dict[str, Any] = {"prompt": PROMPTS, "guidance_scale": 3.0, "name": "m"}
        arguments |= changes
        return ModelHandle(from_pipeline(text_pipeline, **arguments)).key

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
        _text_unet(),
        LINEAR | {"num_train_timesteps": 60},
        encoder_hidden_states=hidden,
        empty_hidden_states=torch.zeros(5, 16),
        guidance_scale=2.0,
        vae=_vae(channels=1),
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
    )
    assert found.n == 20
    assert found.scores["frechet_distance"].value > 0
    methods = choose_methods(["step-linear-k0", "var-quadratic-k1", "dpmpp-2m-var-linear"])
    cells = compare(model, (3, 4), methods, measuring=measuring).results["cells"]
    assert [cell["failed"] for cell in cells] == [None] * 6
    values = {cell["metrics"]["frechet_distance"]["value"] for cell in cells}
    assert len(values) == 6
    assert found.scores["frechet_distance"].value in values  # kept, and drawn alike


def test_the_network_is_told_unrounded_steps_and_the_state_stays_float32():
    told: list[Tensor] = []
    unet = _unet().half()
    unet.time_proj.register_forward_pre_hook(lambda module, inputs: told.append(inputs[0]))
    model = from_unet(unet, LINEAR)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([937.3, 0.4])
    out = model.network(x, t)
    assert out.dtype == torch.float32
    assert torch.equal(told[0], t)
    exact = from_unet(_unet(), LINEAR).network(x, t)
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
    unet = _unet(dropout=0.5)
    calm = from_unet(unet, LINEAR).sample(2, num_steps=3)
    unet.train()
    assert torch.equal(from_unet(unet, LINEAR).sample(2, num_steps=3), calm)


def test_labels_reach_the_network_and_can_be_guided():
    unet = _unet(num_class_embeds=5)
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
        wanted = unet(x, t, class_labels=torch.tensor([3, 1])).sample
        empty = unet(x, t, class_labels=torch.tensor([4, 4])).sample
    guided = chosen.network(x, t, chosen.conditions)
    torch.testing.assert_close(guided, empty + 3 * (wanted - empty), rtol=1e-4, atol=1e-5)
    assert (wanted - empty).abs().max() > 1e-2
    rest = from_unet(unet, LINEAR, empty_label=4, guidance_scale=3.0).conditions
    assert rest is not None
    assert rest.tolist() == [0, 1, 2, 3]
    of_three = every.sample(2, num_steps=3, condition=torch.tensor([3]))
    torch.testing.assert_close(
        of_three, from_unet(unet, LINEAR, class_labels=3).sample(2, num_steps=3)
    )


def test_labels_beside_texts_travel_together():
    unet = _text_unet(num_class_embeds=5)
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
        wanted = unet(x, t, hidden, class_labels=torch.tensor([4, 2])).sample
        empty = unet(x, t, torch.ones(2, 6, 16), class_labels=torch.tensor([0, 0])).sample
    assert model.conditions is not None
    found = model.network(x, t, model.conditions)
    torch.testing.assert_close(found, empty + 2 * (wanted - empty), rtol=1e-4, atol=1e-5)


def test_a_pipeline_of_two_text_encoders_equals_itself(text_parts):
    transformers = pytest.importorskip("transformers", reason="needs fastdpm[test]")
    config = text_parts["text_encoder"].config
    values = json.loads(config.to_json_string()) | {"projection_dim": 16}
    second = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**values))
    unet = _text_unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=16 + 6 * 4,
    )
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=_vae(latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 1.0, 0.5]),
        text_encoder=text_parts["text_encoder"],
        text_encoder_2=second.eval(),
        tokenizer=text_parts["tokenizer"],
        tokenizer_2=text_parts["tokenizer"],
        unet=unet,
        scheduler=_scheduler(),
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    model = from_pipeline(pipeline, prompt=PROMPTS, guidance_scale=4.0, negative_prompt="dog")
    plan = ddim_rev(levels_given(model.schedule, t=(800, 600, 400, 200, 0)))
    theirs = pipeline(
        PROMPTS,
        negative_prompt=["dog", "dog"],
        guidance_scale=4.0,
        num_inference_steps=5,
        latents=SampleNoise(0, range(2)).start((4, 8, 8)),
        output_type="np",
    ).images
    found = _pixels(model.sample(2, plan=plan))
    torch.testing.assert_close(found, torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


def test_dit_takes_its_classes_with_the_pipelines_own_guidance():
    network = _enliven(
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
    pipeline = diffusers.DiTPipeline(network, _vae(), _scheduler())
    pipeline.set_progress_bar_config(disable=True)
    model = from_pipeline(pipeline, class_labels=[7, 990])
    theirs = pipeline(
        [7, 990],
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=5,
        output_type="np",
    ).images
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plan = ddim_rev(levels_given(model.schedule, t=(800, 600, 400, 200, 0)))
    found = model.finished(run(plan, model.denoiser(model.conditions), start))
    torch.testing.assert_close(_pixels(found), torch.tensor(theirs), rtol=0, atol=1e-4)
    assert theirs.std() > 0.01


def test_trajectories_have_the_length_that_is_asked_for():
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


class _FlowPipeline:
    unet, scheduler = None, None


def _refused(call: str, pipeline: Any) -> Any:
    plain = diffusers.DDPMPipeline(_unet(), diffusers.DDPMScheduler())
    labelled = diffusers.DDPMPipeline(_unet(num_class_embeds=3), diffusers.DDPMScheduler())
    flow = diffusers.FlowMatchEulerDiscreteScheduler()
    hidden = torch.zeros(2, 5, 16)
    calls = {
        "no U-Net": lambda: from_pipeline(_FlowPipeline()),
        "no variances": lambda: from_pipeline(diffusers.DDPMPipeline(_unet(), flow)),
        "surplus prompt": lambda: from_pipeline(plain, prompt="a cat"),
        "missing prompt": lambda: from_pipeline(pipeline),
        "no prompts": lambda: from_pipeline(pipeline, prompt=[]),
        "idle guidance": lambda: from_pipeline(plain, guidance_scale=3.0),
        "idle negative": lambda: from_pipeline(
            pipeline, prompt="a cat", negative_prompt="dog", guidance_scale=1.0
        ),
        "no empty label": lambda: from_pipeline(labelled, guidance_scale=3.0),
        "no empty states": lambda: from_unet(
            _text_unet(), LINEAR, encoder_hidden_states=hidden, guidance_scale=3.0
        ),
        "idle empty": lambda: from_unet(_unet(num_class_embeds=3), LINEAR, empty_label=2),
        "wrong label": lambda: from_pipeline(labelled, class_labels=[3]),
        "surplus label": lambda: from_pipeline(plain, class_labels=[0]),
        "missing states": lambda: from_unet(_text_unet(), LINEAR),
        "surplus states": lambda: from_unet(_unet(), LINEAR, encoder_hidden_states=hidden),
        "bad states": lambda: from_unet(
            _text_unet(), LINEAR, encoder_hidden_states=torch.zeros(16)
        ),
        "empty of another length": lambda: from_unet(
            _text_unet(),
            LINEAR,
            encoder_hidden_states=hidden,
            empty_hidden_states=torch.zeros(4, 16),
            guidance_scale=2.0,
        ),
        "labels of another number": lambda: from_unet(
            _text_unet(num_class_embeds=3),
            LINEAR,
            encoder_hidden_states=hidden,
            class_labels=[0, 1, 2],
        ),
        "inpainting": lambda: from_unet(
            _text_unet(in_channels=9), LINEAR, encoder_hidden_states=hidden
        ),
        "no size": lambda: from_unet(_unet(sample_size=None), LINEAR),
        "other network": lambda: from_unet(nn.Linear(2, 2), LINEAR),
        "no scheduler": lambda: from_unet(_unet(), "ddpm"),
        "label steps": lambda: from_unet(_unet(class_embed_type="timestep"), LINEAR),
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
