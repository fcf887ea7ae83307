"""A diffusers folder gives the same network here, in every layout and version."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastdpm import InvalidArgumentError, ModelError, evaluate, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.evaluation.evaluating import MeasureOptions
from fastdpm.models.conversion import convert
from fastdpm.models.formats.diffusers_folder import recipe_of
from tests.integrations.parts import UNET, make_unet
from tests.messages import tells

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")

CIFAR10: dict[str, Any] = {  # of google/ddpm-cifar10-32
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "sample_size": 32,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
HOPPER: dict[str, Any] = {  # of bglick13/hopper-medium-v2-value-function-hor32
    "sample_size": 32,
    "in_channels": 14,
    "out_channels": 14,
    "time_embedding_type": "positional",
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "use_timestep_embedding": True,
    "down_block_types": ("DownResnetBlock1D",) * 4,
    "up_block_types": ("UpResnetBlock1D",) * 3,
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
    "block_out_channels": (8, 16, 16, 16),
    "act_fn": "mish",
}
SOUND: dict[str, Any] = {  # with attention, fixed filters and a table of frequencies
    "sample_size": 256,
    "sample_rate": 8000,
    "in_channels": 1,
    "out_channels": 1,
    "extra_in_channels": 64,
    "block_out_channels": (32, 32, 64),
}
KERNELS = UNET | {
    "block_out_channels": (64, 64),
    "norm_num_groups": 32,
    "add_attention": False,
    "down_block_types": ("KDownBlock2D", "KDownBlock2D"),
    "up_block_types": ("KUpBlock2D", "KUpBlock2D"),
}


def _write(
    folder: Path, network: Any, scheduler: Any = None, *, safe: bool = True, root: bool = False
) -> Path:
    """A pipeline's folder, as it is written now or, at the root, as the first ones were."""
    unet, steps = (folder, folder) if root else (folder / "unet", folder / "scheduler")
    network.save_pretrained(unet, safe_serialization=safe)
    (scheduler or diffusers.DDPMScheduler()).save_pretrained(steps)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", type(network).__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _edit(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def _check_same(found: nn.Module, network: Any, shape: tuple[int, ...], *labels: Tensor) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    for t in ([0.0, 500.0, 999.0], [0.25, 500.5, 998.875]):
        steps = torch.tensor(t)
        with torch.no_grad():
            expected = network(x, steps, *labels).sample
            out = found(x, steps, *labels)
        scale = expected.abs().max().item()
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5 * scale)
        assert expected.std() > 1e-3


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("root", [True, False])
def test_every_layout_of_a_pipeline_is_read(tmp_path, root, safe):
    network = make_unet()
    folder = _write(tmp_path / "cats", network, root=root, safe=safe)
    assert (folder / ("" if root else "unet") / "config.json").is_file()
    model = load_model(folder)
    assert (model.config.name, model.config.data.shape) == ("cats", (3, 8, 8))
    assert model.config.recipe.clip == "x0"
    _check_same(model.network, network, (3, 8, 8))


def test_a_unet_alone_finds_the_scheduler_beside_it_or_in_its_pipeline(tmp_path):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=77, prediction_type="v_prediction")
    folder = _write(tmp_path / "x", make_unet(), scheduler)
    inside = load_model(folder / "unet")
    assert (inside.schedule.num_train_steps, inside.config.prediction) == (77, "v_prediction")
    alone = shutil.copytree(folder / "unet", tmp_path / "alone")
    with pytest.raises(ModelError, match=tells(alone, "scheduler_config.json")):
        load_model(alone)
    shutil.copy(folder / "scheduler" / "scheduler_config.json", alone)
    assert load_model(alone).schedule.num_train_steps == 77


def test_a_snapshot_of_a_hub_is_called_after_its_repository(tmp_path):
    place = tmp_path / "models--google--ddpm-cifar10-32" / "snapshots" / "0123abcd"
    assert load_model(_write(place, make_unet(), root=True)).config.name == "ddpm-cifar10-32"


def _old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, former in old.items():
        state = {name.replace(f".{new}.", f".{former}."): w for name, w in state.items()}
    return state


def test_attention_under_its_old_names_is_the_same(tmp_path):
    network = make_unet()
    folder = _write(tmp_path / "x", network, root=True, safe=False)
    path = folder / "diffusion_pytorch_model.bin"
    state = _old_names(torch.load(path, weights_only=True))
    assert "mid_block.attentions.0.proj_attn.bias" in state
    torch.save(state, path)
    _check_same(load_model(folder).network, network, (3, 8, 8))


