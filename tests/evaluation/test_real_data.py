"""On real digits every metric tells good from bad, in order."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

from fastdpm import evaluate
from fastdpm.data.datasets import DIGITS, digits_part
from fastdpm.evaluation.extract import FeatureExtractor
from fastdpm.evaluation.metrics import (
    Moments,
    am_score,
    frechet_distance,
    kernel_score,
    modified_inception_score,
)
from fastdpm.evaluation.scores import Evaluation

HIGHER = ("precision", "recall", "inception_score")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    return digits_part(DIGITS)


@pytest.fixture
def score(tmp_path) -> Callable[[np.ndarray], Evaluation]:
    def score(images: np.ndarray) -> Evaluation:
        path = tmp_path / "x.npz"
        np.savez(path, images.transpose(0, 2, 3, 1))
        return evaluate(path)

    return score


def _noise(images: np.ndarray, scale: float) -> np.ndarray:
    drawn = np.random.default_rng(0).standard_normal(images.shape) * scale
    return (images + drawn).clip(0, 255).round().astype(np.uint8)


def _blur(images: np.ndarray, width: float) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter(images.astype(float), (0, 0, width, width))
    return blurred.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("worsen", "amounts"), [(_noise, (0.0, 20.0, 40.0, 80.0)), (_blur, (0.0, 0.5, 0.8, 1.2))]
)
def test_noise_and_blur_make_every_metric_worse_in_order(digits, score, worsen, amounts):
    found = [score(worsen(digits[0], amount)).scores for amount in amounts]
    for key in found[0]:
        values = [scores[key].value * (-1 if key in HIGHER else 1) for scores in found]
        assert values == sorted(values), key
        assert len(set(values)) == len(values), key


def test_dropping_modes_makes_every_metric_worse_in_order_that_can_see_it(digits, score):
    """Precision asks whether samples look real, and those of the digits that are left do."""
    images, labels = digits
    found = [score(images[labels < kept]).scores for kept in (10, 6, 3, 1)]
    for key in found[0].keys() - {"precision"}:
        values = [scores[key].value * (-1 if key in HIGHER else 1) for scores in found]
        assert values == sorted(values), key
        assert len(set(values)) == len(values), key


@pytest.mark.parametrize("worsen", [_noise, _blur])
def test_the_scores_of_the_sound_papers_get_worse_too(digits, worsen):
    extractor = FeatureExtractor("digits-features", "cpu")
    amounts = (0.0, 40.0, 80.0) if worsen is _noise else (0.0, 0.8, 1.2)
    logits = [extractor(worsen(digits[0], amount))[1] for amount in amounts]
    probs = torch.from_numpy(logits[0]).double().softmax(1).mean(0).numpy()
    confidence = [modified_inception_score(part).value for part in logits]
    assert confidence == sorted(confidence, reverse=True)
    apart = [am_score(part, probs).value for part in logits]
    assert apart == sorted(apart)


def test_two_halves_of_real_data_are_as_near_as_chance_puts_them(digits):
    features, _ = FeatureExtractor("digits-features", "cpu")(digits[0])
    generator = np.random.default_rng(0)

    def between_halves(order: np.ndarray) -> float:
        half = len(order) // 2
        parts = (features[order[:half]], features[order[half:]])
        return frechet_distance(*(Moments.of(part) for part in parts))

    chance = [between_halves(generator.permutation(len(features))) for _ in range(20)]
    first_and_second = between_halves(np.arange(len(features)))
    assert first_and_second < np.mean(chance) + 5 * np.std(chance)

    def kernel(order: np.ndarray) -> float:
        half = len(order) // 2
        return kernel_score(features[order[:half]], features[order[half:]]).value

    chance = [kernel(generator.permutation(len(features))) for _ in range(10)]
    assert kernel(np.arange(len(features))) < np.mean(chance) + 5 * np.std(chance)
