"""Presets describe the published networks, and a checkpoint turns one into a model."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, VarianceSchedule
from fastdpm.evaluation.methods import choose_methods
from fastdpm.models import presets as module
from fastdpm.models.folder import build_network, check_fits, sha256
from fastdpm.models.presets import CompareSettings, load_preset, presets, read_preset
from tests.conftest import SOUND, VOCODER

NAMES = [
    "celeba64-ddim",
    "cifar10-ddpm",
    "ljspeech-diffwave",
    "lsun-bedroom-ddpm",
    "sc09-diffwave",
]


def test_every_published_model_has_its_preset():
    assert presets() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_takes_its_data_and_compiles_its_table(name):
    preset = read_preset(name)
    config = preset.model_config()
    assert preset.name == config.name == name
    network = check_fits(config)
    assert all(weight.is_meta for weight in network.parameters())
    schedule = VarianceSchedule.from_config(config.schedule)
    T = schedule.num_train_steps  # noqa: N806
    methods = choose_methods(preset.compare.methods)
    assert tuple(method.key for method in methods) == preset.compare.methods
    for method in methods:
        for num_steps in preset.compare.steps:
            rows = method.sampler(schedule, num_steps, "none").rows
            assert rows == {"var": num_steps, "standard": T}.get(method.key.split("-")[0], rows)
            assert 5 <= rows <= max(num_steps, T if method.key == "standard" else 0)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("cifar10-ddpm", "35.7"),  # Ho et al. 2020, appendix B
        ("lsun-bedroom-ddpm", "114"),  # likewise
    ],
)
def test_networks_have_the_published_number_of_parameters(name, millions):
    count = sum(w.numel() for w in check_fits(read_preset(name).model_config()).parameters())
    digits = len(millions.partition(".")[2])
    assert f"{count / 1e6:.{digits}f}" == millions


# As https://github.com/pesser/pytorch_diffusion and the DiffWave authors' code name them.
@pytest.mark.parametrize(
    ("name", "published"),
    [
        (
            "cifar10-ddpm",
            {
                "temb.dense.1.weight": (512, 512),
                "down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
                "down.1.attn.1.proj_out.weight": (256, 256, 1, 1),
                "down.2.downsample.conv.weight": (256, 256, 3, 3),
                "mid.attn_1.norm.weight": (256,),
                "up.3.block.0.conv1.weight": (256, 512, 3, 3),
                "up.0.block.0.conv1.weight": (128, 384, 3, 3),
                "up.0.block.2.conv1.weight": (128, 256, 3, 3),
                "up.1.attn.2.q.weight": (256, 256, 1, 1),
                "up.1.upsample.conv.weight": (256, 256, 3, 3),
            },
        ),
        (
            "ljspeech-diffwave",
            {
                "init_conv.0.conv.weight_g": (128, 1, 1),
                "residual_layer.fc_t2.weight": (512, 512),
                "residual_layer.residual_blocks.29.upsample_conv2d.1.weight_v": (1, 1, 3, 32),
                "residual_layer.residual_blocks.0.mel_conv.conv.weight_v": (256, 80, 1),
                "residual_layer.residual_blocks.0.res_conv.weight_g": (128, 1, 1),
                "final_conv.2.conv.weight": (1, 128, 1),
            },
        ),
    ],
)
def test_networks_have_the_published_names_and_shapes(name, published):
    state = check_fits(read_preset(name).model_config()).state_dict()
    assert {key: tuple(state[key].shape) for key in published} == published


def test_published_figures_belong_to_the_table():
    found = 0
    for preset in map(read_preset, NAMES):
        figures = preset.published.figures if preset.published else {}
        for method, by_steps in figures.items():
            assert method == "best" or method in preset.compare.methods
            assert {int(steps) for steps in by_steps} <= set(preset.compare.steps)
            found += sum(value > 0 for value in by_steps.values())
    assert found == 4


def test_the_page_of_published_models_names_every_file():
    page = (Path(__file__).parents[2] / "docs" / "published.md").read_text(encoding="utf-8")
    for preset in map(read_preset, NAMES):
        source = preset.source
        assert f"fastdpm compare {preset.name} " in page
        for part in (source.checkpoint, source.checkpoint_from, source.statistics_from):
            assert part in page


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InvalidArgumentError, match=re.escape(", ".join(NAMES))):
        read_preset("imagenet")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "mos"}, "metric must be one of fid, sound, vocoder"),
        ({"steps": ()}, "S and n must be at least 2"),
        ({"steps": (1, 5)}, "S and n must be at least 2"),
        ({"n": 1}, "S and n must be at least 2"),
        ({"methods": ("var-cubic-k0",)}, "got 'var-cubic-k0'"),
        ({"methods": ("var-linear-k2",)}, "got 'var-linear-k2'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    settings = {"steps": (5,), "methods": ("standard",), "n": 10, "metric": "fid"} | changes
    with pytest.raises(InvalidArgumentError, match=message):
        CompareSettings(**settings)


def _toml(values: Mapping[str, Any]) -> str:
    """Lines of TOML, whose values JSON writes alike."""
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two presets of small networks, and a checkpoint of each."""
    monkeypatch.setattr(module, "PRESETS", tmp_path)
    mel = dict(vars(VOCODER.data.mel))
    for name, config in (("tiny-sound", SOUND), ("tiny-vocoder", VOCODER)):
        has_mel = config is VOCODER
        data = {"modality": "audio", "shape": [1, 512], "sample_rate": 8000}
        source = dict.fromkeys(
            ("reproduces", "checkpoint", "checkpoint_from", "statistics", "statistics_from"), "x"
        )
        tables = {
            "network": config.network,
            "schedule": config.schedule,
            "data": data,
            "compare": {"steps": [5], "methods": ["standard"], "n": 10, "metric": "sound"},
            "source": source | {"attribution": "nobody"},
        } | ({"data.mel": mel} if has_mel else {})
        text = _toml({"name": name, "natural_mel": has_mel})
        text += "".join(f"\n[{table}]\n{_toml(body)}" for table, body in tables.items())
        (tmp_path / f"{name}.toml").write_text(text)
        torch.manual_seed(1)
        network = build_network(config.network)
        for weight in network.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
        torch.save({"model_state_dict": network.state_dict()}, tmp_path / f"{name}.pkl")
    return tmp_path


