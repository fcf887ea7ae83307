"""Every published format at full size: convert it, and compute what the publication computes.

The weights are random, drawn for names and shapes that are listed from the publication, saved as
its authors save theirs. What comes out of the converted folder is compared with computations that
share no module with the package. The networks are full size; images and sounds are small, which
changes no weight.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fastdpm import load_model
from fastdpm.models.conversion import convert
from tests.networks.reference_adm import (
    adm_reference,
    cifar10_uncond_50m,
    guided_256_uncond,
    imagenet64_uncond_100m,
    lsun_uncond_100m,
)
from tests.networks.reference_ddpm import ddpm_reference, ddpm_shapes
from tests.networks.reference_diffwave import (
    authors_reference,
    ljspeech_shapes,
    lmnt_reference,
    lmnt_shapes,
    random_state,
    sc09_shapes,
)

State = Mapping[str, Tensor]
LSUN = ddpm_shapes(128, (1, 1, 2, 2, 4, 4), (4,))
CIFAR10 = ddpm_shapes(128, (1, 2, 2, 2), (1,))
CELEBA = ddpm_shapes(128, (1, 2, 2, 2, 4), (2,))
LMNT = partial(lmnt_reference, dilation_cycle=10, num_train_steps=50)
IMPROVED = partial(adm_reference, num_res_blocks=3, num_heads=4)


FEW = (37.0, 512.375)


def _plain(state: State) -> Any:
    return dict(state)


def _ddim(state: State) -> Any:
    """[state, optimizer, epoch, step, averaged state], the states with DataParallel's names."""
    other = {f"module.{n}": torch.zeros_like(w) for n, w in state.items()}
    moments = {0: {"exp_avg": torch.ones(3), "step": 5}}
    averaged = {f"module.{n}": w for n, w in state.items()}
    return [other, {"state": moments, "param_groups": [{"lr": 2e-4}]}, 12, 500_000, averaged]


def _authors(state: State) -> Any:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 2e-4}]}
    return {
        "iter": 1_000_000,
        "model_state_dict": dict(state),
        "optimizer_state_dict": optimizer,
        "training_time_seconds": 86400,
    }


def _lmnt(state: State) -> Any:
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 2e-4}]}
    betas = torch.linspace(1e-4, 0.05, 50, dtype=torch.float64).tolist()
    params = {"noise_schedule": betas, "fmax": None, "sample_rate": 22050}
    scaler = {"scale": 65536.0}
    return {
        "step": 1_000_578,
        "model": dict(state),
        "optimizer": optimizer,
        "params": params,
        "scaler": scaler,
    }


@dataclass(frozen=True)
class Case:
    """A published model: its preset, its names and shapes, and what it computes.

    Attributes:
        preset: What it is recognized as, alone or among others.
        shapes: Names and shapes.
        reference: Called as ``reference(state, x, t)``, or with a mel spectrogram behind.
        shape: Of the data that it is tried on.
        save: The layout of the file.
        time_scale: Factor of the network's step.
        bands: Of a mel spectrogram.
        large: Too large for every run of the tests.
    """

    preset: str
    shapes: Mapping[str, tuple[int, ...]]
    reference: Callable[..., Tensor]
    shape: tuple[int, ...]
    save: Callable[[State], Any] = _plain
    time_scale: float = 1.0
    bands: int | None = None
    large: bool = False
    steps: tuple[float, ...] = field(default=(0.0, 37.0, 512.375, 998.8))


SOUND = (7.0, 48.6)
CASES = [
    Case("cifar10-ddpm", CIFAR10, ddpm_reference, (3, 32, 32)),
    Case("celeba64-ddim", CELEBA, ddpm_reference, (3, 32, 32), _ddim, steps=FEW),
    Case("lsun-bedroom", LSUN, ddpm_reference, (3, 64, 64), steps=FEW),
    Case(
        "sc09-diffwave",
        sc09_shapes(),
        partial(authors_reference, dilation_cycle=12),
        (1, 512),
        _authors,
        steps=(37.0, 198.5),
    ),
    Case(
        "ljspeech-diffwave-64",
        ljspeech_shapes(64),
        partial(authors_reference, dilation_cycle=10),
        (1, 1024),
        _authors,
        bands=80,
        steps=SOUND,
    ),
    Case(
        "ljspeech-diffwave",
        ljspeech_shapes(128),
        partial(authors_reference, dilation_cycle=10),
        (1, 1024),
        _authors,
        bands=80,
        steps=(37.0, 198.5),
    ),
    Case("ljspeech-lmnt", lmnt_shapes(), LMNT, (1, 1024), _lmnt, bands=80, steps=SOUND),
    Case("ljspeech-lmnt", lmnt_shapes(), LMNT, (1, 1024), _plain, bands=80, steps=SOUND),
    Case(
        "cifar10-improved",
        cifar10_uncond_50m(),
        IMPROVED,
        (3, 32, 32),
        time_scale=0.25,
        steps=(0.0, 512.375, 3998.8),
    ),
    Case(
        "imagenet64-improved",
        imagenet64_uncond_100m(),
        IMPROVED,
        (3, 32, 32),
        time_scale=0.25,
        steps=(37.0, 3998.8),
    ),
    Case(
        "lsun-bedroom-improved",
        lsun_uncond_100m(),
        partial(adm_reference, num_res_blocks=2, num_heads=1),
        (3, 64, 64),
        steps=FEW,
    ),
    Case(
        "imagenet256-guided",
        guided_256_uncond(),
        partial(adm_reference, num_res_blocks=2, head_channels=64),
        (3, 64, 64),
        large=True,
    ),
]


def _names(case: Case) -> str:
    return f"{case.preset}-{case.save.__name__.strip('_')}"


@pytest.mark.parametrize("case", CASES, ids=_names)
def test_a_published_checkpoint_computes_what_its_publication_says(tmp_path, case):
    if case.large and not os.environ.get("FASTDPM_LARGE"):
        pytest.skip("takes 7 GB of memory and 5 GB of disk: set FASTDPM_LARGE=1")
    state = random_state(case.shapes)
    torch.save(case.save(state), tmp_path / "file")
    ambiguous = case.preset.startswith("lsun") or case.large
    config, notes = convert(
        tmp_path / "file", tmp_path / "out", preset=case.preset if ambiguous else None
    )
    assert config.name == case.preset
    assert len(notes) == (not ambiguous) + (case.save is _ddim)
    model = load_model(tmp_path / "out")
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, *case.shape, generator=generator)
    mel = None if case.bands is None else torch.rand(1, case.bands, 8, generator=generator)
    condition = () if mel is None else (mel,)
    for step in case.steps:
        t = torch.tensor([step])
        with torch.no_grad():
            found = model.noise_predictor(mel)(x, t)  # type: ignore[call-arg]
            expected = case.reference(state, x, case.time_scale * t, *condition)
        assert torch.isfinite(expected).all()
        assert (found - expected).norm() <= 1e-5 * expected.norm(), step
