"""Feature networks: trained classifiers whose last hidden layer provides features for metrics.

Like a model, a feature network is a folder with ``config.json``, ``model.safetensors`` and
``README.md``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fastdpm.core.errors import InvalidArgumentError, first_line
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import WEIGHTS, FeaturesConfig, find_in, names_in, read_config
from fastdpm.models.folder import network_of, read_weights
from fastdpm.models.load import find_device
from fastdpm.networks.build import CLASSIFIERS, build_network
from fastdpm.networks.weights import put_weights

FEATURES = Path(__file__).parent.parent / "assets" / "features"


class FeatureNetwork:
    """A classifier that maps samples to features and logits, in float32.

    Each result depends on its own sample only, not on the rest of the batch.

    Attributes:
        config: The configuration of the folder.
        network: The classifier, in evaluation mode.
        device: Device of the network.
    """

    def __init__(self, config: FeaturesConfig, network: nn.Module) -> None:
        self.config = config
        self.network = network
        self.device = next(network.parameters()).device

    @property
    def name(self) -> str:
        """The name that its distances carry."""
        return self.config.name

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the weights."""
        return self.config.weights_sha256[:16]

    @property
    def num_features(self) -> int:
        """The size d of a feature vector."""
        return int(self.network.num_features)  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features and logits.

        Args:
            samples: Shape (n, *config.data.shape), in [-1, 1].

        Returns:
            Features, shape (n, d), and logits, shape (n, k), on the device of the network.

        Raises:
            InvalidArgumentError: If the shape of the samples is wrong.
        """
        if samples.shape[1:] != self.config.data.shape:
            raise InvalidArgumentError(
                f"feature network {self.name} takes samples of shape {self.config.data.shape},"
                f" got {tuple(samples.shape[1:])}: choose another feature network"
            )
        features, logits = self.network(samples.to(self.device, torch.float32))
        return features, logits


def builtin_features() -> list[str]:
    """Names of the feature networks that come with the package."""
    return names_in(FEATURES)


def features_for(data: DataSpec) -> str | None:
    """The built-in feature network for a modality, shape and sample rate, or None."""
    key = (data.modality, data.shape, data.sample_rate)
    for name in builtin_features():
        known = find_features(name)[1].data
        if (known.modality, known.shape, known.sample_rate) == key:
            return name
    return None


def find_features(name_or_path: str | Path) -> tuple[Path, FeaturesConfig]:
    """The folder and configuration of a built-in feature network, or of one at a path.

    Raises:
        InvalidArgumentError: If there is no such name or folder.
        ModelError: If the configuration cannot be read or is not that of a feature network.
    """
    folder = find_in(FEATURES, "feature network", name_or_path)
    return folder, read_config(folder, FeaturesConfig)


def load_features(name_or_path: str | Path, device: str = "cpu") -> FeatureNetwork:
    """Load a built-in feature network, or one from a folder.

    Args:
        name_or_path: A name from :func:`builtin_features`, or a folder.
        device: See :func:`fastdpm.load_model`.

    Raises:
        InvalidArgumentError: If there is no such network, or the device name is invalid.
        ModelError: If a file is damaged, or the files do not belong together.
        FastDPMError: If the device is not available.
    """
    folder, config = find_features(name_or_path)
    weights = read_weights(folder, config.weights_sha256)
    network = network_of(folder / WEIGHTS, weights, lambda: check_classifies(config))
    return FeatureNetwork(config, put_weights(network, weights).to(find_device(device)))


def check_classifies(config: FeaturesConfig) -> nn.Module:
    """Build the classifier of a configuration and check that it fits its data and classes.

    Returns:
        The network in evaluation mode, with newly initialized weights.

    Raises:
        InvalidArgumentError: If the network cannot be built, does not accept the data, or has
            another number of classes.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.network, CLASSIFIERS).eval()
    try:
        with torch.no_grad():
            _, logits = network(torch.zeros(2, *config.data.shape, device="cpu"))
    except Exception as error:  # a layer can raise any error for an input it cannot use
        raise InvalidArgumentError(
            f"the network does not accept data of shape {config.data.shape}: {first_line(error)}"
        ) from None
    if logits.shape[1] != len(config.classes):
        raise InvalidArgumentError(
            f"the network has {logits.shape[1]} classes, but `classes` has {len(config.classes)}"
            " names: make both numbers equal"
        )
    return network
