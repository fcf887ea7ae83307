"""The classifiers behind the features: their features, logits and buffers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fastdpm.data.mel import log_mel
from fastdpm.data.spec import MelSpec
from fastdpm.networks.classifier import ImageClassifier, SoundClassifier

MEL: dict[str, Any] = {
    "sample_rate": 8000,
    "n_fft": 64,
    "hop_length": 16,
    "bands": 12,
    "f_min": 0,
    "f_max": 4000,
}


def _images(count: int = 6) -> torch.Tensor:
    return torch.rand(count, 3, 9, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def network() -> ImageClassifier:
    torch.manual_seed(0)
    network = ImageClassifier(3, 5, [8, 12], 4)
    for _ in range(20):
        network(_images(50))  # running statistics
    return network.eval()


def test_the_logits_are_linear_in_the_features(network):
    features, logits = network(_images())
    assert features.shape == (6, 12)
    assert logits.shape == (6, 5)
    torch.testing.assert_close(logits, F.linear(features, network.head.weight, network.head.bias))


def test_batch_normalisation_is_that_of_torch_in_training_and_in_use():
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    ours = ImageClassifier(3, 2, [4], 3).stem[1]
    theirs = torch.nn.BatchNorm2d(3)
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)


def test_all_that_is_kept_is_real_and_so_fits_fp16(network):
    state = network.state_dict()
    assert all(value.is_floating_point() for value in state.values())
    assert any(name.endswith("variance") for name in state)


def test_a_sound_is_classified_as_the_image_of_its_mel():
    torch.manual_seed(0)
    network = SoundClassifier(5, [8, 12], MEL, 4).eval()
    sound = torch.rand(3, 1, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = 2 * log_mel(sound[:, 0], MelSpec(**MEL))[:, None] - 1
    for found, expected in zip(network(sound), network.body(image), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_mel_of_a_sound_is_not_rounded_by_mixed_precision():
    torch.manual_seed(0)
    network = SoundClassifier(5, [8], MEL, 4).eval()
    seen = []
    network.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    sound = torch.rand(3, 1, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    network(sound)
    with torch.autocast("cpu", torch.bfloat16):
        network(sound)
    assert torch.equal(seen[0], seen[1])


def test_features_of_mixed_precision_are_averaged_in_float32(network):
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = network(_images())
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, network(_images())[0], rtol=0.05, atol=0.05)