def test_a_checkpoint_makes_a_preset_a_model(tiny):
    path = tiny / "tiny-sound.pkl"
    model = load_preset("tiny-sound", path)
    assert model.config.weights_sha256 == sha256(path)
    assert model.config.attribution == "nobody"
    assert not model.network.training
    published = torch.load(path, weights_only=True)["model_state_dict"]
    found = model.network.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in published.items())
    sounds = model.sample(2, num_steps=3)
    assert sounds.shape == (2, 1, 512)
    assert sounds.std() > 0.01


def test_a_published_vocoder_is_given_natural_logarithms(tiny):
    model = load_preset("tiny-vocoder", tiny / "tiny-vocoder.pkl")
    plain = build_network(VOCODER.network).eval()
    plain.load_state_dict(
        torch.load(tiny / "tiny-vocoder.pkl", weights_only=True)["model_state_dict"]
    )
    magnitude = torch.rand(2, 8, 32) + 1e-5
    x, t = torch.randn(2, 1, 512), torch.tensor([0.0, 31.5])
    with torch.no_grad():
        wanted = plain(x, t, magnitude.log())
        found = model.network(x, t, (magnitude.log10() + 5) / 5)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert wanted.std() > 0.01
    assert math.isfinite(float(model.sample(1, condition=torch.rand(8, 32)).sum()))


def test_the_checkpoint_of_another_preset_is_refused(tiny):
    with pytest.raises(ModelError, match=r"does not fit the network: .*missing \(residual_layer"):
        load_preset("tiny-vocoder", tiny / "tiny-sound.pkl")
