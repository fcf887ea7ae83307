"""The integration with diffusers; requires ``pip install 'fastdpm[diffusers]'``.

``FastDPMScheduler`` and ``FastDPMInverseScheduler`` can also be imported from ``fastdpm``. A saved
pipeline refers to them by this module, where diffusers also looks for their base class.
"""

from typing import Any

from fastdpm.core.errors import check_installed

check_installed("diffusers", "diffusers", "diffusers")

from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: E402

# Import both schedulers: each lists the other as compatible.
from fastdpm.integrations.diffusers.base import FastDPMSchedulerOutput  # noqa: E402
from fastdpm.integrations.diffusers.inverse import FastDPMInverseScheduler  # noqa: E402
from fastdpm.integrations.diffusers.linear import plan_of  # noqa: E402
from fastdpm.integrations.diffusers.scheduler import FastDPMScheduler  # noqa: E402

__all__ = [
    "FastDPMInverseScheduler",
    "FastDPMScheduler",
    "FastDPMSchedulerOutput",
    "SchedulerMixin",
    "from_pipeline",
    "from_unet",
    "plan_of",
]


def __getattr__(name: str) -> Any:
    """Import the functions that open pipelines on first use: they import diffusers' networks."""
    if name not in ("from_pipeline", "from_unet"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastdpm.integrations.diffusers import pipeline

    return getattr(pipeline, name)
