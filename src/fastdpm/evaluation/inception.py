"""The Inception-v3 network of the published FID, from torch-fidelity (extra ``fid``).

Its weights are TensorFlow's of 2015-12-05, as torch-fidelity and pytorch-fid distribute them. Only
with these is a distance called FID.
Source: Heusel et al. 2017, arXiv:1706.08500; Obukhov et al. 2020, torch-fidelity.
"""

from __future__ import annotations

from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastdpm.core.errors import InvalidArgumentError, MissingExtraError, ModelError, first_line
from fastdpm.data.spec import DataSpec
from fastdpm.data.tensors import sha256
from fastdpm.evaluation.metrics import Features
from fastdpm.evaluation.sources import Values
from fastdpm.evaluation.statistics import INCEPTION
from fastdpm.models.load import find_device

AUTO = "auto"
_LAYERS = ["2048", "logits_unbiased"]
_CHECKSUM = "6726825d"


class InceptionExtractor:
    """Features (2,048) and logits (1,008) of images of any size.

    Images are resized to 299 x 299 like in TensorFlow 1; gray images are repeated for three
    channels.

    Args:
        weights: The file ``weights-inception-2015-12-05-6726825d.pth``, or "auto" to
            download it once from the address in torch-fidelity.
        device: See :func:`fastdpm.models.load.find_device`.

    Raises:
        InvalidArgumentError: If the file does not exist.
        ModelError: If it cannot be downloaded.
        MissingExtraError: If torch-fidelity is not installed.
    """

    splits = 10
    data: DataSpec | None = None
    classes = ()

    def __init__(self, weights: str | Path, device: str = "auto") -> None:
        self.weights = _fetch() if str(weights) == AUTO else Path(weights)
        if not self.weights.is_file():
            raise InvalidArgumentError(
                f"no weights of Inception-v3 at {str(weights)!r}: choose the file that"
                f" torch-fidelity calls weights-inception-2015-12-05-{_CHECKSUM}.pth, or 'auto' to"
                " download it"
            )
        self.device = find_device(device)
        self.fingerprint = sha256(self.weights)[:16]
        published = self.fingerprint.startswith(_CHECKSUM)
        self.name = INCEPTION if published else f"{INCEPTION} {self.fingerprint[:8]}"

    @property
    def settings(self) -> str:
        """Version of torch-fidelity, which resizes the images."""
        try:
            return version("torch-fidelity")
        except PackageNotFoundError:
            raise MissingExtraError("torch-fidelity", "fid") from None

    @cached_property
    def _network(self) -> Any:
        module = _library()
        try:
            # torch-fidelity unpickles the file; this refuses a file that would execute code.
            torch.load(self.weights, map_location="cpu", weights_only=True)
            network = module.FeatureExtractorInceptionV3(
                INCEPTION, _LAYERS, feature_extractor_weights_path=str(self.weights)
            )
        except Exception as error:  # many types, from unpickling or wrong shapes
            raise ModelError(
                f"{self.weights} does not hold the weights of Inception-v3: {first_line(error)}"
            ) from None
        return network.to(self.device).eval()

    @torch.no_grad()
    def __call__(self, values: Values) -> tuple[Features, Features]:
        """Features (n, 2048) and logits (n, 1008) of uint8 images, shape (n, C, H, W)."""
        if values.dtype != np.uint8 or values.ndim != 4:
            raise InvalidArgumentError("Inception-v3 takes images only: drop `inception`")
        images = torch.from_numpy(values).to(self.device)
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        features, logits = self._network(images)
        return features.cpu().numpy(), logits.cpu().numpy()


def _library() -> Any:
    try:
        from torch_fidelity import feature_extractor_inceptionv3
    except (ImportError, RuntimeError):  # torchvision raises either if torch does not match
        raise MissingExtraError("torch-fidelity", "fid") from None
    return feature_extractor_inceptionv3


def _fetch() -> Path:
    """The published weights in PyTorch's cache, downloaded if they are missing."""
    url: str = _library().URL_INCEPTION_V3
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / url.rsplit("/", 1)[-1]
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_CHECKSUM)
        except (OSError, RuntimeError) as error:
            raise ModelError(
                f"the weights of Inception-v3 could not be downloaded ({first_line(error)}): put"
                f" {url} at {path}, or set `inception` to the file"
            ) from None
    return path
