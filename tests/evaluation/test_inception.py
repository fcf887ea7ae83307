"""FID is what Inception-v3 says, on the weights and statistics that the field shares.

A stand-in with the interface of torch-fidelity's network takes its place: the real one needs
torchvision and 95 MB of weights.
"""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fastdpm import DataError, InvalidArgumentError, MissingExtraError, ModelError, evaluate
from fastdpm.data.tensors import sha256
from fastdpm.evaluation.metrics import Moments, frechet_distance
from fastdpm.evaluation.statistics import read_statistics


class StandIn(torch.nn.Module):
    """2,048 fixed random features of the mean-pooled pixels, and logits of them."""

    def __init__(self, name, features_list, feature_extractor_weights_path=None):
        super().__init__()
        assert features_list == ["2048", "logits_unbiased"]
        weights = torch.load(feature_extractor_weights_path, weights_only=True)
        self.projection: torch.Tensor = weights["projection"]

    def forward(self, images):
        assert images.dtype == torch.uint8
        assert images.shape[1] == 3
        pooled = torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)
        features = torch.relu(pooled / 255 @ self.projection)
        return features, features[:, :1008]


@pytest.fixture
def inception(monkeypatch, tmp_path) -> str:
    """Weights for the stand-in, which is installed as torch-fidelity."""
    import torchmetrics.image.inception  # noqa: F401  # it looks for the real library

    library = ModuleType("torch_fidelity")
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn  # type: ignore[attr-defined]
    library.feature_extractor_inceptionv3 = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", library)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = tmp_path / "inception.pth"
    generator = torch.Generator().manual_seed(0)
    torch.save({"projection": torch.randn(48, 2048, generator=generator)}, path)
    monkeypatch.setattr("fastdpm.evaluation.inception.version", lambda package: "0")
    monkeypatch.setattr("fastdpm.evaluation.inception._CHECKSUM", sha256(path)[:8])
    return str(path)


def test_fid_is_the_distance_to_published_statistics_of_mu_and_sigma(
    inception, folders, pixels, image_folder, tmp_path
):
    network = StandIn("x", ["2048", "logits_unbiased"], inception)
    real = torch.from_numpy(pixels[:, None]).expand(-1, 3, -1, -1)
    features = network(real)[0].numpy().astype(float)
    mu, sigma = features.mean(0) + 0.01, np.cov(features.T)
    np.savez(tmp_path / "stats.npz", mu=mu, sigma=sigma)
    found = evaluate(image_folder, tmp_path / "stats.npz", inception=inception)
    wanted = frechet_distance(Moments.of(features), Moments(0, mu, sigma))
    assert found.scores["frechet_distance"].value == pytest.approx(wanted, rel=1e-3)
    assert [metric.name for metric in found.metrics] == ["FID", "Inception score"]
    assert any("KID" in note and "against the data itself" in note for note in found.notes)
    assert any("no more than the 2,048 features" in note for note in found.notes)


def test_other_weights_of_the_network_are_not_called_fid(inception, monkeypatch, image_folder):
    monkeypatch.undo()
    from fastdpm.evaluation.inception import InceptionExtractor

    name = InceptionExtractor(inception).name
    assert name == f"inception-v3 {sha256(Path(inception))[:8]}"


def test_a_weights_file_that_would_execute_code_is_refused(inception, image_folder):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    Path(inception).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="does not hold the weights of Inception-v3"):
        evaluate(image_folder, image_folder, inception=inception)


def test_inception_needs_its_library(monkeypatch, image_folder, tmp_path):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match=r"fastdpm\[fid\]"):
        evaluate(image_folder, image_folder, inception=str(tmp_path / "w.pth"))


def test_statistics_of_other_features_are_not_taken_for_inceptions(
    features, image_folder, tmp_path
):
    np.savez(tmp_path / "small.npz", mu=np.zeros(64), sigma=np.eye(64))
    with pytest.raises(DataError, match=r"has 64 features, Inception-v3 has 2048"):
        read_statistics(tmp_path / "small.npz")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(2048), sigma=np.eye(2048))
    with pytest.raises(InvalidArgumentError, match="statistics of feature network inception-v3"):
        evaluate(image_folder, tmp_path / "stats.npz", features=features["image"])
    np.savez(tmp_path / "broken.npz", mu=np.full(2048, np.nan), sigma=np.eye(2048))
    with pytest.raises(DataError, match="not finite"):
        read_statistics(tmp_path / "broken.npz")
