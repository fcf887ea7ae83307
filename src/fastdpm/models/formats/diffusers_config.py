"""What a scheduler's configuration of diffusers says about a network: variances and prediction.

A pure mapping; diffusers itself is not needed. The contents decide rather than the class: whatever
states a variance schedule is DDPM-like, however its class would sample. A key that is missing has
the value that its class takes for granted (saved files are complete, old ones are not).
Source: ``scheduler_config.json`` as the schedulers of diffusers 0.42 write and read it.
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
"""What the DDPM-like classes take for granted where it differs from :data:`_COMMON`."""

_TAKEN = "only schedulers with a variance schedule (DDPM, DDIM, PNDM, Euler, DPM-Solver ...) are"
_FOREIGN: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("use_flow_sigmas", bool, "it matches flows"),
    ("prediction_type", lambda v: "flow" in str(v), "its network predicts a flow"),
    ("sigma_data", lambda v: v is not None, "its network is conditioned on sigma (EDM)"),
    ("timestep_type", lambda v: v == "continuous", "its network is told log sigma, not a step"),
    ("snr_shift_scale", lambda v: v not in (None, 1), "it shifts the noise levels of its betas"),
    ("rescale_betas_zero_snr", bool, "its last step holds no signal at all (zero terminal SNR)"),
)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that is said of variances, prediction and clipping, by diffusers' own names.

    Args:
        config: A scheduler's configuration; "_class_name" says whose defaults hold.

    Returns:
        The keys "num_train_timesteps", "beta_start", "beta_end", "beta_schedule",
        "trained_betas", "prediction_type", "clip_sample", "clip_sample_range", "thresholding",
        "dynamic_thresholding_ratio" and "sample_max_value".

    Raises:
        InvalidArgumentError: If it is no DDPM-like scheduler (flow matching, EDM, zero terminal
            SNR ...).
    """
    name = _class_name(config)
    for key, is_foreign, why in _FOREIGN:
        if is_foreign(config.get(key)):
            raise InvalidArgumentError(
                f"{name or 'this scheduler'} cannot be sampled by FastDPM: {why}"
                f" ({key}={config[key]!r}); {_TAKEN}"
            )
    stated = {key: config[key] for key in _COMMON if config.get(key) is not None}
    if name not in DEFAULTS and not stated.keys() & {"beta_schedule", "beta_end", "trained_betas"}:
        raise InvalidArgumentError(
            f"{name or 'this scheduler'} cannot be sampled by FastDPM: its configuration states no"
            f" variance schedule (beta_schedule or trained_betas); {_TAKEN}"
        )
    if config.get("prediction_type") is None and config.get("predict_epsilon") is False:
        stated["prediction_type"] = "sample"  # what it was called before prediction_type
    return {**_COMMON, **DEFAULTS.get(name, {}), **stated}


def schedule_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The variances, as :meth:`fastdpm.VarianceSchedule.from_config` takes them.

    Where "trained_betas" are stated they are the schedule, and T is their number.

    Raises:
        InvalidArgumentError: If it is no DDPM-like scheduler, or the schedule is unknown.
    """
    said = complete(config)
    if said["trained_betas"] is not None:
        return {"type": "betas", "betas": np.asarray(said["trained_betas"]).tolist()}
    kind, total = said["beta_schedule"], said["num_train_timesteps"]
    start, end = said["beta_start"], said["beta_end"]
    check_one_of("beta_schedule", kind, _KINDS)
    if type(total) is not int or total < 1:
        raise InvalidArgumentError(f"num_train_timesteps must be at least 1, got {total!r}")
    if kind == "squaredcos_cap_v2":
        return {"type": "cosine", "num_train_steps": total}
    if kind in _ALPHA_BARS:  # of t / T in [0, 1]; no variance is above 0.999
        values = np.array([_ALPHA_BARS[kind](i / total) for i in range(total + 1)])
        return {"type": "betas", "betas": np.minimum(1 - values[1:] / values[:-1], 0.999).tolist()}
    if kind == "sigmoid":
        share = 1 / (1 + np.exp(-np.linspace(-6, 6, total)))
        return {"type": "betas", "betas": (share * (end - start) + start).tolist()}
    return {"type": kind, "num_train_steps": total, "beta_start": start, "beta_end": end}


def prediction_of(config: Mapping[str, Any]) -> str:
    """What the network returns: "epsilon", "v_prediction" or "sample".

    Raises:
        InvalidArgumentError: If it is no DDPM-like scheduler, or the prediction is another.
    """
    kind: str = complete(config)["prediction_type"]
    check_one_of("prediction_type", kind, PREDICTIONS)
    return kind


def clip_of(config: Mapping[str, Any]) -> str:
    """What its own sampler does to the implied clean data: "none", "x0" or "dynamic".

    Raises:
        InvalidArgumentError: If it is no DDPM-like scheduler.
    """
    said = complete(config)
    if said["thresholding"]:
        return "dynamic"
    return "x0" if said["clip_sample"] else "none"


def _class_name(config: Mapping[str, Any]) -> str:
    """The class, or "" where an object in memory does not say it; custom ones name a file too."""
    name = config.get("_class_name", "")
    return str(name[-1]) if isinstance(name, list | tuple) and name else str(name or "")


def _laplace(t: float) -> float:
    lean = math.copysign(1, 0.5 - t)
    snr = math.exp(-0.5 * lean * math.log(1 - 2 * abs(0.5 - t) + 1e-6))
    return math.sqrt(snr / (1 + snr))


_ALPHA_BARS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"laplace": _laplace, "exp": lambda t: math.exp(-12 * t)}
)
_KINDS = ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", *_ALPHA_BARS)
