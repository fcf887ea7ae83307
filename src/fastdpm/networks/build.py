"""Every network by its type, as configurations name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fastdpm.core.errors import InvalidArgumentError, check_one_of, first_line
from fastdpm.networks.adm_unet import ADMUNet
from fastdpm.networks.classifier import ImageClassifier, SoundClassifier
from fastdpm.networks.diffusers_unet import DiffusersNetwork
from fastdpm.networks.diffwave import DiffWave
from fastdpm.networks.lmnt_diffwave import LMNTDiffWave
from fastdpm.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "adm-unet": ADMUNet,
    "diffwave": DiffWave,
    "lmnt-diffwave": LMNTDiffWave,
    "diffusers": DiffusersNetwork,
}


CLASSIFIERS: dict[str, type[nn.Module]] = {
    "image-classifier": ImageClassifier,
    "sound-classifier": SoundClassifier,
}


def build_network(
    spec: Mapping[str, Any], known: Mapping[str, type[nn.Module]] = NETWORKS
) -> nn.Module:
    """Build a network from its "type", one of the ``known``, and arguments, with fresh weights.

    Raises:
        InvalidArgumentError: If the type is unknown or an argument does not fit.
    """
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    check_one_of("network type", kind, known)
    try:
        return known[str(kind)](**arguments)
    except Exception as error:  # torch and arithmetic fail in many ways on senseless sizes
        raise InvalidArgumentError(
            f"network {kind!r} cannot be built: {first_line(error)}"
        ) from None