@pytest.mark.parametrize(
    ("kind", "config", "data"),
    [
        ("UNet1DModel", HOPPER, ("series", (14, 32), None)),
        ("UNet1DModel", SOUND, ("audio", (1, 256), 8000)),
        ("UNet1DModel", SOUND | {"in_channels": 2, "out_channels": 2}, ("series", (2, 256), 8000)),
        ("UNet2DModel", UNET | {"sample_size": (8, 16)}, ("image", (3, 8, 16), None)),
        ("UNet2DModel", KERNELS, ("image", (3, 8, 8), None)),
    ],
)
def test_networks_of_every_kind_are_whole_though_built_without_memory(
    tmp_path, kind, config, data
):
    network = make_unet(kind, **config)
    model = load_model(_write(tmp_path / "x", network))
    found = model.config.data
    assert (found.modality, found.shape, found.sample_rate) == data
    assert not any(t.is_meta for t in (*model.network.parameters(), *model.network.buffers()))
    _check_same(model.network, network, data[1])


def test_what_weights_leave_out_is_computed_without_touching_random_numbers(tmp_path):
    folder = _write(tmp_path / "x", make_unet(**KERNELS))
    before = torch.random.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_classes_are_known(tmp_path):
    network = make_unet(num_class_embeds=4)
    model = load_model(_write(tmp_path / "x", network))
    assert model.config.data.classes == 4
    _check_same(model.network, network, (3, 8, 8), torch.tensor([3, 0, 2]))
    by_label = model.sample(2, num_steps=3, condition=torch.tensor([3]))
    assert (by_label - model.sample(2, num_steps=3)).abs().max() > 1e-3


def test_the_last_label_can_be_the_null_class_of_a_converted_folder(tmp_path):
    convert(_write(tmp_path / "x", make_unet(num_class_embeds=4)), tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    config["network"]["null_class"], config["data"]["classes"] = True, 3
    path.write_text(json.dumps(config))
    model = load_model(tmp_path / "m")
    assert model.conditions is not None
    assert (model.null_class, model.conditions.tolist()) == (3, [0, 1, 2])
    none = model.sample(1, num_steps=2, class_labels="none")
    assert torch.equal(none, model.sample(1, num_steps=2, class_labels=1, guidance_scale=0))


def test_the_published_network_is_the_same_at_full_size(tmp_path):
    network = make_unet(**CIFAR10)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
    model = load_model(_write(tmp_path / "ddpm-cifar10-32", network, root=True))
    _check_same(model.network, network, (3, 32, 32))


def test_a_converted_folder_is_the_same_model(tmp_path):
    folder = _write(tmp_path / "hopper", make_unet("UNet1DModel", **HOPPER))
    convert(folder, tmp_path / "made")
    made, opened = load_model(tmp_path / "made"), load_model(folder)
    assert made.config.data == opened.config.data
    assert torch.equal(made.sample(2, num_steps=4), opened.sample(2, num_steps=4))


def test_series_are_written_as_they_are_with_a_picture(tmp_path, monkeypatch, capsys):
    folder = _write(tmp_path / "hopper", make_unet("UNet1DModel", **HOPPER))
    monkeypatch.chdir(tmp_path)
    assert fastdpm(["sample", str(folder), "-n", "5", "-S", "3", "--out", "x"]) == 0
    expected = load_model(folder).sample(7, num_steps=3)
    for i in range(5):
        values = np.load(tmp_path / "x" / f"{i:06d}.npy")
        assert (values.shape, values.dtype) == ((14, 32), np.float32)
        np.testing.assert_allclose(values, expected[i].numpy(), rtol=0, atol=1e-5)
    assert (tmp_path / "x" / "series.png").stat().st_size > 5000
    record = json.loads((tmp_path / "x" / "samples.json").read_text())
    assert (record["files"][4], record["picture"]) == ("000004.npy", "series.png")
    before = (tmp_path / "x" / "000000.npy").stat().st_mtime_ns
    again = ["sample", str(folder), "-n", "7", "-S", "3", "--out", "x", "--resume"]
    assert fastdpm(again) == 0
    assert (tmp_path / "x" / "000000.npy").stat().st_mtime_ns == before
    assert (tmp_path / "x" / "000006.npy").is_file()
    (tmp_path / "x" / "000001.npy").write_bytes(b"")
    assert fastdpm(again) == 2
    assert re.search(tells(Path("x/000001.npy")), capsys.readouterr().err)
    (tmp_path / "x" / "000001.npy").unlink()
    assert fastdpm(again) == 0
    assert fastdpm([*again[:-1], "--overwrite", "-n", "2"]) == 0
    assert sorted(p.name for p in (tmp_path / "x").glob("*.npy")) == ["000000.npy", "000001.npy"]


def test_what_measures_no_series_says_so(tmp_path):
    folder = _write(tmp_path / "hopper", make_unet("UNet1DModel", **HOPPER))
    with pytest.raises(
        InvalidArgumentError, match=tells("14 x 32", "digits-features", "`features`")
    ):
        evaluate(folder, n=20)


def _change_unet(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "unet" / "config.json", **changes)


def _change_scheduler(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "scheduler" / "scheduler_config.json", **changes)


def _change_index(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "model_index.json", **changes)


def _without_unet(folder: Path) -> None:
    shutil.rmtree(folder / "unet")
    _edit(
        folder / "model_index.json",
        _class_name="FluxPipeline",
        unet=...,
        transformer=["diffusers", "FluxTransformer2DModel"],
    )


WEIGHTS = "diffusion_pytorch_model"


def _rename_weights(name: str) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / name)

    return rename


