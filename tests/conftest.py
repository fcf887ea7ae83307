"""Small models with random weights, made once for all tests.

Each worker of pytest-xdist, and every process that a test starts, computes on one thread: on
networks this small, several threads only wait for each other.
"""

import os
from dataclasses import replace

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"  # before NumPy and PyTorch read them

from pathlib import Path

import pytest
import torch

from fastdpm import Model, Recipe, load_model
from fastdpm.data.spec import DataSpec, MelSpec
from fastdpm.models.config import ModelConfig
from fastdpm.models.folder import write_folder
from fastdpm.networks.build import build_network

IMAGE = ModelConfig(
    name="tiny-image",
    network={
        "type": "unet",
        "image_size": 8,
        "in_channels": 1,
        "out_channels": 1,
        "base_channels": 8,
        "channel_multipliers": [1, 2],
        "num_res_blocks": 1,
        "attention_resolutions": [4],
        "num_groups": 4,
    },
    schedule={"type": "linear", "num_train_steps": 100, "beta_start": 1e-4, "beta_end": 0.1},
    data=DataSpec("image", (1, 8, 8)),
    recipe=Recipe(num_steps=4),
)
CLASSES = replace(
    IMAGE,
    name="tiny-classes",
    network={**IMAGE.network, "num_classes": 3, "null_class": True},
    data=DataSpec("image", (1, 8, 8), classes=3, class_names=("cat", "dog", "horse")),
)
MEL = MelSpec(sample_rate=8000, n_fft=64, hop_length=16, bands=8, f_min=0.0, f_max=4000.0)
SOUND = ModelConfig(
    name="tiny-sound",
    network={
        "type": "diffwave",
        "res_channels": 8,
        "skip_channels": 8,
        "num_res_layers": 3,
        "dilation_cycle": 2,
        "embed_channels": [16, 16, 16],
    },
    schedule={"type": "linear", "num_train_steps": 50, "beta_start": 1e-4, "beta_end": 0.05},
    data=DataSpec("audio", (1, 512), sample_rate=8000),
    recipe=Recipe(num_steps=3, kappa=1.0),
)
VOCODER = ModelConfig(
    name="tiny-vocoder",
    network={**SOUND.network, "mel_bands": 8, "mel_upsample": [4, 4]},
    schedule=SOUND.schedule,
    data=DataSpec("audio", (1, 512), sample_rate=8000, peak=0.9, mel=MEL),
    recipe=SOUND.recipe,
)


def write_model(folder: Path, config: ModelConfig, conditions: torch.Tensor | None = None) -> Path:
    """Write a model folder whose random weights give every output some life."""
    torch.manual_seed(0)
    network = build_network(config.network)
    weights = {n: w + 0.05 * torch.randn_like(w) for n, w in network.state_dict().items()}
    write_folder(folder, config, weights, conditions)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    torch.manual_seed(1)
    return {
        "image": write_model(base / "image", IMAGE),
        "classes": write_model(base / "classes", CLASSES),
        "sound": write_model(base / "sound", SOUND),
        "vocoder": write_model(base / "vocoder", VOCODER, torch.rand(2, 8, 20)),
    }


@pytest.fixture
def image_model(folders) -> Model:
    return load_model(folders["image"])


@pytest.fixture
def class_model(folders) -> Model:
    return load_model(folders["classes"])


@pytest.fixture
def vocoder(folders) -> Model:
    return load_model(folders["vocoder"])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("FASTDPM_CACHE", str(tmp_path / "cache"))
    cache: Path = tmp_path / "cache"
    return cache
