"""Feature networks: trained classifiers whose last hidden layer measures samples.

Like a model it is a folder: ``config.json``, ``model.safetensors`` and ``README.md``.
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
    """A classifier that turns samples into features and logits, always float32.

    What it says of a sample does not depend on the others of its batch.

    Attributes:
        config: What the folder says.
        network: In evaluation mode, on its device.
        device: Where it is.
    """

    def __init__(self, config: FeaturesConfig, network: nn.Module) -> None:
        self.config = config
        self.network = network
        self.device = next(network.parameters()).device

    @property
    def name(self) -> str:
        """The name by which its distances are told apart from others'."""
        return self.config.name

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the weights' checksum."""
        return self.config.weights_sha256[:16]

    @property
    def num_features(self) -> int:
        """The size d of a feature vector."""
        return int(self.network.num_features)  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits.

        Args:
            samples: Shape (n, *config.data.shape), in [-1, 1].

        Returns:
            Features, shape (n, d), and logits, shape (n, k), on the network's device.

        Raises:
            InvalidArgumentError: If the samples have another shape.
        """
        if samples.shape[1:] != self.config.data.shape:
            raise InvalidArgumentError(
                f"{self.name} measures samples of shape {self.config.data.shape},"
                f" got {tuple(samples.shape[1:])}: choose a feature network for such samples"
            )
        features, logits = self.network(samples.to(self.device, torch.float32))
        return features, logits


def builtin_features() -> list[str]:
    """Names of the feature networks that come with the package."""
    return names_in(FEATURES)


def features_for(data: DataSpec) -> str | None:
    """The built-in feature network for samples of this modality, shape and sample rate."""
    wanted = (data.modality, data.shape, data.sample_rate)
    for name in builtin_features():
        known = find_features(name)[1].data
        if (known.modality, known.shape, known.sample_rate) == wanted:
            return name
    return None


def find_features(name_or_path: str | Path) -> tuple[Path, FeaturesConfig]:
    """The folder of a built-in feature network or a path, and what it says.

    Raises:
        InvalidArgumentError: If there is neither.
        ModelError: If it cannot be read or does not describe a feature network.
    """
    folder = find_in(FEATURES, "feature network", name_or_path)
    return folder, read_config(folder, FeaturesConfig)


def load_features(name_or_path: str | Path, device: str = "cpu") -> FeatureNetwork:
    """Load a built-in feature network or a folder of one.

    Args:
        name_or_path: A name of :func:`builtin_features`, or a folder.
        device: As :func:`fastdpm.load_model` takes it.

    Raises:
        InvalidArgumentError: If there is no such network or device name.
        ModelError: If its files are damaged or do not fit together.
        FastDPMError: If the device is absent.
    """
    folder, config = find_features(name_or_path)
    weights = read_weights(folder, config.weights_sha256)
    network = network_of(folder / WEIGHTS, weights, lambda: check_classifies(config))
    return FeatureNetwork(config, put_weights(network, weights).to(find_device(device)))


def check_classifies(config: FeaturesConfig) -> nn.Module:
    """Check that a network takes its data and tells its classes apart.

    Returns:
        The network in evaluation mode, with fresh weights.

    Raises:
        InvalidArgumentError: If it cannot be built or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.network, CLASSIFIERS).eval()
    try:
        with torch.no_grad():
            _, logits = network(torch.zeros(2, *config.data.shape))
    except Exception as error:  # whatever a layer says about its input
        raise InvalidArgumentError(
            f"the network does not take data of shape {config.data.shape}: {first_line(error)}"
        ) from None
    if logits.shape[1] != len(config.classes):
        raise InvalidArgumentError(
            f"the network tells {logits.shape[1]} classes apart, the configuration names"
            f" {len(config.classes)}"
        )
    return network