@pytest.mark.parametrize(
    ("spoil", "values"),
    [
        (_change_unet(sample_size=None), ["sample_size"]),
        (_change_unet(out_channels=4), ["UNet2DModel", "3 channels", 4]),
        (_change_unet(_class_name="UNet3DConditionModel"), ["UNet3DConditionModel"]),
        (_change_unet(time_embedding_type="learned"), ["time_embedding_type", "learned"]),
        (_change_unet(time_embedding_type="fourier"), ["time_embedding_type", "fourier"]),
        (_change_unet(class_embed_type="timestep"), ["class_embed_type", "timestep"]),
        (_change_unet(invented=1), ["UNet2DModel", "invented"]),
        (_change_unet(layers_per_block=2), [64, "unet.down_blocks.0.resnets.1.conv1.bias"]),
        (_change_scheduler(_class_name="FlowMatchEulerDiscreteScheduler", beta_schedule=...,
                           beta_start=..., beta_end=..., trained_betas=...),
         ["FlowMatchEulerDiscreteScheduler", "beta_schedule"]),
        (_change_scheduler(prediction_type="flow_prediction"), ["flow_prediction"]),
        (_change_index(vae=["diffusers", "AutoencoderKL"]), ["vae"]),
        (_without_unet, ["FluxPipeline", "transformer"]),
        (_rename_weights(f"{WEIGHTS}.onnx"), [f"{WEIGHTS}.onnx"]),
        (_rename_weights(f"{WEIGHTS}.safetensors.index.json"), ["index.json", "read"]),
        (_rename_weights("x"), [f"{WEIGHTS}.safetensors", f"{WEIGHTS}.bin"]),
    ],
)  # fmt: skip
def test_a_folder_that_does_not_fit_is_one_clear_line(tmp_path, spoil, values):
    folder = _write(tmp_path / "x", make_unet())
    spoil(folder)
    with pytest.raises((InvalidArgumentError, ModelError), match=tells(*values)) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({}, "x0"),
        ({"clip_sample": False}, "none"),
        ({"clip_sample_range": 2.0}, "none"),
        ({"thresholding": True}, "x0"),
        ({"thresholding": True, "sample_max_value": 1.5}, "dynamic"),
    ],
)
def test_clipping_is_that_of_the_scheduler_where_there_is_such(settings, clip):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=12, **settings)
    recipe = recipe_of({"_class_name": "DDPMScheduler", **scheduler.config})
    assert (recipe.clip, recipe.num_steps) == (clip, 12)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    folder = _write(tmp_path / "x", make_unet(), safe=False)
    torch.save({"a": torch.ones(1), "b": MeasureOptions()}, folder / "unet" / "y.bin")
    (folder / "unet" / "y.bin").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(
        ModelError,
        match=tells("diffusion_pytorch_model.bin", "fastdpm.evaluation.options.MeasureOptions"),
    ):
        load_model(folder)
