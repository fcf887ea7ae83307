"""The interface that diffusers expects of a scheduler, for both classes."""

import importlib
import inspect
import logging
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin

import fastdpm
from fastdpm import FastDPMInverseScheduler, FastDPMScheduler, SamplingError
from tests.integrations.conftest import SCALED, start
from tests.messages import tells

BOTH = pytest.mark.parametrize("kind", [FastDPMScheduler, FastDPMInverseScheduler])
# All hundred steps, so that 0 and 1 are among them.
CONFIG = {"num_train_timesteps": 100, "beta_end": 0.1}
CHOICES: list[dict[str, Any]] = [
    {"num_train_timesteps": 130},
    {"beta_start": 0.001, "beta_end": 0.05},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "scaled_linear"},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"clip_sample": True},
    {"clip_sample": True, "clip_sample_range": 0.5},
    {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9},
    {"levels": "var", "spacing": "quadratic", "bounded": False},
    {"num_steps": 7},
    {"at_steps": [90.0, 10.5, 0.0]},
    {"at_levels": [0.3, 0.7, 0.95]},
    {"spacing": "quadratic", "start": 1.0},
    {"levels": "sigma"},
]


def _reloaded(scheduler, folder):
    scheduler.save_pretrained(folder)
    return type(scheduler).from_pretrained(folder)


