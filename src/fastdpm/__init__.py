"""Sample trained diffusion models in few network evaluations.

The public names are those of ``__init__.pyi`` here and in the packages below. Each is loaded when
it is first used, so that importing the package costs nothing.
"""

import warnings
from importlib import import_module
from typing import Any

import lazy_loader

__version__ = "0.1.0"

_public, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
# Without the classes that need an extra, so that a star import needs none.
__all__ = [name for name in _names if not name.endswith("Scheduler")]

# Names that moved, with their package and, if it changed, their new name.
_MOVED = {
    **dict.fromkeys(
        ("GreyLevels", "dpmpp_2m", "dpmpp_3m", "levels_all", "levels_from_variances")
        + ("multistep_3", "standard"),
        "core",
    ),
    "levels_given": "core.levels_custom",
    **dict.fromkeys(("Autocast", "ClipX0", "DynamicThreshold", "Guidance"), "sampling"),
    **dict.fromkeys(("ImplicitOptions", "VPrediction", "X0Prediction"), "sampling"),
    "Denoiser": "sampling.NoisePredictor",
    **dict.fromkeys(("Latents", "diffusion_chain", "read_latents", "write_latents"), "inverse"),
    **dict.fromkeys(("DrawOptions", "Evaluation", "MeasureOptions"), "evaluation"),
    **dict.fromkeys(("Reconstruction", "choose_methods"), "evaluation"),
    **dict.fromkeys(("Decoder", "builtin_models"), "models"),
    "read_samples": "data",
}


def __getattr__(name: str) -> Any:
    if name not in _MOVED:
        return _public(name)
    package, _, new = _MOVED[name].partition(".")
    new = new or name
    warnings.warn(
        f"fastdpm.{name} is deprecated: use fastdpm.{package}.{new}",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module(f"fastdpm.{package}"), new)
