"""What a checkpoint was taken for is reported, and what it states itself replaces the preset."""

import re
from typing import Any

import numpy as np
import pytest
import torch

from fastdpm import InvalidArgumentError, ModelError, load_model
from fastdpm.cli.app import run as fastdpm
from fastdpm.models.find import find_model
from fastdpm.models.formats.betas import schedule_of_betas
from fastdpm.models.presets import read_preset
from fastdpm.networks.build import build_network
from tests.messages import tells
from tests.models.test_find import ADM, CASES, SCHEDULE, _state, _write_preset, tiny  # noqa: F401
from tests.networks.reference_diffwave import authors_reference, authors_shapes, random_state

LMNT: dict[str, Any] = {
    "type": "lmnt-diffwave",
    "residual_channels": 8,
    "residual_layers": 2,
    "dilation_cycle_length": 2,
    "mel_bands": 8,
    "num_train_steps": 50,
}
MEL = {
    "sample_rate": 8000,
    "n_fft": 1024,
    "hop_length": 256,
    "bands": 8,
    "f_min": 20,
    "f_max": 4000,
    "scale": "decibel",
    "centred": True,
    "filters": "htk",
    "normalised": True,
}
PARAMS: dict[str, Any] = {
    "sample_rate": 8000,
    "n_mels": 8,
    "n_fft": 1024,
    "hop_samples": 256,
    "crop_mel_frames": 4,
    "dilation_cycle_length": 2,
    "unconditional": False,
    "noise_schedule": np.linspace(1e-4, 0.05, 50).tolist(),
    "inference_noise_schedule": [1e-4, 0.01, 0.3],
    "max_grad_norm": None,
}


@pytest.fixture
def lmnt(tiny):  # noqa: F811
    """A preset of LMNT's network, and a function that saves a checkpoint with ``params``."""
    data = {"modality": "audio", "shape": [1, 1024], "sample_rate": 8000}
    tables = {"network": LMNT, "data": data, "data.mel": MEL}
    _write_preset(tiny / "tiny-lmnt.toml", **tables, recipe={"variances": [1e-4, 0.01, 0.3]})

    def save(network: dict[str, Any] | None = None, **params: Any) -> Any:
        content = {"model": _state(network or LMNT), "params": PARAMS | params}
        torch.save(content, tiny / "weights.pt")
        return tiny / "weights.pt"

    return save


def test_params_that_equal_the_preset_change_nothing(lmnt):
    found = find_model(lmnt())
    assert found.config.name == "tiny-lmnt"
    assert found.config.schedule == SCHEDULE
    assert not any("states" in note for note in found.notes)


def test_params_of_a_file_replace_the_preset(lmnt):
    betas = np.linspace(2e-4, 0.1, 40)
    path = lmnt(sample_rate=16000, noise_schedule=betas.tolist(), dilation_cycle_length=1,
                crop_mel_frames=8, inference_noise_schedule=[1e-3, 0.5])  # fmt: skip
    for found in (find_model(path), find_model("tiny-lmnt", path)):
        config = found.config
        np.testing.assert_allclose(found.schedule.betas, betas, rtol=1e-12)
        assert config.network["dilation_cycle_length"] == 1
        assert (config.data.sample_rate, config.data.shape) == (16000, (1, 2048))
        assert config.data.mel is not None
        assert (config.data.mel.sample_rate, config.data.mel.f_max) == (16000, 8000)
        assert config.recipe.variances == (1e-3, 0.5)
        note = found.notes[-1]
        assert re.search(tells("weights.pt", "data.sample_rate = 16000", "T = 40"), note)


def test_a_file_that_states_everything_needs_no_preset(lmnt):
    found = find_model(lmnt(LMNT | {"residual_channels": 16, "residual_layers": 3}))
    assert (found.config.network["residual_layers"], found.config.name) == (3, "weights")
    assert found.config.license == "unknown"
    model = load_model("tiny-lmnt", checkpoint=lmnt())
    assert model.sample(1, condition=torch.rand(1, 8, 4)).shape == (1, 1, 1024)


@pytest.mark.parametrize(
    ("params", "values"),
    [
        ({"noise_schedule": "linear"}, ["betas"]),
        ({"noise_schedule": [0.1, 2.0]}, ["betas", 2]),
        ({"noise_schedule": [0.0] * 50}, ["betas", 0]),
        ({"sample_rate": "8k"}, ["params.sample_rate", "'8k'"]),
        ({"hop_samples": 300}, ["hop_length", 300]),
        ({"n_mels": 80}, [8, 80]),
        ({"inference_noise_schedule": 6}, ["params.inference_noise_schedule", 6]),
        ({"dilation_cycle_length": 0.5}, ["params.dilation_cycle_length", 0.5]),
    ],
)
def test_params_that_cannot_be_used_are_one_line(lmnt, params, values):
    with pytest.raises(ModelError, match=tells("weights.pt", *values)) as caught:
        find_model(lmnt(**params))
    assert "\n" not in str(caught.value)


