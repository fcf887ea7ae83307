"""Variance schedule, prediction and clipping from the scheduler configuration of diffusers.

This module only reads mappings; diffusers need not be installed. Any configuration with a variance
schedule is accepted as DDPM-like, whatever its class does when sampling. A missing key has the
default of its class (new files are complete, old ones are not).
Source: ``scheduler_config.json`` as written and read by the schedulers of diffusers 0.42.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fastdpm.core.errors import InvalidArgumentError, check_one_of
from fastdpm.models.config import PREDICTIONS

_COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "num_train_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "trained_betas": None,
        "prediction_type": "epsilon",
        "clip_sample": False,
        "clip_sample_range": 1.0,
        "thresholding": False,
        "dynamic_thresholding_ratio": 0.995,
        "sample_max_value": 1.0,
    }
)
_CLIPPED = {"clip_sample": True}
_LATENT = {"beta_start": 0.00085, "beta_end": 0.012}
_SCALED = _LATENT | {"beta_schedule": "scaled_linear"}

_LIKE_MOST = """DEISMultistepScheduler DPMSolverMultistepInverseScheduler
    DPMSolverMultistepScheduler DPMSolverSinglestepScheduler EulerAncestralDiscreteScheduler
    EulerDiscreteScheduler FastDPMInverseScheduler FastDPMScheduler LMSDiscreteScheduler
    PNDMScheduler SASolverScheduler UniPCMultistepScheduler"""

DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        **{name: {} for name in _LIKE_MOST.split()},
        "DDIMInverseScheduler": _CLIPPED,
        "DDIMParallelScheduler": _CLIPPED,
        "DDIMScheduler": _CLIPPED,
        "DDPMParallelScheduler": _CLIPPED,
        "DDPMScheduler": _CLIPPED,
        "DPMSolverSDEScheduler": _LATENT,
        "HeunDiscreteScheduler": _LATENT,
        "KDPM2AncestralDiscreteScheduler": _LATENT,
        "KDPM2DiscreteScheduler": _LATENT,
        "LCMScheduler": _SCALED,
        "RePaintScheduler": _CLIPPED,
        "TCDScheduler": _SCALED,
        "UnCLIPScheduler": _CLIPPED | {"beta_schedule": "squaredcos_cap_v2"},
    }
)
"""Defaults of the DDPM-like classes where they differ from :data:`_COMMON`."""

_SUPPORTED = (
    "only schedulers with a variance schedule are supported (DDPM, DDIM, PNDM, Euler,"
    " DPM-Solver ...)"
)
_UNSUPPORTED: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("use_flow_sigmas", bool, "it uses flow matching"),
    ("prediction_type", lambda v: "flow" in str(v), "its network predicts a flow"),
    ("sigma_data", lambda v: v is not None, "its network is conditioned on sigma (EDM)"),
    ("timestep_type", lambda v: v == "continuous", "its network takes log sigma, not a step"),
    ("snr_shift_scale", lambda v: v not in (None, 1), "it shifts the noise levels of its betas"),
    ("rescale_betas_zero_snr", bool, "its last step has no signal (zero terminal SNR)"),
)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults of a scheduler configuration.

    Args:
        config: Configuration of a scheduler. "_class_name" is the class whose defaults apply.

    Returns:
        The keys "num_train_timesteps", "beta_start", "beta_end", "beta_schedule",
        "trained_betas", "prediction_type", "clip_sample", "clip_sample_range", "thresholding",
        "dynamic_thresholding_ratio" and "sample_max_value".

    Raises:
        InvalidArgumentError: If the scheduler is not DDPM-like (flow matching, EDM, zero terminal
            SNR ...).
    """
    name = _class_name(config)
    for key, is_unsupported, reason in _UNSUPPORTED:
        if is_unsupported(config.get(key)):
            raise InvalidArgumentError(
                f"{name or 'this scheduler'} cannot be sampled by FastDPM: {reason}"
                f" ({key}={config[key]!r}); {_SUPPORTED}"
            )
    stated = {key: config[key] for key in _COMMON if config.get(key) is not None}
    if name not in DEFAULTS and not stated.keys() & {"beta_schedule", "beta_end", "trained_betas"}:
        raise InvalidArgumentError(
            f"{name or 'this scheduler'} cannot be sampled by FastDPM: its configuration has no"
            f" variance schedule (beta_schedule or trained_betas); {_SUPPORTED}"
        )
    if config.get("prediction_type") is None and config.get("predict_epsilon") is False:
        stated["prediction_type"] = "sample"  # predict_epsilon is the older form
    return {**_COMMON, **DEFAULTS.get(name, {}), **stated}


def schedule_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The variance schedule, as :meth:`fastdpm.VarianceSchedule.from_config` takes it.

    If "trained_betas" is set, its values are the schedule and T is their number.

    Args:
        config: Configuration of a scheduler; see :func:`complete`.

    Raises:
        InvalidArgumentError: If the scheduler is not DDPM-like, or the schedule is unknown.
    """
    values = complete(config)
    if values["trained_betas"] is not None:
        return {"type": "betas", "betas": np.asarray(values["trained_betas"]).tolist()}
    kind, total = values["beta_schedule"], values["num_train_timesteps"]
    start, end = values["beta_start"], values["beta_end"]
    check_one_of("beta_schedule", kind, _KINDS)
    if type(total) is not int or total < 1:
        raise InvalidArgumentError(
            f"`num_train_timesteps` must be an integer of at least 1, got {total!r}"
        )
    if kind == "squaredcos_cap_v2":
        return {"type": "cosine", "num_train_steps": total}
    if kind in _ALPHA_BARS:  # alpha_bar as a function of t / T; variances are at most 0.999
        alpha_bar = np.array([_ALPHA_BARS[kind](i / total) for i in range(total + 1)])
        betas = np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
        return {"type": "betas", "betas": betas.tolist()}
    if kind == "sigmoid":
        weight = 1 / (1 + np.exp(-np.linspace(-6, 6, total)))
        return {"type": "betas", "betas": (weight * (end - start) + start).tolist()}
    return {"type": kind, "num_train_steps": total, "beta_start": start, "beta_end": end}


def prediction_of(config: Mapping[str, Any]) -> str:
    """The prediction type: "epsilon", "v_prediction" or "sample".

    Raises:
        InvalidArgumentError: If the scheduler is not DDPM-like, or the type is unknown.
    """
    kind: str = complete(config)["prediction_type"]
    check_one_of("prediction_type", kind, PREDICTIONS)
    return kind


def clip_of(config: Mapping[str, Any]) -> str:
    """How the scheduler clips the predicted clean data: "none", "x0" or "dynamic".

    Raises:
        InvalidArgumentError: If the scheduler is not DDPM-like.
    """
    values = complete(config)
    if values["thresholding"]:
        return "dynamic"
    return "x0" if values["clip_sample"] else "none"


def _class_name(config: Mapping[str, Any]) -> str:
    """Name of the scheduler class, or "" if unknown. Custom classes also name their file."""
    name = config.get("_class_name", "")
    return str(name[-1]) if isinstance(name, list | tuple) and name else str(name or "")


def _laplace(t: float) -> float:
    """Signal scale of the Laplace schedule at t in [0, 1]."""
    sign = math.copysign(1, 0.5 - t)
    snr = math.exp(-0.5 * sign * math.log(1 - 2 * abs(0.5 - t) + 1e-6))
    return math.sqrt(snr / (1 + snr))


_ALPHA_BARS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"laplace": _laplace, "exp": lambda t: math.exp(-12 * t)}
)
_KINDS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", *_ALPHA_BARS)
