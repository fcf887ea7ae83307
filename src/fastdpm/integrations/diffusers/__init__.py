"""FastDPM inside diffusers; needs ``pip install 'fastdpm[diffusers]'``.

``FastDPMScheduler`` and ``FastDPMInverseScheduler`` are public names of ``fastdpm`` itself. A
saved pipeline names them by this package, where diffusers also looks for their base class.
"""

import lazy_loader

from fastdpm.core.errors import check_installed

check_installed("diffusers", "diffusers", "diffusers")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["FastDPMSchedulerOutput", "SchedulerMixin"],
        "inverse": ["FastDPMInverseScheduler"],
        "pipeline": ["from_pipeline", "from_unet"],
        "scheduler": ["FastDPMScheduler"],
    },
)
