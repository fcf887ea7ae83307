"""FastDPM inside diffusers; needs ``pip install 'fastdpm[diffusers]'``.

``FastDPMScheduler`` and ``FastDPMInverseScheduler`` are public names of ``fastdpm`` itself. A
saved pipeline names them by this package, where diffusers also looks for their base class.
"""

from typing import Any

from fastdpm.core.errors import check_installed

check_installed("diffusers", "diffusers", "diffusers")

from diffusers.schedulers.scheduling_utils import SchedulerMixin  # noqa: E402

# Both schedulers together: each names the other as one that it can be exchanged for.
from fastdpm.integrations.diffusers.base import FastDPMSchedulerOutput  # noqa: E402
from fastdpm.integrations.diffusers.inverse import FastDPMInverseScheduler  # noqa: E402
from fastdpm.integrations.diffusers.scheduler import FastDPMScheduler  # noqa: E402

__all__ = [
    "FastDPMInverseScheduler",
    "FastDPMScheduler",
    "FastDPMSchedulerOutput",
    "SchedulerMixin",
    "from_pipeline",
    "from_unet",
]


def __getattr__(name: str) -> Any:
    """Load what opens pipelines when it is first used: it imports the networks of diffusers."""
    if name not in ("from_pipeline", "from_unet"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fastdpm.integrations.diffusers import pipeline

    return getattr(pipeline, name)