def test_a_buffer_of_betas_beside_the_network_is_its_schedule(tiny):  # noqa: F811
    betas = torch.linspace(1e-4, 0.2, 30)
    state = {f"model.{name}": w for name, w in _state(CASES["tiny-image"]["network"]).items()}
    torch.save({"state_dict": {"betas": betas, **state}}, tiny / "process.pt")
    found = find_model(tiny / "process.pt")
    assert found.config.schedule == {
        "type": "linear", "num_train_steps": 30, "beta_start": 1e-4, "beta_end": 0.2
    }  # fmt: skip
    assert re.search(tells("process.pt", "T = 30", "T = 50"), found.notes[-1])


@pytest.mark.parametrize(
    ("betas", "kind"),
    [
        (torch.linspace(1e-4, 0.02, 1000), "linear"),
        (torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, "scaled_linear"),
        (torch.tensor([0.1, 0.3, 0.2]), "betas"),
    ],
)
def test_betas_are_written_as_briefly_as_they_can(betas, kind):
    from fastdpm import VarianceSchedule

    config = schedule_of_betas(betas.numpy())
    assert config["type"] == kind
    np.testing.assert_allclose(VarianceSchedule.from_config(config).betas, betas, rtol=1e-4)
    cosine = VarianceSchedule.cosine(100)
    assert schedule_of_betas(cosine.betas.astype(np.float32)) == cosine.config


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tiny-image", ["T = 50", "linear", 0.0001, 0.05, "epsilon", "num_groups 4"]),
        ("tiny-adm", ["T = 50", "num_heads 2", "new_attention_order False", "time_scale 1"]),
        ("tiny-sound", ["8,000 Hz", "dilation_cycle 2", "step_in_residual True"]),
    ],
)
def test_a_file_without_a_presets_name_says_what_was_assumed(tiny, capsys, name, values):  # noqa: F811
    path = str(tiny / f"{name}.pt")
    (note,) = find_model(path).notes
    assert re.search(tells(f"{name}.pt", name, *values, "docs/open.md"), note)
    assert find_model(name, path).notes == ()
    assert load_model(path).notes == (note,)
    assert fastdpm(["plan", path, "-S", "2"]) == 0
    assert note in capsys.readouterr().out
    assert fastdpm(["sample", path, "-S", "2", "-n", "1", "--out", str(tiny / "out")]) == 0
    assert note in capsys.readouterr().out


def test_the_file_of_ones_own_changes_a_preset(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text('base = "sc09-diffwave"\n[network]\nstep_in_residual = false\n'
                   '[schedule]\ntype = "cosine"\nnum_train_steps = 200\n')  # fmt: skip
    preset, base = read_preset(own), read_preset("sc09-diffwave")
    assert preset.network == base.network | {"step_in_residual": False}
    assert (preset.name, preset.data, preset.recipe) == ("mine", base.data, base.recipe)
    assert preset.schedule == {"type": "cosine", "num_train_steps": 200}
    own.write_text('base = "sc08"\n')
    with pytest.raises(InvalidArgumentError, match=tells("base", "sc09-diffwave", "'sc08'")):
        read_preset(own)


@pytest.mark.parametrize("in_place", [True, False])
def test_the_step_embedding_enters_the_residual_path_or_not(in_place):
    spec = CASES["tiny-sound"]["network"] | {"step_in_residual": in_place}
    state = random_state(authors_shapes(8, 3))
    torch.manual_seed(0)
    network = build_network(spec | {"embed_channels": [128, 512, 512]}).eval()
    network.load_state_dict(state)
    x, t = torch.randn(2, 1, 64), torch.tensor([3.0, 17.5])
    expected = authors_reference(state, x, t, dilation_cycle=2, in_place=in_place)
    with torch.no_grad():
        torch.testing.assert_close(network(x, t), expected, rtol=1e-5, atol=1e-5)
    other = authors_reference(state, x, t, dilation_cycle=2, in_place=not in_place)
    assert (other - expected).norm() > 0.01 * expected.norm()


def test_heads_of_an_adm_are_an_option_of_the_preset(tiny):  # noqa: F811
    own = tiny / "heads.toml"
    own.write_text('base = "tiny-adm"\n[network]\nnum_heads = 4\n')
    config = find_model(own, tiny / "tiny-adm.pt").config
    assert config.network["num_heads"] == 4
    assert config.network.items() >= (ADM | {"num_heads": 4}).items()
