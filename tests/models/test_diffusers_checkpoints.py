"""Folders of diffusers' training scripts, split weights and variants are opened."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.models.find import find_model, is_model
from tests.integrations.parts import UNET, make_unet
from tests.messages import tells

diffusers = pytest.importorskip("diffusers", reason="needs fastdpm[diffusers]")
from diffusers.training_utils import EMAModel  # noqa: E402

NAME = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def unets() -> tuple[Any, Any]:
    """A network and its average."""
    network, average = make_unet(), make_unet()
    with torch.no_grad():
        for weight in average.parameters():
            weight.add_(0.01)
    return network, average


def _checkpoint(folder: Path, unets: tuple[Any, Any]) -> Path:
    """What train_unconditional.py writes for a checkpoint."""
    network, average = unets
    network.save_pretrained(folder / "unet")
    ema = EMAModel(average.parameters(), model_cls=diffusers.UNet2DModel,
                   model_config=average.config)  # fmt: skip
    ema.save_pretrained(folder / "unet_ema")
    torch.save({}, folder / "scheduler.bin")
    return folder


def _is(model: Any, network: Any) -> bool:
    found = model.network.unet.state_dict()
    return all(torch.equal(found[n], w) for n, w in network.state_dict().items())


def test_a_checkpoint_of_a_training_script_is_its_average(tmp_path, unets):
    folder = _checkpoint(tmp_path / "run" / "checkpoint-500", unets)
    assert is_model(folder)
    for place in (folder, folder / "unet_ema"):
        averaged, assumed = find_model(place).notes
        assert re.search(tells("unet_ema", "averaged"), averaged)
        assert re.search(tells("scheduler_config.json", "T = 1,000", "epsilon"), assumed)
        model = load_model(place)
        assert _is(model, unets[1])
        assert (model.schedule.num_train_steps, model.config.recipe.clip) == (1000, "x0")
    assert _is(load_model(folder / "unet"), unets[0])
    assert any(re.search(tells("unet_ema"), note) for note in find_model(folder / "unet").notes)


def test_the_scheduler_around_the_checkpoints_is_used(tmp_path, unets):
    run = tmp_path / "run"
    folder = _checkpoint(run / "checkpoint-500", unets)
    diffusers.DDPMScheduler(num_train_timesteps=77).save_pretrained(run / "scheduler")
    for place in (folder, folder / "unet", folder / "unet_ema"):
        assert load_model(place).schedule.num_train_steps == 77
    diffusers.DDPMScheduler(num_train_timesteps=55).save_pretrained(folder / "scheduler")
    found = find_model(folder)
    assert (found.schedule.num_train_steps, len(found.notes)) == (55, 1)


def test_the_latest_of_several_checkpoints_is_used(tmp_path, unets):
    run = tmp_path / "run"
    for number in (500, 1000, 90):
        _checkpoint(run / f"checkpoint-{number}", unets)
    shutil.rmtree(run / "checkpoint-1000" / "unet_ema")
    (run / "checkpoint-best").mkdir()
    assert is_model(run)
    found = find_model(run)
    assert re.search(tells("checkpoint-1000", 3), found.notes[0])
    assert _is(load_model(run), unets[0])


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files_are_joined(tmp_path, unets, safe):
    pipeline = diffusers.DDPMPipeline(unets[0], diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "x", max_shard_size="50KB", safe_serialization=safe)
    assert len(list((tmp_path / "x" / "unet").glob(f"{NAME}-*"))) > 1
    found = find_model(tmp_path / "x")
    assert _is(load_model(tmp_path / "x"), unets[0])
    assert (found.notes, len(found.checksum())) == ((), 64)
    shard = sorted((tmp_path / "x" / "unet").glob(f"{NAME}-*"))[0]
    shutil.copy(sorted((tmp_path / "x" / "unet").glob(f"{NAME}-*"))[1], shard)
    with pytest.raises(ModelError, match=tells("index.json", "missing")):
        load_model(tmp_path / "x")
    shard.unlink()
    with pytest.raises(ModelError, match=tells("index.json", 1, shard.name)):
        load_model(tmp_path / "x")


@pytest.mark.parametrize("names", [["/etc/passwd"], ["../x"], [3], [], None])
def test_an_index_names_files_beside_it_only(tmp_path, unets, names):
    unets[0].save_pretrained(tmp_path)
    diffusers.DDPMScheduler().save_pretrained(tmp_path)
    (tmp_path / f"{NAME}.safetensors").unlink()
    parts = None if names is None else dict(enumerate(names))
    (tmp_path / f"{NAME}.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    with pytest.raises(ModelError, match=tells("index.json")):
        load_model(tmp_path)


def test_a_variant_is_used_if_there_is_nothing_else(tmp_path, unets):
    network = make_unet()
    network.load_state_dict(unets[0].state_dict())
    pipeline = diffusers.DDPMPipeline(network.half(), diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "x", variant="fp16")
    (note,) = find_model(tmp_path / "x").notes
    assert re.search(tells("fp16"), note)
    model = load_model(tmp_path / "x")
    half = {n: w.float() for n, w in network.state_dict().items()}
    assert all(torch.equal(w, half[n]) for n, w in model.network.unet.state_dict().items())  # type: ignore[union-attr]
    weights = tmp_path / "x" / "unet" / f"{NAME}.fp16.safetensors"
    shutil.copy(weights, weights.with_name(f"{NAME}.bf16.safetensors"))
    with pytest.raises(InvalidArgumentError, match=tells("fp16", "bf16", "`variant`")):
        find_model(tmp_path / "x")
    unets[1].save_pretrained(tmp_path / "x" / "unet")
    assert find_model(tmp_path / "x").notes == ()
    assert _is(load_model(tmp_path / "x"), unets[1])
    chosen = load_model(tmp_path / "x", variant="fp16").network.unet.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(w, half[n]) for n, w in chosen.items())
    arguments = ["convert", str(tmp_path / "x"), "--variant", "fp16", "--out"]
    assert fastdpm([*arguments, str(tmp_path / "converted")]) == 0
    converted = load_model(tmp_path / "converted").network.unet.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(w, half[n]) for n, w in converted.items())
    with pytest.raises(InvalidArgumentError, match=tells("`variant`", "other", "fp16", "bf16")):
        load_model(tmp_path / "x", variant="other")
    with pytest.raises(InvalidArgumentError, match=tells("digits", "`variant`")):
        load_model("digits", variant="fp16")


def test_a_variant_in_several_files_is_joined(tmp_path, unets):
    pipeline = diffusers.DDPMPipeline(unets[0], diffusers.DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "x", variant="fp16", max_shard_size="50KB")
    assert re.search(tells("fp16"), find_model(tmp_path / "x").notes[0])
    assert _is(load_model(tmp_path / "x"), unets[0])


def test_a_network_that_takes_text_says_how_to_open_it(tmp_path):
    config = UNET | {"_class_name": "UNet2DConditionModel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        InvalidArgumentError,
        match=tells("UNet2DConditionModel", "from_unet", "encoder_hidden_states", "from_pipeline"),
    ):
        load_model(tmp_path)


def test_a_unet_alone_is_not_given_a_schedule(tmp_path, unets):
    unets[0].save_pretrained(tmp_path / "x")
    with pytest.raises(ModelError, match=tells(tmp_path / "x", "scheduler_config.json")):
        load_model(tmp_path / "x")
