"""Small feature networks with random weights, and data to measure with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from fastdpm import evaluate
from fastdpm.data.spec import DataSpec
from fastdpm.models.config import FeaturesConfig
from fastdpm.models.folder import write_folder
from fastdpm.networks.build import CLASSIFIERS, build_network
from tests.conftest import IMAGE, MEL
from tests.evaluation.reports import make_grid

IMAGE_FEATURES = FeaturesConfig(
    name="tiny-features",
    network={
        "type": "image-classifier",
        "in_channels": 1,
        "num_classes": 4,
        "widths": [6],
        "stem_channels": 4,
    },
    data=IMAGE.data,
    classes=("a", "b", "c", "d"),
)
SOUND_FEATURES = FeaturesConfig(
    name="tiny-sound-features",
    network={
        "type": "sound-classifier",
        "num_classes": 4,
        "widths": [6],
        "stem_channels": 4,
        "mel": vars(MEL),
    },
    data=DataSpec("audio", (1, 512), sample_rate=8000, peak=0.9),
    classes=("a", "b", "c", "d"),
)


def write_tiny_features(folder: Path, config: FeaturesConfig, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    network = build_network(config.network, CLASSIFIERS)
    weights = {n: w + 0.1 * torch.randn_like(w) for n, w in network.state_dict().items()}
    weights |= {n: w.abs() for n, w in weights.items() if n.endswith("variance")}
    write_folder(folder, config, weights)
    return folder


@pytest.fixture(scope="session")
def features(tmp_path_factory) -> dict[str, str]:
    base = tmp_path_factory.mktemp("features")
    return {
        "image": str(write_tiny_features(base / "image", IMAGE_FEATURES)),
        "other": str(write_tiny_features(base / "other", IMAGE_FEATURES, seed=1)),
        "sound": str(write_tiny_features(base / "sound", SOUND_FEATURES)),
    }


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


@pytest.fixture
def image_folder(tmp_path, pixels) -> Path:
    folder: Path = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture
def sound_folder(tmp_path) -> Path:
    folder: Path = tmp_path / "sounds"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(24):
        tone = np.sin(np.arange(3000 + 100 * i) * generator.uniform(0.1, 1.0)) * 0.4
        noise = 0.01 * generator.standard_normal(tone.size)
        soundfile.write(folder / f"{i:03d}.wav", tone + noise, 8000)
    return folder


@pytest.fixture
def measure(features, image_folder):
    """Evaluate with the small image network, by default against the folder of images."""

    def measure(samples, against=None, **choices):
        choices.setdefault("features", features["image"])
        return evaluate(samples, str(against or image_folder), **choices)

    return measure


def score_values(found) -> dict[str, float]:
    return {key: score.value for key, score in found.scores.items()}


@pytest.fixture
def grid() -> list[dict[str, Any]]:
    return make_grid(steps=(5, 10), rivals=False)
