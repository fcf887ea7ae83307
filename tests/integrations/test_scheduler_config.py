"""Reading a scheduler's configuration: variances, prediction type, clipping and refusals."""

import importlib
import inspect
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from fastdpm import VarianceSchedule
from fastdpm.models.formats.diffusers_config import (
    DEFAULTS,
    clip_of,
    complete,
    prediction_of,
    schedule_of,
)
from tests.messages import tells


def _classes() -> list[str]:
    """Known classes that are installed; one of them needs a package of its own."""
    kinds = {name: getattr(diffusers, name, None) for name in DEFAULTS}
    return [n for n, k in kinds.items() if k is not None and k.__name__ == n and "SDE" not in n]


def _betas(scheduler) -> np.ndarray:
    return VarianceSchedule.from_config(schedule_of(scheduler.config)).betas


@pytest.mark.filterwarnings("ignore")  # deprecated classes of diffusers say so
@pytest.mark.parametrize("name", _classes())
def test_defaults_are_those_of_the_installed_class(name):
    signature = inspect.signature(getattr(diffusers, name).__init__).parameters
    for key, value in complete({"_class_name": name}).items():
        if key in signature and key not in ("sample_max_value", "dynamic_thresholding_ratio"):
            assert signature[key].default == value, key
    made = getattr(diffusers, name)()
    np.testing.assert_allclose(
        VarianceSchedule.from_config(schedule_of({"_class_name": name})).betas,
        made.betas.double().numpy(),
        rtol=2e-4,
        atol=2e-7,
    )


@pytest.mark.parametrize(
    ("kind", "scheduler"),
    [
        ("linear", "DDIMScheduler"),
        ("scaled_linear", "PNDMScheduler"),
        ("squaredcos_cap_v2", "DPMSolverMultistepScheduler"),
        ("sigmoid", "DDPMScheduler"),
        ("laplace", "DDPMScheduler"),
        ("exp", "HeunDiscreteScheduler"),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_variance_schedule_is_the_one_of_diffusers(kind, scheduler):
    made = getattr(diffusers, scheduler)(
        num_train_timesteps=200, beta_start=1e-3, beta_end=0.05, beta_schedule=kind
    )
    np.testing.assert_allclose(_betas(made), made.betas.double().numpy(), rtol=2e-3, atol=3e-7)


def test_trained_betas_override_the_other_schedule_settings():
    made = diffusers.DDPMScheduler(trained_betas=np.array([0.1, 0.3]), beta_schedule="linear")
    np.testing.assert_array_equal(_betas(made), [0.1, 0.3])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"prediction_type": "epsilon"}, "epsilon"),
        ({"prediction_type": "v_prediction"}, "v_prediction"),
        ({"prediction_type": "sample"}, "sample"),
        ({}, "epsilon"),
        ({"predict_epsilon": False}, "sample"),
    ],
)
def test_prediction_is_what_the_network_returns(config, expected):
    assert prediction_of({"_class_name": "DDPMScheduler", **config}) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_class_name": "DDPMScheduler"}, "x0"),
        ({"_class_name": "DDPMScheduler", "clip_sample": False}, "none"),
        ({"_class_name": "PNDMScheduler"}, "none"),
        ({"_class_name": "DDPMScheduler", "thresholding": True}, "dynamic"),
    ],
)
def test_clipping_is_that_of_the_class_where_it_is_not_stated(config, expected):
    assert clip_of(config) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "values"),
    [
        ("FlowMatchEulerDiscreteScheduler", {}, ["beta_schedule", "trained_betas"]),
        ("FlowMatchHeunDiscreteScheduler", {}, ["beta_schedule", "trained_betas"]),
        ("EDMEulerScheduler", {}, ["sigma_data=0.5"]),
        ("EDMDPMSolverMultistepScheduler", {}, ["sigma_data=0.5"]),
        ("VQDiffusionScheduler", {"num_vec_classes": 8}, ["beta_schedule", "trained_betas"]),
        ("CMStochasticIterativeScheduler", {}, ["sigma_data=0.5"]),
        ("ScoreSdeVeScheduler", {}, ["beta_schedule", "trained_betas"]),
        ("IPNDMScheduler", {}, ["beta_schedule", "trained_betas"]),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True}, ["rescale_betas_zero_snr=True"]),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, ["use_flow_sigmas=True"]),
        (
            "EulerDiscreteScheduler",
            {"timestep_type": "continuous"},
            ["timestep_type='continuous'"],
        ),
        ("CogVideoXDDIMScheduler", {}, ["snr_shift_scale=3.0"]),
    ],
)
@pytest.mark.filterwarnings("ignore")  # diffusers' own
def test_schedulers_without_a_variance_schedule_are_refused_by_name(
    tmp_path, name, arguments, values
):
    scheduler = getattr(diffusers, name)(**arguments)
    scheduler.save_pretrained(tmp_path)
    config = type(scheduler).load_config(tmp_path)
    for read in (schedule_of, prediction_of, clip_of):
        with pytest.raises(ValueError, match=tells(name, *values)) as caught:
            read(config)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=tells(*values)):
        schedule_of({k: v for k, v in config.items() if k != "_class_name"})


def test_old_ve_scheduler_is_refused_by_its_file_alone():
    config = {"_class_name": "KarrasVeScheduler", "sigma_min": 0.02, "sigma_max": 100, "s_min": 0}
    with pytest.raises(
        ValueError, match=tells("KarrasVeScheduler", "beta_schedule", "trained_betas")
    ):
        schedule_of(config)


@pytest.mark.parametrize(
    ("config", "values"),
    [
        ({"beta_schedule": "cosine"}, ["beta_schedule", "linear", "scaled_linear", "cosine"]),
        ({"beta_schedule": "linear", "num_train_timesteps": 0}, ["num_train_timesteps", 1, 0]),
        (
            {"beta_schedule": "linear", "num_train_timesteps": "many"},
            ["num_train_timesteps", 1, "many"],
        ),
        ({"trained_betas": [0.1, 1.0]}, ["betas", "(0, 1)", "step 2 of 2"]),
    ],
)
def test_bad_schedules_are_named(config, values):
    with pytest.raises(ValueError, match=tells(*values)):
        VarianceSchedule.from_config(schedule_of(config))


def test_unknown_prediction_is_named():
    with pytest.raises(
        ValueError, match=tells("prediction_type", "epsilon", "v_prediction", "sample", "score")
    ):
        prediction_of({"beta_schedule": "linear", "prediction_type": "score"})


def test_levels_equal_those_of_diffusers():
    made: Any = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=8.5e-4, beta_end=0.012
    )
    schedule = VarianceSchedule.from_config(schedule_of(made.config))
    ours = torch.tensor(schedule.R(np.arange(1, 1001)) ** 2)
    torch.testing.assert_close(made.alphas_cumprod.double(), ours, rtol=3e-5, atol=0)


def test_the_mapping_needs_no_diffusers():
    source = inspect.getsource(importlib.import_module("fastdpm.models.formats.diffusers_config"))
    assert "import diffusers" not in source
    assert "from diffusers" not in source
