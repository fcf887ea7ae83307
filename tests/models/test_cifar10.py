"""The built-in model `cifar10` answers as it did when it was trained."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fastdpm
from fastdpm import Model, SampleNoise, load_model, run
from fastdpm.models.config import ModelConfig
from fastdpm.sampling.prediction import ClipX0, as_eps
from fastdpm.training.config import read_train_config

REFERENCE = Path(__file__).parents[1] / "golden" / "cifar10.safetensors"
WEIGHTS = Path(fastdpm.__file__).parent / "assets" / "models" / "cifar10" / "model.safetensors"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("cifar10")


def test_the_network_answers_as_in_training_whatever_the_batch(model):
    """Float32 outputs at real-valued steps, two of them without a class."""
    known = load_file(REFERENCE)
    inputs = known["x"], known["t"], known["y"]
    with torch.no_grad():
        batch = model.network(*inputs)
        alone = torch.cat([model.network(*(value[i : i + 1] for value in inputs)) for i in (0, 7)])
    torch.testing.assert_close(batch, known["output"], rtol=0, atol=1e-4)
    torch.testing.assert_close(alone, known["output"][[0, 7]], rtol=0, atol=1e-4)


def test_guidance_of_1_changes_nothing_and_of_0_has_no_class(model):
    options = {"n": 2, "num_steps": 2, "seed": 5}
    horse = model.sample(class_labels="horse", guidance_scale=1, **options)
    noise, labels = SampleNoise(5, range(2)), torch.tensor([7, 7])
    eps = as_eps(lambda x, t: model.network(x, t, labels), model.config.prediction)
    plan = model.config.recipe.replace(num_steps=2).compile(model.schedule)
    with torch.no_grad():
        plain = run(plan, ClipX0(eps), noise.start((3, 32, 32)), noise=noise).clamp(-1, 1)
    without = model.sample(class_labels="horse", guidance_scale=0.0, **options)
    null = model.sample(class_labels="none", guidance_scale=1, **options)
    assert torch.equal(horse, plain)
    assert torch.equal(without, null)
    assert not torch.allclose(horse, null, atol=0.05)


def test_a_sample_does_not_depend_on_its_batch(model):
    options = {"num_steps": 2, "seed": 5}
    labels = ["cat", "dog", "ship"]
    together = model.sample(3, class_labels=labels, **options)
    alone = model.sample(3, class_labels=labels, batch_size=1, **options)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_its_training_configuration_makes_this_model(model):
    found, made = ModelConfig.of(read_train_config("cifar10")), model.config
    for name in ("network", "schedule", "prediction", "time_scale", "data", "recipe"):
        assert getattr(found, name) == getattr(made, name), name


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size < 40e6