@BOTH
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_saved_scheduler_samples_as_before(kind, choice, tmp_path):
    scheduler = kind(**CONFIG | choice)
    other = _reloaded(scheduler, tmp_path)
    for made in (scheduler, other):
        made.set_timesteps()
    torch.testing.assert_close(other.timesteps, scheduler.timesteps, rtol=0, atol=0)
    for t in scheduler.timesteps[[0, len(scheduler.timesteps) // 2, -1]]:
        x = start()
        steps = [made.step(0.1 * x, t, x) for made in (scheduler, other)]
        torch.testing.assert_close(steps[1].prev_sample, steps[0].prev_sample, rtol=0, atol=0)


@BOTH
def test_a_saved_configuration_is_the_one_that_was_built(kind, tmp_path):
    scheduler = kind(**CONFIG)
    other = _reloaded(scheduler, tmp_path)
    config = dict(scheduler.config)
    assert config.pop("_use_default_values") == []
    assert config == other.config


@BOTH
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # NumPy's, of diffusers
def test_a_scheduler_survives_the_way_through_every_compatible_one(kind):
    scheduler = kind(**CONFIG, clip_sample_range=0.5, num_steps=9, levels="var")
    assert {FastDPMScheduler, FastDPMInverseScheduler} < set(scheduler.compatibles)
    for other in sorted(scheduler.compatibles, key=lambda kind: kind.__name__):
        between = other.from_config(scheduler.config)
        back = kind.from_config(between.config)
        assert {k: v for k, v in back.config.items() if k in scheduler.config} == scheduler.config
        own = inspect.signature(kind.__init__).parameters
        assert not {k for k in back.config if k not in scheduler.config} & set(own)


@BOTH
def test_a_tuple_holds_what_the_output_holds(kind):
    scheduler = kind(**CONFIG)
    scheduler.set_timesteps(50)
    x, t = start(), scheduler.timesteps[7]
    named = scheduler.step(0.1 * x, t, x)
    previous, clean = scheduler.step(0.1 * x, t, x, return_dict=False)
    torch.testing.assert_close(previous, named.prev_sample, rtol=0, atol=0)
    torch.testing.assert_close(clean, named.pred_original_sample, rtol=0, atol=0)
    torch.testing.assert_close(named[0], named["prev_sample"])


@BOTH
def test_whole_numbers_are_timesteps_and_shapes_are_kept(kind):
    scheduler = kind(**CONFIG)
    scheduler.set_timesteps(100)
    for shape in [(4, 3, 8, 8), (1, 2, 16), (3, 5)]:
        x = start(shape)
        first, second = (scheduler.step(0.1 * x, t, x).prev_sample for t in (0, 1))
        assert first.shape == second.shape == x.shape
        assert not torch.allclose(first, second)


@BOTH
def test_the_interface_is_that_of_diffusers(kind):
    scheduler = kind(**CONFIG)
    assert {SchedulerMixin, ConfigMixin} < set(kind.__mro__)
    assert scheduler.init_noise_sigma == 1.0
    assert scheduler.order == 1
    assert len(scheduler) == 100
    x = start()
    assert scheduler.scale_model_input(x, 0.0) is x
    assert "kwargs" not in inspect.signature(kind.__init__).parameters
    steps = scheduler.timesteps
    assert sorted(steps.tolist()) == list(range(100))
    assert bool(steps[0] > steps[-1]) == (kind is FastDPMScheduler)


@BOTH
def test_noise_is_added_at_a_timestep_of_the_table(kind):
    scheduler = kind(**CONFIG)
    scheduler.set_timesteps(100)
    x, noise = start(), start(seed=1)
    noised = scheduler.add_noise(x, noise, scheduler.timesteps[5][None])
    r = scheduler.alphas_cumprod[int(scheduler.timesteps[5])].sqrt()
    torch.testing.assert_close(noised, r * x + (1 - r**2).sqrt() * noise, rtol=1e-4, atol=1e-4)


@BOTH
def test_betas_by_hand_survive_saving(kind, tmp_path):
    scheduler = kind(**CONFIG, trained_betas=np.array([0.1, 0.3]))
    assert len(scheduler) == 2
    other = _reloaded(scheduler, tmp_path)
    assert other.betas.tolist() == scheduler.betas.tolist()


@BOTH
def test_attributes_are_found_without_a_warning_and_missing_ones_are_not(kind):
    scheduler = kind(**CONFIG)
    scheduler.own = 5
    assert scheduler.own == 5
    with pytest.raises(AttributeError, match=tells(kind.__name__, "does_not_exist")):
        _ = scheduler.does_not_exist
    with pytest.warns(FutureWarning, match="num_steps"):
        assert scheduler.num_steps == 20


@BOTH
def test_unknown_names_are_refused(kind):
    with pytest.raises(TypeError, match="nmu_steps"):
        kind(nmu_steps=5)
    for config in (kind().config, diffusers.DDIMScheduler().config):  # type: ignore[attr-defined]
        with pytest.raises(
            ValueError, match=tells(kind.__name__, "nmu_steps", "timestep_spacing", "num_steps")
        ):
            kind.from_config(config, nmu_steps=5, timestep_spacing="trailing")
        made, unused = kind.from_config(config, return_unused_kwargs=True, nmu_steps=5)
        assert unused["nmu_steps"] == 5
        assert isinstance(made, kind)


@BOTH
def test_an_unknown_name_in_a_file_is_logged(kind, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
    kind.from_config({**kind().config, "surplus": 1})
    assert "surplus" in caplog.text


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "DDPMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
        "LCMScheduler",
        "RePaintScheduler",
        "UnCLIPScheduler",
        "DDIMInverseScheduler",
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_any_ddpm_like_scheduler_hands_over_what_it_never_had_to_state(kind, name, tmp_path):
    theirs = getattr(diffusers, name)()
    theirs.save_pretrained(tmp_path)
    clips = theirs.config.get("clip_sample", False)
    for config in (theirs.config, type(theirs).load_config(tmp_path)):
        ours = kind.from_config(config, num_steps=6)
        assert ours.config["clip_sample"] == clips
        assert ours.config["num_steps"] == 6
        torch.testing.assert_close(ours.betas, theirs.betas, rtol=1e-3, atol=3e-7)


@BOTH
def test_what_is_not_used_is_kept_for_the_way_back(kind):
    theirs: Any = diffusers.DPMSolverMultistepScheduler(**SCALED, solver_order=3)
    ours = kind.from_config(theirs.config)
    back: Any = diffusers.DPMSolverMultistepScheduler.from_config(ours.config)
    assert back.config["solver_order"] == 3
    assert back.config["beta_schedule"] == "scaled_linear"
    euler: Any = diffusers.EulerDiscreteScheduler.from_config(
        kind.from_config(diffusers.DDIMScheduler().config).config  # type: ignore[attr-defined]
    )
    assert euler.config["timestep_spacing"] == "linspace"  # its own default, not that of DDIM


@BOTH
@pytest.mark.parametrize(
    ("name", "arguments", "values"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, ["beta_schedule", "trained_betas"]),
        ("EDMEulerScheduler", {}, ["sigma_data=0.5"]),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, ["rescale_betas_zero_snr=True"]),
    ],
)
def test_other_schedulers_are_refused_in_one_line(kind, name, arguments, values, tmp_path):
    theirs = getattr(diffusers, name)(**arguments)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=tells(name, *values)) as caught:
        kind.from_config(theirs.config)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=tells(name, *values)):
        kind.from_pretrained(tmp_path)


@BOTH
def test_the_classes_are_public_names_of_the_package(kind):
    assert getattr(fastdpm, kind.__name__) is kind
    assert getattr(importlib.import_module(kind.__module__), kind.__name__) is kind


@BOTH
def test_what_is_no_tensor_is_no_output(kind):
    scheduler = kind(**CONFIG)
    scheduler.set_timesteps(5)
    with pytest.raises(SamplingError, match=tells("row 0 of 5", "UNet2DOutput")):
        scheduler.step(UNet2DOutput(sample=start()), scheduler.timesteps[0], start())
